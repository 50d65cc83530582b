import { createMemo } from '../../shared/memo.js';
import { caddySource, type RequestEvent } from '../../shared/request-event.js';
import { hasLatency, isEventStream } from '../../shared/status.js';
import type { DurationFormat } from '../config.js';
import type { RequestIdentity } from '../correlate.js';
import type { RejectionReason } from '../ledger.js';
import { accessLoggerOf, hasUnknownEncoder, isRuntimeLog, isUnknownText } from './classify.js';
import { createDurationReader, type DurationReader, type LearnedDuration } from './duration.js';
import {
  countOf,
  firstOf,
  firstWritten,
  mediaType,
  statusOf,
  textOf,
  timesByName,
  valuesAtTimePosition,
} from './entry-fields.js';
import type { JsonObject } from './json-object.js';
import { decodeEvent, identityOf, type DecodedEvent } from './event.js';
import { isLevel, isObject, readEntry, type Entry } from './split-encoding.js';
import { normaliseHost } from './host.js';
import { createFastPathReader, type FastPathLine } from './fast-path.js';
import { readTimeNumber, readTimeText, type Time, type WallClock } from './time.js';
import { createWallClock } from './wall-clock.js';

/** A decoded line. */
export type Decoded =
  /** `timeOfArrival`: whether the event has its arrival time, since the line's own time could not be read. */
  | {
      readonly kind: 'request';
      readonly event: RequestEvent;
      readonly timeOfArrival: boolean;
      /** What the request's error line has in common with this line. Only from `decode`. */
      readonly identity?: RequestIdentity;
    }
  /** A line of any other logger, including error lines that accompany an access line. */
  | ({ readonly kind: 'runtime' } & DecodedEvent)
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
export function createDecoder(options: DecoderOptions): Decoder {
  return new LineDecoder(options);
}

class LineDecoder implements Decoder {
  readonly #wallClock: WallClock;
  readonly #durations: DurationReader;
  readonly #readFastPath = createFastPathReader();
  readonly #hostOf = createMemo(normaliseHost);

  constructor({ timeZone, durationFormat, onTimeWithoutZone }: DecoderOptions) {
    const clockOfZone = createWallClock(timeZone);
    this.#wallClock = (wallMs, nearMs) => {
      onTimeWithoutZone?.();
      return clockOfZone(wallMs, nearMs);
    };
    this.#durations = createDurationReader(durationFormat);
  }

  decodeLine(bytes: Buffer, from: number, to: number, arrivalMs: number | undefined): Decoded {
    const known = this.#readFastPath(bytes, from, to);
    return known === undefined
      ? this.decode(bytes.toString('utf8', from, to), arrivalMs)
      : { kind: 'request', event: this.#eventOf(known), timeOfArrival: false };
  }

  decode(line: string, arrivalMs: number | undefined): Decoded {
    const entry = readEntry(line);
    if (typeof entry === 'string') return rejected(isUnknownText(line) ? 'unknown-encoder' : entry);
    const logger = accessLoggerOf(entry);
    if (logger !== undefined) return this.#decodeAccessLog(entry, logger, arrivalMs);
    if (hasUnknownEncoder(entry)) return rejected('unknown-encoder');
    return isRuntimeLog(entry) ? this.#decodeEvent(entry, arrivalMs) : rejected('not-caddy');
  }

  #eventOf(known: FastPathLine): RequestEvent {
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
        : (this.#durations.read(known.duration, logger, { learn: hasLatency({ status, method: target.method }) }) ??
          null),
      size: known.size,
      bytesRead: known.bytesRead,
      uri: known.uri,
      endpoint: '',
      clientIp: known.address,
      userAgent: known.userAgent,
      referrer: known.referrer,
      protocol: target.protocol,
      tls: known.tlsVersion === undefined ? '' : tlsOf(known.tlsVersion),
      upstreamMs: appended === undefined ? null : this.#upstreamMsOf(appended, logger),
      requestId: appended === undefined ? known.responseId : appendedIdOf(appended) || known.responseId,
      ...(appended === undefined ? notProxied : proxiedIn(appended)),
      ...noError,
      contentType: known.contentType,
    };
  }

  #decodeAccessLog(entry: Entry, logger: string, arrivalMs: number | undefined): Decoded {
    const { fields, text: line } = entry;
    const time =
      this.#timeOf(entry, arrivalMs) ??
      (arrivalMs === undefined ? undefined : { timeMs: arrivalMs, timeNs: 0, ofArrival: true });
    if (time === undefined) return rejected('bad-time');
    const status = statusOf(fields['status']) ?? statusOf(firstWritten('status', line));
    if (status === undefined) return rejected('bad-status');
    const request = isObject(fields['request']) ? fields['request'] : empty;
    const method = textOf(request['method']);
    const responseHeaders = isObject(fields['resp_headers']) ? fields['resp_headers'] : empty;
    const contentType = firstOf(responseHeaders['Content-Type']);
    const isStream = isEventStream(contentType);
    // A request without latency is no evidence for the unit of durations.
    const options = { learn: hasLatency({ status, method }) };
    const durationMs = isStream
      ? null
      : (this.#durations.read(fields['duration'], logger, options) ??
        this.#durations.read(firstWritten('duration', line), logger, options));
    const headers = isObject(request['headers']) ? request['headers'] : empty;
    return {
      kind: 'request',
      event: {
        source: caddySource,
        timeMs: time.timeMs,
        timeNs: time.timeNs,
        host: this.#hostOf(textOf(request['host'])),
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
        upstreamMs: this.#upstreamMsOf(fields, logger),
        requestId: appendedIdOf(fields) || firstOf(responseHeaders['X-Request-Id']),
        ...proxiedIn(fields),
        ...noError,
        contentType: mediaType(contentType),
      },
      identity: identityOf(request, fields, fields['duration']),
      timeOfArrival: 'ofArrival' in time,
    };
  }

  #decodeEvent(entry: Entry, arrivalMs: number | undefined): Decoded {
    const time =
      this.#timeOf(entry, arrivalMs) ?? (arrivalMs === undefined ? undefined : { timeMs: arrivalMs, timeNs: 0 });
    // Without a time, the line can still be counted.
    return {
      kind: 'runtime',
      ...(time === undefined ? { event: undefined, report: undefined } : decodeEvent(entry, time)),
    };
  }

  /** The upstream's latency in milliseconds; `null` if there is none, or if it is not a duration. */
  #upstreamMsOf(fields: JsonObject, logger: string): number | null {
    for (const key of upstreamKeysMs) {
      const value = fields[key];
      if (typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER) return value;
      if (typeof value === 'string' && /^\d{1,15}(?:\.\d{1,20})?$/.test(value)) return Number(value);
    }
    for (const key of upstreamKeys) {
      if (fields[key] === undefined) continue;
      const upstreamMs = this.#durations.read(fields[key], logger, { learn: false });
      if (upstreamMs !== undefined) return upstreamMs;
    }
    return null;
  }

  /**
   * The time at which the request ended: under Caddy's own key, under another common key, in a console column, or at
   * the position where Caddy writes the time.
   */
  #timeOf({ fields, columns, text }: Entry, arrivalMs: number | undefined): Time | undefined {
    const read = (value: unknown): Time | undefined =>
      typeof value === 'number'
        ? readTimeNumber(value, text)
        : typeof value === 'string'
          ? readTimeText(value, this.#wallClock, arrivalMs)
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

  durationFormats(): Readonly<Record<string, LearnedDuration>> {
    return this.#durations.formats();
  }
}

const empty: JsonObject = {};

function rejected(reason: RejectionReason): Decoded {
  return { kind: 'rejected', reason };
}

const noError = { error: '', errorId: '' } as const;
const notProxied = { upstream: '', retries: null } as const;

/** `log_append` keys for `{http.reverse_proxy.upstream.hostport}`. The first one found is used. */
const upstreamHostKeys = ['upstream_host', 'upstream_hostport', 'upstream'];

/** The upstream and the number of retries, from `log_append`. Both are null where nothing was proxied. */
function proxiedIn(fields: JsonObject): Pick<RequestEvent, 'upstream' | 'retries'> {
  let upstream = '';
  for (const key of upstreamHostKeys) upstream ||= textOf(fields[key]);
  return { upstream, retries: countOf(fields['retries']) ?? null };
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
