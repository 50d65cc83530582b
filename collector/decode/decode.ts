import { createMemo } from '../../shared/memo.js';
import { caddySource, type RequestEvent } from '../../shared/request-event.js';
import { hasLatency, isEventStream } from '../../shared/status.js';
import type { DurationFormat } from '../config.js';
import type { RejectionReason } from '../ledger.js';
import { createDurationReader, type LearnedDuration } from './duration.js';
import type { JsonObject } from './json-object.js';
import { isLevel, isObject, readEntry, type Entry } from './split-encoding.js';
import { normaliseHost } from './host.js';
import { createFastPathReader, type FastPathLine } from './fast-path.js';
import { readTimeNumber, readTimeText, type Time, type WallClock } from './time.js';
import { createWallClock } from './wall-clock.js';

/** A decoded line. */
export type Decoded =
  /** `timeOfArrival`: whether the event has its arrival time, since the line's own time could not be read. */
  | { readonly kind: 'request'; readonly event: RequestEvent; readonly timeOfArrival: boolean }
  /** A line of any other logger, including error lines that accompany an access line. */
  | { readonly kind: 'runtime' }
  | { readonly kind: 'rejected'; readonly reason: RejectionReason };

/** Decodes the lines of one collector, from any mix of encoders. Each line is decoded by itself. */
export interface Decoder {
  /**
   * Decodes the line in `bytes` from `from` to `to`, without its ending, where a line ending follows or the buffer ends.
   * Never throws. `arrivalMs` is the arrival time in milliseconds since 1970, which replaces a time that cannot be read.
   * If it is `undefined`, as for a file, such a line is rejected as `bad-time`.
   */
  decodeLine(bytes: Buffer, from: number, to: number, arrivalMs: number | undefined): Decoded;
  /** Decodes a line that exists as text only, such as one assembled from parts. Several times as slow. */
  decode(line: string, arrivalMs: number | undefined): Decoded;
  /** The learned duration formats, by logger. */
  durationFormats(): Readonly<Record<string, LearnedDuration>>;
}

/** How a decoder reads ambiguous values. */
export interface DecoderOptions {
  /** IANA zone of times without one. */
  readonly timeZone: string;
  /** Unit of numeric durations. `auto` learns it for each logger. */
  readonly durationFormat: DurationFormat | 'auto';
  /** Called for each time without a zone, which is read in `timeZone`. */
  readonly onTimeWithoutZone?: () => void;
}

/** Creates a decoder. Throws a `RangeError` if the time zone does not exist. Its memory is bounded. */
export function createDecoder({ timeZone, durationFormat, onTimeWithoutZone }: DecoderOptions): Decoder {
  const clockOfZone = createWallClock(timeZone);
  const wallClock: WallClock = (wallMs, nearMs) => {
    onTimeWithoutZone?.();
    return clockOfZone(wallMs, nearMs);
  };
  const durations = createDurationReader(durationFormat);
  const readFastPath = createFastPathReader();
  const hostOf = createMemo(normaliseHost);
  return { decodeLine, decode, durationFormats: durations.formats };

  function decodeLine(bytes: Buffer, from: number, to: number, arrivalMs: number | undefined): Decoded {
    const known = readFastPath(bytes, from, to);
    return known === undefined
      ? decode(bytes.toString('utf8', from, to), arrivalMs)
      : { kind: 'request', event: eventOf(known), timeOfArrival: false };
  }

  function decode(line: string, arrivalMs: number | undefined): Decoded {
    const entry = readEntry(line);
    if (typeof entry === 'string') return rejected(isUnknownText(line) ? 'unknown-encoder' : entry);
    const logger = accessLoggerOf(entry);
    if (logger !== undefined) return decodeAccessLog(entry, logger, arrivalMs);
    if (hasUnknownEncoder(entry)) return rejected('unknown-encoder');
    return isRuntimeLog(entry) ? runtime : rejected('not-caddy');
  }

  function eventOf(known: FastPathLine): RequestEvent {
    const { target, logger, status, appended } = known;
    return {
      source: caddySource,
      timeMs: known.timeMs,
      timeNs: known.timeNs,
      host: target.host,
      method: target.method,
      status,
      durationMs: known.isEventStream
        ? null
        : (durations.read(known.duration, logger, { learn: hasLatency({ status, method: target.method }) }) ?? null),
      size: known.size,
      bytesRead: known.bytesRead,
      uri: known.uri,
      endpoint: '',
      clientIp: known.address,
      userAgent: known.userAgent,
      referrer: known.referrer,
      protocol: target.protocol,
      tls: known.tlsVersion === undefined ? '' : tlsOf(known.tlsVersion),
      upstreamMs: appended === undefined ? null : upstreamMsOf(appended, logger),
      requestId: appended === undefined ? known.responseId : appendedIdOf(appended) || known.responseId,
    };
  }

  function decodeAccessLog(entry: Entry, logger: string, arrivalMs: number | undefined): Decoded {
    const { fields, text: line } = entry;
    const time =
      timeOf(entry, arrivalMs) ??
      (arrivalMs === undefined ? undefined : { timeMs: arrivalMs, timeNs: 0, ofArrival: true });
    if (time === undefined) return rejected('bad-time');
    const status = statusOf(fields['status']) ?? statusOf(firstWritten('status', line));
    if (status === undefined) return rejected('bad-status');
    const request = isObject(fields['request']) ? fields['request'] : empty;
    const method = textOf(request['method']);
    const responseHeaders = isObject(fields['resp_headers']) ? fields['resp_headers'] : empty;
    const isStream = isEventStream(firstOf(responseHeaders['Content-Type']));
    // A request without latency is no evidence for the unit of durations.
    const options = { learn: hasLatency({ status, method }) };
    const durationMs = isStream
      ? null
      : (durations.read(fields['duration'], logger, options) ??
        durations.read(firstWritten('duration', line), logger, options));
    const headers = isObject(request['headers']) ? request['headers'] : empty;
    return {
      kind: 'request',
      event: {
        source: caddySource,
        timeMs: time.timeMs,
        timeNs: time.timeNs,
        host: hostOf(textOf(request['host'])),
        method,
        status,
        durationMs: durationMs ?? null,
        size: countOf(fields['size']) ?? countOf(firstWritten('size', line)) ?? 0,
        bytesRead: countOf(fields['bytes_read']) ?? 0,
        uri: textOf(request['uri']),
        endpoint: '',
        clientIp:
          textOf(request['client_ip']) || textOf(request['remote_ip']) || addressOf(textOf(request['remote_addr'])),
        userAgent: firstOf(headers['User-Agent']),
        referrer: firstOf(headers['Referer']),
        protocol: textOf(request['proto']),
        tls: isObject(request['tls']) ? tlsOf(request['tls']['version']) : '',
        upstreamMs: upstreamMsOf(fields, logger),
        requestId: appendedIdOf(fields) || firstOf(responseHeaders['X-Request-Id']),
      },
      timeOfArrival: 'ofArrival' in time,
    };
  }

  /** The upstream's latency in milliseconds; `null` if there is none, or if it is not a duration. */
  function upstreamMsOf(fields: JsonObject, logger: string): number | null {
    for (const key of upstreamKeysMs) {
      const value = fields[key];
      if (typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return value;
      if (typeof value === 'string' && /^\d{1,15}(?:\.\d{1,20})?$/.test(value)) return Number(value);
    }
    for (const key of upstreamKeys) {
      if (fields[key] === undefined) continue;
      const upstreamMs = durations.read(fields[key], logger, { learn: false });
      if (upstreamMs !== undefined) return upstreamMs;
    }
    return null;
  }

  /**
   * The time at which the request ended: under Caddy's own key, under another common key, in a console column, or at
   * the position where Caddy writes the time.
   */
  function timeOf({ fields, columns, text }: Entry, arrivalMs: number | undefined): Time | undefined {
    const read = (value: unknown): Time | undefined =>
      typeof value === 'number'
        ? readTimeNumber(value, text)
        : typeof value === 'string'
          ? readTimeText(value, wallClock, arrivalMs)
          : undefined;
    const { ts } = fields;
    const time = ts === undefined ? undefined : (read(ts) ?? read(firstWritten('ts', text)));
    if (time !== undefined) return time;
    const values = [...timesByName(fields), ...valuesAtTimePosition(fields)];
    for (const value of columns.some(isLevel) ? [...columns, ...values] : [...values, ...columns]) {
      const found = read(value);
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

const runtime: Decoded = { kind: 'runtime' };
const empty: JsonObject = {};

function rejected(reason: RejectionReason): Decoded {
  return { kind: 'rejected', reason };
}

/**
 * The logger of an access line, or `''` if the line does not name it; `undefined` for any other line. Only
 * `http.log.access` and `http.log.access.NAME` write access lines; their debug lines ("rejecting request with long
 * method") have no request. Without a name, the structure decides.
 */
function accessLoggerOf({ fields, columns, text }: Entry): string | undefined {
  const { logger, request, status, size } = fields;
  if (isAccessLogger(logger))
    return request === undefined && status === undefined && size === undefined ? undefined : logger;
  if (!isObject(request) || status === undefined || size === undefined) return undefined;
  if (fields['err_id'] !== undefined || fields['upstream'] !== undefined) return undefined;
  const renamed = [...columns, ...leadingValues(fields)].find(isAccessLogger);
  if (renamed !== undefined) return renamed;
  if (typeof logger !== 'string') return '';
  // `log_append logger …` overrides the name that Caddy wrote.
  const first = firstWritten('logger', text);
  return isAccessLogger(first) ? first : undefined;
}

function isAccessLogger(value: unknown): value is string {
  return typeof value === 'string' && value.startsWith('http.log.access') && (value.length === 15 || value[15] === '.');
}

/**
 * Maximum number of keys that an encoder writes before the fields of a line: level, time, logger, caller, function,
 * message, and one to spare.
 */
const leadingMax = 7;

/**
 * Numeric fields of an access line. If something has sorted the keys, they precede the request and must not be taken
 * for a time.
 */
const accessFields = new Set(['bytes_read', 'duration', 'size', 'status']);

/** The values that the encoder itself wrote. They precede the fields, and their keys are configurable. */
function leadingValues(fields: JsonObject): unknown[] {
  const values = [];
  for (const key in fields) {
    if (key === 'request' || values.length === leadingMax) break;
    if (!accessFields.has(key)) values.push(fields[key]);
  }
  return values;
}

const timeNames = /^[@_]?(?:ts|time|timestamp|date|date_?time|event_?time|log_?time)$/i;

/** Values under common names for a time, except `ts`. */
function timesByName(fields: JsonObject): unknown[] {
  const values = [];
  for (const key in fields) if (key !== 'ts' && timeNames.test(key)) values.push(fields[key]);
  return values;
}

/**
 * Number of positions at which zap may write the time: after the level, or first without a level. Smaller numbers than
 * `timeNumberMin` are counts or durations.
 */
const timePositions = 2;
const timeNumberMin = 1e9;

/**
 * Candidates for a time with an unknown key: strings, and numbers at the position of the time that are none of Caddy's
 * other numbers.
 */
function valuesAtTimePosition(fields: JsonObject): unknown[] {
  const numbers = new Set(
    Object.keys(fields)
      .slice(0, timePositions)
      .filter((key) => !accessFields.has(key))
      .map((key) => fields[key]),
  );
  return leadingValues(fields).filter(
    (value) => typeof value === 'string' || (typeof value === 'number' && value >= timeNumberMin && numbers.has(value)),
  );
}

/**
 * Whether the object comes from an unsupported encoder: ECS, GELF, or one that nests or renames the keys of a request.
 */
function hasUnknownEncoder({ fields }: Entry): boolean {
  if (fields['ecs.version'] !== undefined || isObject(fields['ecs']) || fields['log.level'] !== undefined) return true;
  if (fields['short_message'] !== undefined && fields['version'] !== undefined) return true;
  if (typeof fields['logger'] === 'string' || fields['err_id'] !== undefined || fields['upstream'] !== undefined)
    return false;
  return Object.values(fields)
    .slice(0, leadingMax * 2)
    .includes('handled request');
}

/** Whether text that is not JSON describes a request, such as logfmt. */
function isUnknownText(line: string): boolean {
  return /(?:^|\s)(?:logger|name|msg|message)="?(?:http\.log\.access|handled request)/.test(line);
}

/**
 * Caddy's own value of a key that `log_append` repeated, since JSON.parse keeps the last one. Quotes within strings are
 * escaped, so a match is a key. `duration`, `size` and `status` match only as the sequence that Caddy writes.
 */
function firstWritten(key: keyof typeof firstPatterns, line: string): string | number | undefined {
  const text = firstPatterns[key].exec(line)?.groups?.[key];
  if (text === undefined) return undefined;
  return text.startsWith('"') ? text.slice(1, -1) : Number(text);
}

const together =
  /"duration":(?<duration>"[^"\\]{1,40}"|[\d.]{1,30}),"size":(?<size>\d{1,16}),"status":(?<status>\d{1,3})[,}]/;
const firstPatterns = {
  ts: /"ts":(?<ts>"[^"\\]{1,40}"|[\d.]{1,30})[,}]/,
  logger: /"logger":(?<logger>"[^"\\]{1,300}")[,}]/,
  duration: together,
  size: together,
  status: together,
};

/** Whether a logger of Caddy wrote the line: it has at least two of level, time, logger and message, under any key. */
function isRuntimeLog({ fields, columns }: Entry): boolean {
  const values = [...columns, ...leadingValues(fields)];
  const signs = [
    values.some((value) => typeof value === 'string' && isLevel(value)),
    values.some((value) =>
      typeof value === 'number'
        ? value > 1e9
        : typeof value === 'string' && readTimeText(value, (wallMs) => wallMs, undefined) !== undefined,
    ),
    typeof fields['logger'] === 'string',
    typeof fields['msg'] === 'string',
    columns.length > 1,
  ];
  return signs.filter((sign) => sign).length >= 2;
}

/** Accepts 0 to 999, also as a string. */
function statusOf(value: unknown): number | undefined {
  const status = countOf(value);
  return status === undefined || status > 999 ? undefined : status;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Accepts an integer of at least 0, also as a string. */
function countOf(value: unknown): number | undefined {
  const count = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  return Number.isSafeInteger(count) && (count as number) >= 0 ? (count as number) : undefined;
}

/** The first value of a header: Caddy writes arrays of strings, but some of its filters a single string. */
function firstOf(header: unknown): string {
  return Array.isArray(header) ? textOf(header[0]) : textOf(header);
}

/** The address of `203.0.113.9:53462` or `[2001:db8::1]:53462`, as Caddy wrote them up to 2.4. */
function addressOf(remote: string): string {
  return remote.replace(/:\d{1,5}$/, '').replace(/^\[([^\]]*)\]$/, '$1');
}

/**
 * `log_append` keys for `{http.reverse_proxy.upstream.latency_ms}` and `{http.reverse_proxy.upstream.duration_ms}`. The
 * first one found is used.
 */
const upstreamKeysMs = ['upstream_ms', 'upstream_latency_ms', 'upstream_duration_ms'];
/**
 * `log_append` keys for `{http.reverse_proxy.upstream.latency}` and `.duration`, which are in the logger's
 * `duration_format`.
 */
const upstreamKeys = ['upstream_latency', 'upstream_duration'];
/** `log_append` keys for `{http.request.uuid}` or the id of another proxy. The first one found is used. */
const requestIdKeys = ['request_id', 'req_id', 'uuid'];

function appendedIdOf(fields: JsonObject): string {
  for (const key of requestIdKeys) {
    const value = fields[key];
    if (typeof value === 'string' && value !== '') return value;
  }
  return '';
}

/** TLS versions (RFC 8446, section 4.2.1) by the integers that Caddy writes. */
const tlsVersions: ReadonlyMap<unknown, string> = new Map([
  [769, 'TLS 1.0'],
  [770, 'TLS 1.1'],
  [771, 'TLS 1.2'],
  [772, 'TLS 1.3'],
]);

function tlsOf(version: unknown): string {
  return tlsVersions.get(version) ?? 'TLS';
}
