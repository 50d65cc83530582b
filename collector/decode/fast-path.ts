/**
 * Fast path: parses lines of Caddy's `json` encoder with its default options directly from bytes. Several times as fast
 * as JSON.parse, which creates objects and strings for every value.
 *
 * Accepts nothing that JSON.parse refuses, and returns the same values. Anything else (other encoders, keys or formats,
 * an escape or non-ASCII value before the headers, a long line) is left to the general decoder. A property test over
 * mutated lines compares both.
 *
 * Headers make up half of a line and repeat between requests, so what `header-parts.ts` reads from them is cached. They
 * end at the first `},"bytes_read":` or `},"user_id":`, since quotes within strings are escaped.
 */
import { detachString } from '../../shared/memo.js';
import { createRestOfRequestReader, readRestOfLine, type RestOfLine, type RestOfRequest } from './header-parts.js';
import { normaliseHost } from './host.js';
import {
  brace,
  decimalEnd,
  decimalIn,
  digitsEnd,
  integerEnd,
  integerIn,
  nanosecondsIn,
  plainEnd,
  point,
  quote,
} from './scan-bytes.js';
import { bytesOf, createSpanMemo, isAt, spanOf, type Bytes, type Span } from './span-memo.js';

/** The values of a line in the default format. */
export interface FastPathLine extends RestOfRequest, RestOfLine {
  readonly timeMs: number;
  readonly timeNs: number;
  readonly logger: string;
  /** The client's address, or the peer's if there is none (Caddy up to 2.6). */
  readonly address: string;
  readonly target: Target;
  readonly uri: string;
  readonly bytesRead: number;
  readonly duration: number;
  readonly size: number;
  readonly status: number;
}

/** Adjacent values that repeat together, and are cached together. */
interface Target {
  readonly protocol: string;
  readonly method: string;
  /** Normalised by `normaliseHost`. */
  readonly host: string;
}

/** Maximum length of a line for the fast path. Longer lines are rare. */
const lineBytesMax = 16_384;

const literal = (text: string): Span => spanOf(bytesOf(Buffer.from(text)), 0, text.length);
const levels = [literal('{"level":"info","ts":'), literal('{"level":"error","ts":')] as const;
/** Indexes of the strings between the time and the request's headers, in order of appearance. */
const texts = {
  logger: 0,
  message: 1,
  remoteIp: 2,
  remotePort: 3,
  clientIp: 4,
  protocol: 5,
  method: 6,
  host: 7,
  uri: 8,
} as const;
const beforeTexts = [
  ',"logger":"http.log.access',
  '","msg":"',
  '","request":{"remote_ip":"',
  '","remote_port":"',
  '","client_ip":"',
  '","proto":"',
  '","method":"',
  '","host":"',
  '","uri":"',
].map(literal);
const beforeHeaders = literal('","headers":');
const beforeBytesRead = literal('},"bytes_read":');
/** After `bytes_read`, and without it (Caddy up to 2.4). */
const beforeUserId = [literal(',"user_id":"'), literal('},"user_id":"')] as const;
const beforeDuration = literal('","duration":');
const beforeSize = literal(',"size":');
const beforeStatus = literal(',"status":');
const beforeResponseHeaders = literal(',"resp_headers":');
/** Maximum number of closing braces within the headers. */
const bracesMax = 64;

/** Range of seconds since 1970 with ten digits, between 2^30 and 2^31: years 2004 to 2036. */
const secondsMin = 1.1e9;
const secondsMax = 2.1e9;

/**
 * Creates a reader for lines in the default format, in a buffer from `from` to `to`, where a line ending follows or
 * the buffer ends. Returns `undefined` for all other lines. The returned object is reused for the next line; it does not
 * reference the buffer.
 */
export function createFastPathReader(): (buffer: Buffer, from: number, to: number) => FastPathLine | undefined {
  const loggerIn = createSpanMemo((text) => text, { spansMax: 64 });
  const addressIn = createSpanMemo((text) => text);
  const targetIn = createSpanMemo(readTarget, { spansMax: 1024 });
  const restOfRequestIn = createSpanMemo(createRestOfRequestReader());
  const restOfLineIn = createSpanMemo(readRestOfLine);
  const known: { -readonly [Key in keyof FastPathLine]: FastPathLine[Key] } = {
    timeMs: 0,
    timeNs: 0,
    logger: '',
    address: '',
    target: readTarget(''),
    uri: '',
    userAgent: '',
    referrer: '',
    tlsVersion: undefined,
    bytesRead: 0,
    duration: 0,
    size: 0,
    status: 0,
    responseId: '',
    isEventStream: false,
    contentType: '',
    appended: undefined,
  };

  const starts = new Uint32Array(beforeTexts.length);
  const ends = new Uint32Array(beforeTexts.length);
  let bytes = bytesOf(Buffer.alloc(0));

  return (buffer, from, to) => {
    // With a brace at its end, the search for braces below ends within the line.
    if (to - from > lineBytesMax || buffer[to - 1] !== brace) return undefined;
    if (buffer !== bytes.buffer) bytes = bytesOf(buffer);
    let ts = endOf(levels[0], bytes, from);
    if (ts === -1 && (ts = endOf(levels[1], bytes, from)) === -1) return undefined;
    const secondsEnd = digitsEnd(buffer, ts);
    const tsEnd = digitsEnd(buffer, secondsEnd + 1);
    const seconds = integerIn(buffer, ts, secondsEnd);
    if (secondsEnd !== ts + 10 || buffer[secondsEnd] !== point || !(seconds >= secondsMin && seconds < secondsMax))
      return undefined;
    const nanoseconds = nanosecondsIn(buffer, secondsEnd + 1, tsEnd);
    if (nanoseconds === undefined) return undefined;

    let end = tsEnd;
    for (let index = 0; index < beforeTexts.length; index += 1) {
      const start = endOf(beforeTexts[index]!, bytes, end);
      if (start !== -1) end = plainEnd(buffer, start);
      else if (index !== texts.clientIp) return undefined;
      starts[index] = start === -1 ? end : start;
      ends[index] = end;
    }
    const loggerName = starts[texts.logger]!;
    if (buffer[loggerName] !== quote && buffer[loggerName] !== point) return undefined;
    const address = ends[texts.clientIp]! > starts[texts.clientIp]! ? texts.clientIp : texts.remoteIp;

    const headersAt = endOf(beforeHeaders, bytes, end);
    if (headersAt === -1) return undefined;
    let headersEnd = headersAt;
    let bytesRead = -1;
    let userId = -1;
    for (let braces = 0; bytesRead === -1 && userId === -1; braces += 1) {
      headersEnd = buffer.indexOf(brace, headersEnd + 1);
      if (headersEnd === -1 || headersEnd >= to || braces === bracesMax) return undefined;
      bytesRead = endOf(beforeBytesRead, bytes, headersEnd);
      if (bytesRead === -1) userId = endOf(beforeUserId[1], bytes, headersEnd);
    }
    const bytesReadEnd = bytesRead === -1 ? -1 : integerEnd(buffer, bytesRead);
    if (bytesRead !== -1) userId = endOf(beforeUserId[0], bytes, bytesReadEnd);
    const duration = endOf(beforeDuration, bytes, plainEnd(buffer, userId));
    const durationEnd = decimalEnd(buffer, duration);
    const size = endOf(beforeSize, bytes, durationEnd);
    const sizeEnd = integerEnd(buffer, size);
    const status = endOf(beforeStatus, bytes, sizeEnd);
    const statusEnd = integerEnd(buffer, status);
    const responseHeaders = endOf(beforeResponseHeaders, bytes, statusEnd);
    if (responseHeaders === -1 || statusEnd > status + 3) return undefined;

    const request = restOfRequestIn(bytes, headersAt, headersEnd);
    // Appended fields rarely repeat.
    const rest =
      buffer[to - 2] === brace
        ? restOfLineIn(bytes, responseHeaders, to)
        : readRestOfLine(buffer.toString('utf8', responseHeaders, to));
    if (request === undefined || rest === undefined) return undefined;
    known.timeNs = nanoseconds % 1_000_000;
    known.timeMs = seconds * 1000 + (nanoseconds - known.timeNs) / 1_000_000;
    known.logger = loggerIn(bytes, loggerName - 'http.log.access'.length, ends[texts.logger]!);
    known.address = addressIn(bytes, starts[address]!, ends[address]!);
    known.target = targetIn(bytes, starts[texts.protocol]! - '"proto":"'.length, ends[texts.host]!);
    known.uri = buffer.toString('latin1', starts[texts.uri], ends[texts.uri]);
    known.userAgent = request.userAgent;
    known.referrer = request.referrer;
    known.tlsVersion = request.tlsVersion;
    known.bytesRead = bytesRead === -1 ? 0 : integerIn(buffer, bytesRead, bytesReadEnd);
    known.duration = decimalIn(buffer, duration, durationEnd);
    known.size = integerIn(buffer, size, sizeEnd);
    known.status = integerIn(buffer, status, statusEnd);
    known.responseId = rest.responseId;
    known.isEventStream = rest.isEventStream;
    known.contentType = rest.contentType;
    known.appended = rest.appended;
    return known;
  };
}

/** Returns the end of `text` if it is at `at`; otherwise, and if `at` is -1, returns -1. */
function endOf(text: Span, bytes: Bytes, at: number): number {
  return isAt(text, bytes, at) ? at + text.length : -1;
}

function readTarget(text: string): Target {
  const [protocol = '', method = '', host = ''] = text
    .split('","')
    .map((pair) => pair.slice(pair.indexOf('":"') + 3).replace(/"$/, ''));
  return { protocol: detachString(protocol), method: detachString(method), host: detachString(normaliseHost(host)) };
}
