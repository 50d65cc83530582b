/**
 * Fast path: parses lines of Caddy's `json` encoder with its default options directly from bytes. Several times as fast
 * as JSON.parse, which creates objects and strings for every value.
 *
 * Accepts nothing that JSON.parse refuses, and returns the same values. Anything else (other encoders, keys or formats,
 * an escape or non-ASCII value before the headers, a long line) is left to the general decoder. A property test over
 * mutated lines compares both.
 *
 * Headers make up half of a line and repeat between requests, so the results of their patterns are cached. They end at
 * the first `},"bytes_read":` or `},"user_id":`, since quotes within strings are escaped. Each part of a pattern starts
 * with a character that the previous part cannot contain, which limits backtracking to one value.
 */
import { createMemo, detachString } from '../../shared/memo.js';
import { isEventStream } from '../../shared/status.js';
import type { JsonObject } from './json-object.js';
import { normaliseHost } from './host.js';
import { bytesOf, createSpanMemo, isAt, spanOf, type Bytes, type Span } from './span-memo.js';

/** The values of a line in the default format. */
export interface FastPathLine {
  readonly timeMs: number;
  readonly timeNs: number;
  readonly logger: string;
  /** The client's address, or the peer's if there is none (Caddy up to 2.6). */
  readonly address: string;
  readonly target: Target;
  readonly uri: string;
  readonly userAgent: string;
  readonly referrer: string;
  /** `undefined` for plain HTTP. */
  readonly tlsVersion: number | undefined;
  readonly bytesRead: number;
  readonly duration: number;
  readonly size: number;
  readonly status: number;
  /** `X-Request-Id` of the response. */
  readonly responseId: string;
  readonly isEventStream: boolean;
  /** Fields appended by `log_append` and tracing. */
  readonly appended: JsonObject | undefined;
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

const plain = String.raw`[^"\\\x00-\x1f]*`;
const escaped = String.raw`${plain}(?:\\["\\/bfnrt]${plain})*`;
const headers = String.raw`\{(?:"${plain}":\[(?:"${escaped}"(?:,"${escaped}")*)?\](?:,(?!\})|(?=\})))*\}`;
const scalar = String.raw`null|true|false|-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,20})?|"${escaped}"`;
const tls = String.raw`,"tls":\{"resumed":(?:true|false),"version":([1-9][0-9]{0,4}),"cipher_suite":[1-9][0-9]{0,4},"proto":"${plain}","server_name":"${plain}"(?:,"ech":(?:true|false))?\}`;
const restOfRequest = new RegExp(String.raw`^(${headers})(?:,"transfer_encoding":\["${plain}"\])?(?:${tls})?$`);
const restOfLine = new RegExp(String.raw`^(${headers})((?:,"[A-Za-z_]{1,60}":(?:${scalar})){0,20})\}$`);

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

/** Caddy's own keys. If one is appended again, it overrides the first in JSON.parse. */
const ownKeys = [
  'level',
  'ts',
  'logger',
  'msg',
  'request',
  'bytes_read',
  'user_id',
  'duration',
  'size',
  'status',
  'resp_headers',
];

/** Values of the request's headers and of the TLS object after them. */
type RestOfRequest = Pick<FastPathLine, 'userAgent' | 'referrer' | 'tlsVersion'>;
/** Values of the response's headers and of the fields after them. */
type RestOfLine = Pick<FastPathLine, 'responseId' | 'isEventStream' | 'appended'>;

/**
 * Creates a reader for lines in the default format, in a buffer from `from` to `to`, where a line ending follows or
 * the buffer ends. Returns `undefined` for all other lines. The returned object is reused for the next line; it does not
 * reference the buffer.
 */
export function createFastPathReader(): (buffer: Buffer, from: number, to: number) => FastPathLine | undefined {
  const loggerIn = createSpanMemo((text) => text, { spansMax: 64 });
  const addressIn = createSpanMemo((text) => text);
  const targetIn = createSpanMemo(readTarget, { spansMax: 1024 });
  const restOfRequestIn = createSpanMemo(readRestOfRequest);
  const restOfLineIn = createSpanMemo(readRestOfLine);
  // Different headers often contain the same agents and referrers.
  const interned = { userAgent: createMemo((text) => text), referrer: createMemo((text) => text) };
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
    known.appended = rest.appended;
    return known;
  };

  function readRestOfRequest(text: string): RestOfRequest | undefined {
    const found = restOfRequest.exec(text);
    if (found === null) return undefined;
    const [, requestHeaders, tlsVersion] = found as unknown as string[];
    return {
      userAgent: interned.userAgent(firstOf('User-Agent', requestHeaders!)),
      referrer: interned.referrer(firstOf('Referer', requestHeaders!)),
      tlsVersion: tlsVersion === undefined ? undefined : Number(tlsVersion),
    };
  }
}

/** Returns the end of `text` if it is at `at`; otherwise, and if `at` is -1, returns -1. */
function endOf(text: Span, bytes: Bytes, at: number): number {
  return isAt(text, bytes, at) ? at + text.length : -1;
}

/**
 * Returns the end of the plain ASCII from `at` on, without quotes, escapes and control characters: usually the closing
 * quote. Returns -1 if `at` is -1.
 */
function plainEnd(bytes: Buffer, at: number): number {
  if (at === -1) return -1;
  let end = at;
  while (isPlain[bytes[end]!] === 1) end += 1;
  return end;
}

function digitsEnd(bytes: Buffer, at: number): number {
  let end = at;
  while (bytes[end]! >= zero && bytes[end]! <= nine) end += 1;
  return end;
}

/** Returns the end of an integer of at most 15 digits; -1 if there is none, or if `at` is -1. */
function integerEnd(bytes: Buffer, at: number): number {
  if (at === -1) return -1;
  const end = digitsEnd(bytes, at);
  return end === at || end > at + 15 || (bytes[at] === zero && end > at + 1) ? -1 : end;
}

/** Returns the end of a number with at most 20 decimals; -1 if there is none, or if `at` is -1. */
function decimalEnd(bytes: Buffer, at: number): number {
  const wholeEnd = integerEnd(bytes, at);
  if (wholeEnd === -1 || bytes[wholeEnd] !== point) return wholeEnd;
  const end = digitsEnd(bytes, wholeEnd + 1);
  return end === wholeEnd + 1 || end > wholeEnd + 21 ? -1 : end;
}

/** Returns `undefined` also if a key of Caddy's own is appended again. */
function readRestOfLine(text: string): RestOfLine | undefined {
  const found = restOfLine.exec(text);
  if (found === null) return undefined;
  const [, responseHeaders, appendedText] = found as unknown as string[];
  const appended = appendedText === '' ? undefined : (JSON.parse(`{${appendedText!.slice(1)}}`) as JsonObject);
  if (appended !== undefined && ownKeys.some((key) => Object.hasOwn(appended, key))) return undefined;
  return {
    responseId: detachString(firstOf('X-Request-Id', responseHeaders!)),
    isEventStream: isEventStream(firstOf('Content-Type', responseHeaders!)),
    appended,
  };
}

function readTarget(text: string): Target {
  const [protocol = '', method = '', host = ''] = text
    .split('","')
    .map((pair) => pair.slice(pair.indexOf('":"') + 3).replace(/"$/, ''));
  return { protocol: detachString(protocol), method: detachString(method), host: detachString(normaliseHost(host)) };
}

/**
 * Returns the fraction of a time such as `1795461349.0951176` in nanoseconds. The time is between 2^30 and 2^31
 * seconds; its decimals, seven at most, are from `from` to `to`. Returns `undefined` if the double would print
 * differently.
 *
 * Such doubles are at most 2^-22 apart, so each number with six decimals prints as itself, without trailing zeros.
 * With seven, it prints as the nearest one, unless six suffice. The products below are exact: 10^7 × 2^22 < 2^53.
 */
function nanosecondsIn(bytes: Buffer, from: number, to: number): number | undefined {
  const decimals = to - from;
  if (decimals === 0 || decimals > 7 || bytes[to - 1] === zero) return undefined;
  const fraction = integerIn(bytes, from, to);
  if (decimals === 7) {
    const double = Math.round((fraction * 2 ** 22) / 1e7) / 2 ** 22;
    const distance = Math.abs(double * 1e6 - Math.round(double * 1e6));
    if (Math.round(double * 1e7) !== fraction || distance * 2 ** 23 <= 1.000001e6) return undefined;
  }
  return fraction * powersOfTen[9 - decimals]!;
}

/** Parses a decimal number. Returns the same as `Number`. */
function decimalIn(bytes: Buffer, from: number, to: number): number {
  if (to - from > 16) return Number(bytes.toString('latin1', from, to));
  const wholeEnd = digitsEnd(bytes, from);
  if (wholeEnd === to) return integerIn(bytes, from, to);
  // Both operands are exact, so their quotient is the nearest double (Clinger, "How to read floating point numbers
  // accurately", 1990).
  const decimals = to - wholeEnd - 1;
  return (
    (integerIn(bytes, from, wholeEnd) * powersOfTen[decimals]! + integerIn(bytes, wholeEnd + 1, to)) /
    powersOfTen[decimals]!
  );
}

/** Parses an integer of at most 15 digits. */
function integerIn(bytes: Buffer, from: number, to: number): number {
  let integer = 0;
  for (let at = from; at < to; at += 1) integer = integer * 10 + bytes[at]! - zero;
  return integer;
}

const powersOfTen = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));

/**
 * Returns the first value of a header; of the last header with that name, as in JSON.parse. Only a name can end between
 * an unescaped quote and `:[`, so `"NAME":[` cannot occur within a value. The opening quote is checked last, since
 * quotes are frequent.
 */
function firstOf(name: HeaderName, headersText: string): string {
  const end = headerEnds[name];
  let from = -1;
  for (let at = headersText.indexOf(end); at !== -1; at = headersText.indexOf(end, at + 1))
    if (headersText.charCodeAt(at - 1) === quote) from = at + end.length + 1;
  if (from === -1 || headersText.charCodeAt(from - 1) !== quote) return '';
  const text = headersText.slice(from, headersText.indexOf('"', from));
  return text.includes('\\') ? (JSON.parse(escapedText.exec(headersText.slice(from - 1))![0]) as string) : text;
}

const quote = 0x22;
const point = 0x2e;
const zero = 0x30;
const nine = 0x39;
const backslash = 0x5c;
const brace = 0x7d;
/** By byte: 1 if it is an ASCII character that a JSON string can contain unescaped. */
const isPlain = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number(byte >= 0x20 && byte < 0x80 && byte !== quote && byte !== backslash),
);
const headerEnds = {
  'User-Agent': 'User-Agent":[',
  Referer: 'Referer":[',
  'X-Request-Id': 'X-Request-Id":[',
  'Content-Type': 'Content-Type":[',
} as const;
type HeaderName = keyof typeof headerEnds;
const escapedText = new RegExp(`^"${escaped}"`);
