import { readFileSync } from 'node:fs';
import { messageOf, UsageError } from '../errors.js';
import type { Retention } from '../rollup/rollup.js';
import { bytes, choice, count, duration, ratio, text, url, type SettingValues } from './settings.js';

/** The settings that every part of the program needs: where requests are kept, for how long, and how much of them. */
export const storeSettings = {
  STORE: text('Where requests are kept: duckdb:FILE, or influxdb.', { default: 'duckdb:data/requests.duckdb' }),
  INFLUXDB_URL: url('The address of InfluxDB 2.x.'),
  INFLUXDB_ORG: text('The organisation in InfluxDB.'),
  INFLUXDB_BUCKET: text('The bucket in InfluxDB.'),
  INFLUXDB_TOKEN: text(
    'The token for InfluxDB. The collector needs to write to the bucket; the web app and imports to read it, too.',
  ),
  INFLUXDB_TOKEN_FILE: text('A file that holds the token, instead of INFLUXDB_TOKEN.'),
  SPOOL_DIR: text(
    'The folder where requests wait while InfluxDB does not take them, and where lines are kept that it refuses for good.',
    { default: 'data/spool' },
  ),
  SPOOL_BYTES_MAX: bytes('How much may wait there; when it is full, new requests are dropped and counted.', {
    default: '1GiB',
    min: '1MiB',
    max: '1TiB',
  }),
  MEMORY_BYTES_MAX: bytes(
    'How much memory requests may take before they are stored or spooled; when it is full, new ones are dropped and counted.',
    { default: '128MiB', min: '1MiB', max: '64GiB' },
  ),
  DUCKDB_MEMORY_BYTES_MAX: bytes(
    "How much memory DuckDB may use. When it is not set: an eighth of the machine's or the container's memory, at least 96MiB and at most 256MiB. Beyond it, DuckDB spills to the folder FILE.tmp.",
    { min: '64MiB', max: '1TiB' },
  ),
  SAMPLE_RATIO: ratio(
    'The part of the requests that are kept one by one: 1 for all, 0 for none. All are counted in totals and lists, whatever it is.',
    { default: '1' },
  ),
  RETENTION_REQUESTS: duration('How long single requests are kept.', { default: '7d', min: '1h', max: '3650d' }),
  RETENTION_ROLLUPS: duration(
    'How long the totals by hour and day are kept; in InfluxDB no longer than the bucket keeps anything.',
    { default: '400d', min: '1d', max: '3650d' },
  ),
  RETENTION_DELAY: duration(
    'How long a shorter retention, or a clock that has jumped, is announced in the log before anything is deleted because of it.',
    { default: '1d', min: '0s', max: '365d' },
  ),
  CLIENT_IP: choice(
    'How client addresses are kept: truncated to /24 and /48, full, or off.',
    ['truncated', 'full', 'off'],
    { default: 'truncated' },
  ),
  GEOIP_DATABASE: text(
    'An MMDB file with the countries of addresses, such as GeoLite2-Country.mmdb, for a list of countries.',
  ),
  HOSTS_MAX: count(
    'Maximum number of hosts counted by name; requests to further ones are counted under the host _other.',
    { default: '10000', min: 1, max: 100_000 },
  ),
};

const { INFLUXDB_URL, INFLUXDB_ORG, INFLUXDB_BUCKET, INFLUXDB_TOKEN, INFLUXDB_TOKEN_FILE, RETENTION_ROLLUPS } =
  storeSettings;

/** The settings of `setup`: the token is one that may do everything. */
export const setupSettings = {
  INFLUXDB_URL,
  INFLUXDB_ORG,
  INFLUXDB_BUCKET,
  INFLUXDB_TOKEN,
  INFLUXDB_TOKEN_FILE,
  RETENTION_ROLLUPS,
};

/** What to set up in InfluxDB. Throws a `UsageError` when something is not set. */
export function setupOptionsFrom(values: SettingValues<typeof setupSettings>): {
  url: string;
  org: string;
  bucket: string;
  token: string | undefined;
  retentionMs: number;
} {
  return {
    url: needed('INFLUXDB_URL', values.INFLUXDB_URL),
    org: needed('INFLUXDB_ORG', values.INFLUXDB_ORG),
    bucket: needed('INFLUXDB_BUCKET', values.INFLUXDB_BUCKET),
    token: token(values),
    retentionMs: values.RETENTION_ROLLUPS,
  };
}

/** Which store to open, and with what. */
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

/** Makes one typed choice of the settings. Throws a `UsageError` when they do not fit together. */
export function storeSettingsFrom(values: SettingValues<typeof storeSettings>): StoreSettings {
  const retention = { requestsMs: values.RETENTION_REQUESTS, rollupsMs: values.RETENTION_ROLLUPS };
  const retentionDelayMs = values.RETENTION_DELAY;
  if (values.STORE === 'influxdb') {
    return {
      kind: 'influxdb',
      url: needed('INFLUXDB_URL', values.INFLUXDB_URL),
      org: needed('INFLUXDB_ORG', values.INFLUXDB_ORG),
      bucket: needed('INFLUXDB_BUCKET', values.INFLUXDB_BUCKET),
      token: needed('INFLUXDB_TOKEN or INFLUXDB_TOKEN_FILE', token(values)),
      spoolDir: values.SPOOL_DIR,
      spoolBytesMax: values.SPOOL_BYTES_MAX,
      retention,
      retentionDelayMs,
    };
  }
  const stray = (
    ['INFLUXDB_URL', 'INFLUXDB_ORG', 'INFLUXDB_BUCKET', 'INFLUXDB_TOKEN', 'INFLUXDB_TOKEN_FILE'] as const
  ).find((name) => values[name] !== undefined);
  if (stray !== undefined)
    throw new UsageError(
      `${stray} is set, and STORE is ${JSON.stringify(values.STORE)}: set STORE=influxdb to use InfluxDB, or leave ${stray} out.`,
    );
  const path = /^duckdb:(.+)$/.exec(values.STORE)?.[1];
  if (path === undefined)
    throw new UsageError(`STORE is ${JSON.stringify(values.STORE)}: it must be duckdb:FILE or influxdb.`);
  return { kind: 'duckdb', path, retention, retentionDelayMs, memoryBytesMax: values.DUCKDB_MEMORY_BYTES_MAX };
}

function needed(name: string, value: string | undefined): string {
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
