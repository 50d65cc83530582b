import { readFileSync } from 'node:fs';
import { messageOf, UsageError } from '../errors.js';
import type { Retention } from '../rollup/rollup.js';
import { bytes, choice, count, duration, ratio, text, url, type SettingValues } from './settings.js';

/** Settings of the store, common to all parts of the program. */
export const storeSettings = {
  STORE: text('Where requests are stored: duckdb:FILE, or influxdb.', { default: 'duckdb:data/requests.duckdb' }),
  INFLUXDB_URL: url('The address of InfluxDB 2.x.'),
  INFLUXDB_ORG: text('The organisation in InfluxDB.'),
  INFLUXDB_BUCKET: text('The bucket in InfluxDB.'),
  INFLUXDB_TOKEN: text(
    'The token for InfluxDB. The collector needs write access to the bucket; the web app and imports also need read access.',
  ),
  INFLUXDB_TOKEN_FILE: text('A file with the token, instead of INFLUXDB_TOKEN.'),
  SPOOL_DIR: text(
    'The folder of the spool, where requests wait while InfluxDB is unavailable, and of dead letters: lines that InfluxDB rejected.',
    { default: 'data/spool' },
  ),
  SPOOL_BYTES_MAX: bytes('Maximum size of the spool. When it is full, new requests are dropped and counted.', {
    default: '1GiB',
    min: '1MiB',
    max: '1TiB',
  }),
  MEMORY_BYTES_MAX: bytes(
    'Maximum memory for requests that are not yet stored or spooled. When it is full, new requests are dropped and counted.',
    { default: '128MiB', min: '1MiB', max: '64GiB' },
  ),
  DUCKDB_MEMORY_BYTES_MAX: bytes(
    'Memory limit of DuckDB. Beyond it, DuckDB spills to the folder FILE.tmp. Default: an eighth of the memory of the machine or container, at least 96MiB and at most 256MiB.',
    { min: '64MiB', max: '1TiB' },
  ),
  SAMPLE_RATIO: ratio(
    'Fraction of requests stored as raw requests: 1 for all, 0 for none. Rollups and top lists always count all requests.',
    { default: '1' },
  ),
  RETENTION_REQUESTS: duration('Retention of raw requests.', { default: '7d', min: '1h', max: '3650d' }),
  RETENTION_ROLLUPS: duration(
    'Retention of hourly and daily rollups; in InfluxDB limited by the retention of the bucket.',
    { default: '400d', min: '1d', max: '3650d' },
  ),
  EVENTS_RETENTION: duration('Retention of what Caddy logs besides requests. A shorter one takes effect at once.', {
    default: '30d',
    min: '1h',
    max: '3650d',
  }),
  RETENTION_DELAY: duration(
    'How long the log announces a shorter retention, or a clock that has jumped, before any data is deleted because of it.',
    { default: '1d', min: '0s', max: '365d' },
  ),
  CLIENT_IP: choice(
    'How client addresses are stored: truncated to /24 and /48, full, or off.',
    ['truncated', 'full', 'off'],
    { default: 'truncated' },
  ),
  GEOIP_DATABASE: text('An MMDB file with countries, such as GeoLite2-Country.mmdb, for the top list of countries.'),
  HOSTS_MAX: count(
    'Maximum number of hosts counted by name; requests to further ones are counted under the host _other.',
    { default: '10000', min: 1, max: 100_000 },
  ),
};

const { INFLUXDB_URL, INFLUXDB_ORG, INFLUXDB_BUCKET, INFLUXDB_TOKEN, INFLUXDB_TOKEN_FILE, RETENTION_ROLLUPS } =
  storeSettings;

/** Settings of `setup`. The token is an operator token. */
export const setupSettings = {
  INFLUXDB_URL,
  INFLUXDB_ORG,
  INFLUXDB_BUCKET,
  INFLUXDB_TOKEN,
  INFLUXDB_TOKEN_FILE,
  RETENTION_ROLLUPS,
};

/** Returns the options of `setup`. Throws a `UsageError` if a setting is missing. */
export function setupOptionsFrom(values: SettingValues<typeof setupSettings>): {
  url: string;
  org: string;
  bucket: string;
  token: string | undefined;
  retentionMs: number;
} {
  return {
    url: required('INFLUXDB_URL', values.INFLUXDB_URL),
    org: required('INFLUXDB_ORG', values.INFLUXDB_ORG),
    bucket: required('INFLUXDB_BUCKET', values.INFLUXDB_BUCKET),
    token: token(values),
    retentionMs: values.RETENTION_ROLLUPS,
  };
}

/** Store to open, with its options. */
export type StoreSettings =
  | {
      readonly kind: 'duckdb';
      readonly path: string;
      readonly memoryBytesMax?: number | undefined;
      readonly retention: Retention;
      readonly retentionDelayMs?: number;
    }
  | {
      readonly kind: 'influxdb';
      readonly url: string;
      readonly org: string;
      readonly bucket: string;
      readonly token: string;
      readonly spoolDir: string;
      readonly spoolBytesMax: number;
      readonly retention?: Retention;
      readonly retentionDelayMs?: number;
    };

/** Validates the settings of the store. Throws a `UsageError` if they are inconsistent. */
export function storeSettingsFrom(values: SettingValues<typeof storeSettings>): StoreSettings {
  const retention = {
    requestsMs: values.RETENTION_REQUESTS,
    rollupsMs: values.RETENTION_ROLLUPS,
    eventsMs: values.EVENTS_RETENTION,
  };
  const retentionDelayMs = values.RETENTION_DELAY;
  if (values.STORE === 'influxdb') {
    return {
      kind: 'influxdb',
      url: required('INFLUXDB_URL', values.INFLUXDB_URL),
      org: required('INFLUXDB_ORG', values.INFLUXDB_ORG),
      bucket: required('INFLUXDB_BUCKET', values.INFLUXDB_BUCKET),
      token: required('INFLUXDB_TOKEN or INFLUXDB_TOKEN_FILE', token(values)),
      spoolDir: values.SPOOL_DIR,
      spoolBytesMax: values.SPOOL_BYTES_MAX,
      retention,
      retentionDelayMs,
    };
  }
  const unexpected = (
    ['INFLUXDB_URL', 'INFLUXDB_ORG', 'INFLUXDB_BUCKET', 'INFLUXDB_TOKEN', 'INFLUXDB_TOKEN_FILE'] as const
  ).find((name) => values[name] !== undefined);
  if (unexpected !== undefined)
    throw new UsageError(
      `${unexpected} is set, and STORE is ${JSON.stringify(values.STORE)}: set STORE=influxdb to use InfluxDB, or leave ${unexpected} out.`,
    );
  const path = /^duckdb:(.+)$/.exec(values.STORE)?.[1];
  if (path === undefined)
    throw new UsageError(`STORE is ${JSON.stringify(values.STORE)}: it must be duckdb:FILE or influxdb.`);
  return { kind: 'duckdb', path, retention, retentionDelayMs, memoryBytesMax: values.DUCKDB_MEMORY_BYTES_MAX };
}

function required(name: string, value: string | undefined): string {
  if (value === undefined) throw new UsageError(`${name} is not set: InfluxDB needs it.`);
  return value;
}

function token({
  INFLUXDB_TOKEN: value,
  INFLUXDB_TOKEN_FILE: file,
}: Pick<SettingValues<typeof storeSettings>, 'INFLUXDB_TOKEN' | 'INFLUXDB_TOKEN_FILE'>): string | undefined {
  if (file === undefined) return value;
  if (value !== undefined)
    throw new UsageError('INFLUXDB_TOKEN and INFLUXDB_TOKEN_FILE are both set: set one of them.');
  try {
    return readFileSync(file, 'utf8').trim() || undefined;
  } catch (error) {
    throw new UsageError(
      `INFLUXDB_TOKEN_FILE is ${JSON.stringify(file)}: it must be a file that this user can read (${messageOf(error)}).`,
      { cause: error },
    );
  }
}
