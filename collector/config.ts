import { hostname } from 'node:os';
import { UsageError } from '../shared/errors.js';
import {
  address,
  bytes,
  choice,
  count,
  list,
  parseAddress,
  text,
  type Address,
  type Setting,
  type SettingValues,
} from '../shared/settings/settings.js';
import { listenSyntax, parseListenAddress, type ListenAddress } from './listen/address.js';
import { parseCidr, privateRanges, type Cidr } from './listen/peers.js';

const durationFormats = ['s', 'ns', 'ms', 'string'] as const;

/** The settings of the collector. */
export const collectorSettings = {
  COLLECTOR_LISTEN: list('Addresses on which the collector listens for log lines.', {
    default: 'tcp://127.0.0.1:9514,udp://127.0.0.1:9514',
    allowed: listenSyntax,
    parse: parseListenAddress,
  }),
  COLLECTOR_ALLOW: list('Peers that may send log lines.', {
    default: privateRanges,
    allowed: 'address ranges such as 10.0.0.0/8 or fc00::/7, separated by commas',
    parse: parseCidr,
  }),
  COLLECTOR_CONNECTIONS_MAX: count(
    'Maximum number of open connections. Beyond it, the longest idle one that has never sent a line is closed; if there is none, the new one is refused. One address may use three quarters.',
    { default: '1000', min: 1, max: 100_000 },
  ),
  COLLECTOR_LINE_BYTES_MAX: bytes('Maximum length of a line. Longer lines are counted and skipped.', {
    default: '1MiB',
    min: '1KiB',
    max: '64MiB',
  }),
  COLLECTOR_UNIX_MODE: fileMode("File mode of unix sockets. Caddy's user must be able to write to them.", {
    default: '0660',
  }),
  COLLECTOR_HTTP: httpAddress(),
  COLLECTOR_TIME_ZONE: timeZone(),
  COLLECTOR_DURATION_FORMAT: choice(
    'Unit of numeric durations in log lines; auto learns it for each logger.',
    ['auto', ...durationFormats],
    { default: 'auto' },
  ),
  COLLECTOR_ID: text(
    "The collector's name in the ledger, unique among the collectors of a store. Default: the host name.",
  ),
};

/** Caddy's `duration_format`. */
export type DurationFormat = (typeof durationFormats)[number];

/** The collector's configuration. */
export interface CollectorConfig {
  readonly id: string;
  readonly listen: readonly ListenAddress[];
  readonly allow: readonly Cidr[];
  readonly connectionsMax: number;
  readonly lineBytesMax: number;
  /** File mode of unix sockets, such as 0o660. */
  readonly unixMode: number;
  /** Address of `/health`, `/ready`, `/metrics` and `/ledger`; `undefined` if off. */
  readonly http: Address | undefined;
  /** IANA zone of times without one. */
  readonly timeZone: string;
  /** Unit of numeric durations. */
  readonly durationFormat: DurationFormat | 'auto';
}

/** Creates the configuration from settings. Throws a `UsageError` if COLLECTOR_ID is invalid. */
export function collectorConfigFrom(values: SettingValues<typeof collectorSettings>): CollectorConfig {
  const id = values.COLLECTOR_ID ?? hostname();
  if (!/^[\w.:-]{1,100}$/.test(id)) {
    throw new UsageError(
      `COLLECTOR_ID is ${JSON.stringify(id)}: it must be 1 to 100 letters, digits, dots, colons, hyphens or underscores.`,
    );
  }
  return {
    id,
    listen: values.COLLECTOR_LISTEN,
    allow: values.COLLECTOR_ALLOW,
    connectionsMax: values.COLLECTOR_CONNECTIONS_MAX,
    lineBytesMax: values.COLLECTOR_LINE_BYTES_MAX,
    unixMode: values.COLLECTOR_UNIX_MODE,
    http: values.COLLECTOR_HTTP,
    timeZone: values.COLLECTOR_TIME_ZONE,
    durationFormat: values.COLLECTOR_DURATION_FORMAT,
  };
}

function httpAddress(): Setting<Address | undefined> {
  const setting = address('Address on which the collector serves /health, /ready, /metrics and /ledger.', {
    default: '127.0.0.1:9515',
  });
  return {
    ...setting,
    allowed: `${setting.allowed}, or off`,
    parse: (value) => (value === 'off' ? undefined : parseAddress(value)),
  };
}

function fileMode(help: string, options: { default: string }): Setting<number> {
  return {
    default: options.default,
    allowed: 'an octal file mode from 0000 to 0777, such as 0660',
    help,
    parse: (value) => {
      if (!/^0?[0-7]{3}$/.test(value)) throw new TypeError('not a mode');
      return Number.parseInt(value, 8);
    },
  };
}

function timeZone(): Setting<string> {
  return {
    ...text('Time zone of times without one (time_format wall, and the console encoder).', {
      default: 'UTC',
    }),
    allowed: 'UTC or an IANA time zone, such as Europe/Berlin',
    parse: (value) => new Intl.DateTimeFormat('en', { timeZone: value }).resolvedOptions().timeZone,
  };
}
