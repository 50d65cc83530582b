import { createDecoder } from '../../decode/decode.js';
import { objectOf, textOf, type JsonObject } from './log-routing.js';
import type { LoggerProblem } from './finding.js';

/** Finds problems of a logger's encoder and of the encoders that it wraps. The default encoder is `json`. */
export function encoderProblems(encoder: unknown): LoggerProblem[] {
  return chainOf(encoder).flatMap(({ path, config }) => {
    if (config['format'] === 'filter') return filterProblems(path, objectOf(config['fields']));
    if (!supportedEncoders.has(textOf(config['format']))) return unknownEncoderProblems(path, config);
    return [...timeProblems(path, config), ...durationProblems(path, config), ...lineEndingProblems(path, config)];
  });
}

/** Encoders that the decoder supports, besides `filter`. */
const supportedEncoders = new Set(['json', 'console', 'append', 'journald']);

/** Checks an encoder of a plugin or of an old Caddy: whether the decoder can read a sample of its output. */
function unknownEncoderProblems(path: string, config: JsonObject): LoggerProblem[] {
  const format = textOf(config['format']);
  const change = { path, caddyfile: ['format json'], json: { format: 'json' } };
  const decoded = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' }).decode(sampleOf(config), 0);
  if (decoded.kind !== 'request') {
    return [
      {
        ...change,
        severity: 'loses',
        code: 'unknown-encoder',
        what: `The encoder ${format} is not supported`,
        why: 'Every line is rejected, and no request is counted.',
      },
    ];
  }
  if (decoded.event.host !== '' && decoded.event.durationMs !== null && !decoded.timeOfArrival) return [];
  return [
    {
      ...change,
      severity: 'blurs',
      code: 'common-log-format',
      what: `The encoder ${format} omits values`,
      why: 'Common and Combined Log Format have no host and no duration: sites cannot be told apart, and there are no latencies.',
    },
  ];
}

const sampleTime = '23/Nov/2026:20:04:57 +0000';
/** Sample values for placeholders in a template. Other placeholders become `x`. */
const sampleValues: Readonly<Record<string, string>> = {
  common_log: `203.0.113.9 - - [${sampleTime}] "GET / HTTP/2.0" 200 5`,
  level: 'info',
  logger: 'http.log.access.log0',
  msg: 'handled request',
  status: '200',
  size: '5',
  bytes_read: '0',
  duration: '0.1',
  user_id: '-',
  'request>remote_ip': '203.0.113.9',
  'request>client_ip': '203.0.113.9',
  'request>remote_port': '5000',
  'request>host': 'shop.example',
  'request>method': 'GET',
  'request>uri': '/',
  'request>proto': 'HTTP/2.0',
};

/**
 * A sample line of `transform` (formerly `formatted`) or of `single_field`; empty for encoders with unknown output.
 */
function sampleOf(config: JsonObject): string {
  const format = textOf(config['format']);
  const times: Readonly<Record<string, string>> = {
    common_log: sampleTime,
    '02/Jan/2006:15:04:05 -0700': sampleTime,
    iso8601: '2026-11-23T20:04:57.000Z',
    rfc3339: '2026-11-23T20:04:57Z',
  };
  const values: Readonly<Record<string, string>> = {
    ...sampleValues,
    ts: times[textOf(config['time_format'])] ?? '1795464297.5',
  };
  if (format === 'single_field') return values[textOf(config['field'])] ?? '';
  if (format !== 'transform' && format !== 'formatted') return '';
  const template = textOf(config['template']) || '{common_log}';
  return template.replace(/\{([\w>-]+(?:>\[\d+\])?)\}/g, (_, name: string) => values[name] ?? 'x');
}

/** An encoder and the encoders that it wraps, from the outside in. */
function chainOf(encoder: unknown): { path: string; config: JsonObject }[] {
  const chain = [];
  let config = objectOf(encoder);
  for (let path = '/encoder'; 'format' in config; path += '/wrap', config = objectOf(config['wrap']))
    chain.push({ path, config });
  return chain;
}

/**
 * Layouts of Caddy's named formats, as in `modules/logging/encoders.go`. The other names are Unix times and `iso8601`.
 */
const namedLayouts: Readonly<Record<string, string>> = {
  rfc3339: '2006-01-02T15:04:05Z07:00',
  rfc3339_nano: '2006-01-02T15:04:05.999999999Z07:00',
  wall: '2006/01/02 15:04:05',
  wall_milli: '2006/01/02 15:04:05.000',
  wall_nano: '2006/01/02 15:04:05.000000000',
  common_log: '02/Jan/2006:15:04:05 -0700',
};
/** Custom layouts that the decoder reads: see `readTimeText` in `../decode/time.ts`. */
const readableLayout = /^2006([-/])01\1(?:02)[T ]15:04:05(?:[.,](?:0{1,9}|9{1,9}))?(?: ?(?:Z07:?00|-07:?00))?$/;
const exactFormats = new Set(['', 'unix_seconds_float', 'unix_milli_float', 'unix_nano', 'iso8601']);

function timeProblems(path: string, config: JsonObject): LoggerProblem[] {
  const format = textOf(config['time_format']);
  const change = { path: `${path}/time_format`, ...formatChange(config, 'time_format', 'unix_nano') };
  const problems: LoggerProblem[] = [];
  if (config['time_key'] === '') {
    problems.push({
      severity: 'blurs',
      code: 'no-time',
      what: 'No time',
      path: `${path}/time_key`,
      why: 'The sink uses the arrival time instead.',
      caddyfile: ['# remove: time_key ""'],
      json: undefined,
    });
  }
  if (exactFormats.has(format)) return problems;
  const layout = namedLayouts[format] ?? format;
  if (!readableLayout.test(layout) && layout !== namedLayouts['common_log']) {
    return [
      ...problems,
      {
        ...change,
        severity: 'blurs',
        code: 'unknown-time-format',
        what: `Times in an unsupported layout, by time_format ${JSON.stringify(format)}`,
        why: 'The sink cannot read it and uses the arrival time instead.',
      },
    ];
  }
  if (!/[.,](0+|9+)/.test(layout)) {
    problems.push({
      ...change,
      severity: 'blurs',
      code: 'whole-seconds',
      what: `Times in whole seconds, by time_format ${JSON.stringify(format)}`,
      why: 'Requests within a second cannot be ordered, and replayed lines cannot be told from similar requests.',
    });
  }
  if (!/[Z-]07/.test(layout)) {
    const isLocal = config['time_local'] === true;
    problems.push({
      ...change,
      severity: isLocal ? 'blurs' : 'hint',
      code: 'no-time-zone',
      what: `Times without a zone, by time_format ${JSON.stringify(format)}`,
      why: isLocal
        ? 'They are in Caddy’s local time, and the sink reads them as UTC unless COLLECTOR_TIME_ZONE is set: requests are off by hours.'
        : 'They are in UTC, and the sink reads them as UTC unless COLLECTOR_TIME_ZONE is set.',
    });
  }
  return problems;
}

function durationProblems(path: string, config: JsonObject): LoggerProblem[] {
  if (!['ms', 'milli', 'millis'].includes(textOf(config['duration_format']))) return [];
  return [
    {
      severity: 'blurs',
      code: 'whole-milliseconds',
      what: 'Durations in whole milliseconds',
      path: `${path}/duration_format`,
      why: 'Caddy truncates the fraction: durations below a millisecond are logged as 0.',
      ...formatChange(config, 'duration_format', 's'),
    },
  ];
}

function lineEndingProblems(path: string, config: JsonObject): LoggerProblem[] {
  const ending = config['line_ending'];
  if (typeof ending !== 'string' || /^\s*\n$/.test(ending) || ending === '') return [];
  return [
    {
      severity: 'loses',
      code: 'line-ending',
      what: `Lines end with ${JSON.stringify(ending)}`,
      path: `${path}/line_ending`,
      why: 'The sink expects a line break at the end of each line, so it cannot separate these. A Caddyfile has no escapes: "\\n" is a backslash and an n.',
      caddyfile: ['# remove: line_ending'],
      json: undefined,
    },
  ];
}

/** The required fields, and what happens without them. */
const neededFields: readonly { field: string; severity: 'loses' | 'blurs' | 'hint'; why: string }[] = [
  {
    field: 'request',
    severity: 'blurs',
    why: 'Without it, hosts, methods, paths and clients are unknown. Without the logger name as well, lines are not counted at all.',
  },
  { field: 'status', severity: 'loses', why: 'A line without a status is rejected.' },
  {
    field: 'duration',
    severity: 'blurs',
    why: 'A request without a duration is counted, but is missing from the latency.',
  },
  { field: 'size', severity: 'blurs', why: 'Without it, the sink counts no bytes.' },
  { field: 'request>host', severity: 'blurs', why: 'Without it, sites cannot be told apart.' },
  { field: 'request>method', severity: 'blurs', why: 'Without it, the methods are unknown.' },
  { field: 'request>uri', severity: 'blurs', why: 'Without it, the paths are unknown.' },
  {
    field: 'request>client_ip',
    severity: 'hint',
    why: 'The sink uses remote_ip instead, which may be a proxy’s. A hash is not an address: it is stored only with CLIENT_IP=full; otherwise clients cannot be told apart.',
  },
  {
    field: 'request>remote_ip',
    severity: 'hint',
    why: 'It is the fallback for client_ip. A hash is not an address: it is stored only with CLIENT_IP=full; otherwise clients cannot be told apart.',
  },
  { field: 'request>headers', severity: 'hint', why: 'Without it, browsers, systems, bots and referrers are unknown.' },
];

/** Filters that remove a value. The others (`ip_mask`, `query`, `cookie`, `regexp`) leave a usable one. */
const removingFilters = new Set(['delete', 'rename', 'replace', 'hash']);

function filterProblems(path: string, fields: JsonObject): LoggerProblem[] {
  return neededFields.flatMap(({ field, severity, why }): LoggerProblem[] => {
    const filter = textOf(objectOf(fields[field])['filter']);
    if (!removingFilters.has(filter)) return [];
    return [
      {
        severity,
        code: 'field-filtered',
        what: `The field ${field} is removed by the filter ${filter}`,
        path: `${path}/fields/${field}`,
        why,
        caddyfile: [`# remove: ${field} ${filter}`],
        json: undefined,
      },
    ];
  });
}

function formatChange(
  config: JsonObject,
  option: string,
  value: string,
): { caddyfile: readonly string[]; json: string } {
  return { caddyfile: [`format ${textOf(config['format']) || 'json'} {`, `    ${option} ${value}`, '}'], json: value };
}
