import { objectOf, textOf, type JsonObject } from './access-lines.js';
import type { LoggerProblem } from './find-problems.js';

/** What a logger's encoder loses or blurs. Encoders may wrap one another; a missing one is `json`. */
export function encoderProblems(encoder: unknown): LoggerProblem[] {
  return chainOf(encoder).flatMap(({ path, config }) => config['format'] === 'filter'
    ? filterProblems(path, objectOf(config['fields']))
    : [...timeProblems(path, config), ...durationProblems(path, config), ...lineEndingProblems(path, config)]);
}

/** An encoder and those that it wraps, from the outside in. */
function chainOf(encoder: unknown): { path: string; config: JsonObject }[] {
  const chain = [];
  let config = objectOf(encoder);
  for (let path = '/encoder'; 'format' in config; path += '/wrap', config = objectOf(config['wrap'])) chain.push({ path, config });
  return chain;
}

/** The layouts behind Caddy's names, as in `modules/logging/encoders.go`. The others count since 1970, or are `iso8601`. */
const namedLayouts: Readonly<Record<string, string>> = {
  rfc3339: '2006-01-02T15:04:05Z07:00',
  rfc3339_nano: '2006-01-02T15:04:05.999999999Z07:00',
  wall: '2006/01/02 15:04:05',
  wall_milli: '2006/01/02 15:04:05.000',
  wall_nano: '2006/01/02 15:04:05.000000000',
  common_log: '02/Jan/2006:15:04:05 -0700',
};
/** Of other layouts, those that the decoder reads: see `readTimeText` in `../decode/time.ts`. */
const readableLayout = /^2006([-/])01\1(?:02)[T ]15:04:05(?:[.,](?:0{1,9}|9{1,9}))?(?: ?(?:Z07:?00|-07:?00))?$/;
const exactFormats = new Set(['', 'unix_seconds_float', 'unix_milli_float', 'unix_nano', 'iso8601']);

function timeProblems(path: string, config: JsonObject): LoggerProblem[] {
  const format = textOf(config['time_format']);
  const change = { path: `${path}/time_format`, ...formatChange(config, 'time_format', 'unix_nano') };
  const problems: LoggerProblem[] = [];
  if (config['time_key'] === '') {
    problems.push({
      severity: 'blurs', code: 'no-time', what: 'The time is left out', path: `${path}/time_key`,
      why: 'The sink then takes the time of arrival.', caddyfile: ['# remove: time_key ""'], json: undefined,
    });
  }
  if (exactFormats.has(format)) return problems;
  const layout = namedLayouts[format] ?? format;
  if (!readableLayout.test(layout) && layout !== namedLayouts['common_log']) {
    return [...problems, {
      ...change, severity: 'blurs', code: 'unknown-time-format', what: `Times in a layout of their own, by time_format ${JSON.stringify(format)}`,
      why: 'The sink cannot read it and takes the time of arrival instead.',
    }];
  }
  if (!/[.,](0+|9+)/.test(layout)) {
    problems.push({
      ...change, severity: 'blurs', code: 'whole-seconds', what: `Times in whole seconds, by time_format ${JSON.stringify(format)}`,
      why: 'What happened within a second can no longer be put in order, and a replay of lines cannot be told from requests that are alike.',
    });
  }
  if (!/[Z-]07/.test(layout)) {
    const isLocal = config['time_local'] === true;
    problems.push({
      ...change, severity: isLocal ? 'blurs' : 'hint', code: 'no-time-zone', what: `Times without a zone, by time_format ${JSON.stringify(format)}`,
      why: isLocal
        ? 'They are in Caddy’s local time, and the sink reads them as UTC unless COLLECTOR_TIME_ZONE names the zone: requests appear hours away.'
        : 'They are in UTC, and the sink reads them so unless COLLECTOR_TIME_ZONE says otherwise.',
    });
  }
  return problems;
}

function durationProblems(path: string, config: JsonObject): LoggerProblem[] {
  if (!['ms', 'milli', 'millis'].includes(textOf(config['duration_format']))) return [];
  return [{
    severity: 'blurs', code: 'whole-milliseconds', what: 'Durations in whole milliseconds', path: `${path}/duration_format`,
    why: 'Caddy cuts the fraction off: what took less than a millisecond is logged as 0.',
    ...formatChange(config, 'duration_format', 's'),
  }];
}

function lineEndingProblems(path: string, config: JsonObject): LoggerProblem[] {
  const ending = config['line_ending'];
  if (typeof ending !== 'string' || /^\s*\n$/.test(ending) || ending === '') return [];
  return [{
    severity: 'loses', code: 'line-ending', what: `Lines end with ${JSON.stringify(ending)}`, path: `${path}/line_ending`,
    why: 'The sink takes a line break as the end of a line, so these run together and cannot be read; a Caddyfile has no escapes, "\\n" there is a backslash and an n.',
    caddyfile: ['# remove: line_ending'], json: undefined,
  }];
}

/** What happens without each field. */
const neededFields: readonly { field: string; severity: 'loses' | 'blurs' | 'hint'; why: string }[] = [
  { field: 'request', severity: 'blurs', why: 'Without it hosts, methods, paths and clients are unknown; without the name of the logger too, lines are not counted at all.' },
  { field: 'status', severity: 'loses', why: 'A line without a status is rejected.' },
  { field: 'duration', severity: 'blurs', why: 'A request without a duration is counted, and has no part in the latency.' },
  { field: 'size', severity: 'blurs', why: 'Without it the sink counts no bytes.' },
  { field: 'request>host', severity: 'blurs', why: 'Without it all sites are one.' },
  { field: 'request>method', severity: 'blurs', why: 'Without it the methods are unknown.' },
  { field: 'request>uri', severity: 'blurs', why: 'Without it the paths are unknown.' },
  { field: 'request>headers', severity: 'hint', why: 'Without it browsers, systems, bots and referrers are unknown.' },
];

/** Filters that take a value away. The others (`ip_mask`, `query`, `cookie`, `regexp`) leave one that can be used. */
const takesAway = new Set(['delete', 'rename', 'replace', 'hash']);

function filterProblems(path: string, fields: JsonObject): LoggerProblem[] {
  return neededFields.flatMap(({ field, severity, why }): LoggerProblem[] => {
    const filter = textOf(objectOf(fields[field])['filter']);
    if (!takesAway.has(filter)) return [];
    return [{
      severity, code: 'field-filtered', what: `The field ${field} is taken away, by the filter ${filter}`, path: `${path}/fields/${field}`,
      why, caddyfile: [`# remove: ${field} ${filter}`], json: undefined,
    }];
  });
}

function formatChange(config: JsonObject, option: string, value: string): { caddyfile: readonly string[]; json: string } {
  return { caddyfile: [`format ${textOf(config['format']) || 'json'} {`, `    ${option} ${value}`, '}'], json: value };
}
