/**
 * The line that Caddy's `json` encoder writes unless it is told otherwise, read where it stands, byte by byte: several
 * times as fast as JSON.parse, which builds objects and texts for all that nobody looks at.
 *
 * Nothing is taken that JSON.parse refuses, and it is known where each value stands, so what is read is what JSON.parse
 * would have given. Anything else (other encoders, keys or formats, a value with an escape or beyond ASCII in front of
 * the headers, a long line) is left to the general way; a property over mutated lines holds both against each other.
 *
 * The headers are half of a line, and a client sends the same ones with each request, as a server does with each
 * answer: what was read of them, by patterns, is remembered. They end where `},"bytes_read":` or `},"user_id":` is
 * found first, since no text has a quote in it that nothing escapes. Each part of a pattern begins with what the one
 * before cannot contain: it never goes back further than one value.
 */
import { createMemo, detachString } from '../../shared/memo.js';
import { isEventStream } from '../../shared/status.js';
import type { JsonObject } from './split-encoding.js';
import { normaliseHost } from './host.js';
import { bytesOf, createSpanMemo, isAt, spanOf, type Bytes, type Span } from './span-memo.js';

/** What a line of the known shape says. */
export interface KnownLine {
  readonly timeMs: number;
  readonly timeNs: number;
  readonly logger: string;
  /** The client's; that of the peer where the line has no other: Caddy up to 2.6. */
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
  /** What `log_append` and tracing have put behind all that. */
  readonly appended: JsonObject | undefined;
}

/** What stands side by side in a line, and repeats together. */
interface Target {
  readonly protocol: string;
  readonly method: string;
  /** As `normaliseHost` gives it. */
  readonly host: string;
}

/** A line that is longer has a value that fills it, and is rare. */
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
/**
 * The texts between the time and the request's headers, in their order, with what stands in front of each: their places
 * in `from` and `to`.
 */
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
/** Behind the bytes that were read, and where Caddy does not write those: up to 2.4. */
const beforeUserId = [literal(',"user_id":"'), literal('},"user_id":"')] as const;
const beforeDuration = literal('","duration":');
const beforeSize = literal(',"size":');
const beforeStatus = literal(',"status":');
const beforeResponseHeaders = literal(',"resp_headers":');
/** Headers may have braces in them. */
const bracesMax = 64;

/** Seconds since 1970 that have ten digits and are between 2^30 and 2^31: years 2004 to 2036. */
const secondsMin = 1.1e9;
const secondsMax = 2.1e9;

/** The keys in front of what is appended: one of them again hides the first, in JSON.parse. */
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

/** What the headers of a request say, and what stands behind them. */
type RestOfRequest = Pick<KnownLine, 'userAgent' | 'referrer' | 'tlsVersion'>;
/** What the headers of a response say, and what stands behind them. */
type RestOfLine = Pick<KnownLine, 'responseId' | 'isEventStream' | 'appended'>;

/**
 * Makes a reader of such lines. They stand in a buffer from `from` to `to`, where a line feed stands or the buffer
 * ends; it gives `undefined` for all others. What it gives holds on to no part of the buffer, and until the next line
 * is read: it is the same object each time.
 */
export function createKnownShapeReader(): (buffer: Buffer, from: number, to: number) => KnownLine | undefined {
  const loggerIn = createSpanMemo((text) => text, { spansMax: 64 });
  const addressIn = createSpanMemo((text) => text);
  const targetIn = createSpanMemo(readTarget, { spansMax: 1024 });
  const restOfRequestIn = createSpanMemo(readRestOfRequest);
  const restOfLineIn = createSpanMemo(readRestOfLine);
  // Agents and referrers of different headers are often the same.
  const own = { userAgent: createMemo((text) => text), referrer: createMemo((text) => text) };
  const known: { -readonly [Key in keyof KnownLine]: KnownLine[Key] } = {
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
    if (to - from > lineBytesMax || buffer[to - 1] !== brace) return undefined; // so that a brace is found in it
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
    // What is appended is seldom the same twice.
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
      userAgent: own.userAgent(firstOf('User-Agent', requestHeaders!)),
      referrer: own.referrer(firstOf('Referer', requestHeaders!)),
      tlsVersion: tlsVersion === undefined ? undefined : Number(tlsVersion),
    };
  }
}

/** Where `text` ends that stands at `at`; -1 when it does not, or `at` is -1. */
function endOf(text: Span, bytes: Bytes, at: number): number {
  return isAt(text, bytes, at) ? at + text.length : -1;
}

/**
 * Where the ASCII ends, from `at` on, that has no quote, no escape and no control character: at the closing quote of a
 * text, or at what is not read here. -1 when `at` is.
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

/** Where an integer of at most 15 digits ends; -1 when there is none, or `at` is -1. */
function integerEnd(bytes: Buffer, at: number): number {
  if (at === -1) return -1;
  const end = digitsEnd(bytes, at);
  return end === at || end > at + 15 || (bytes[at] === zero && end > at + 1) ? -1 : end;
}

/** Where an integer ends, with at most 20 decimals; -1 when there is none, or `at` is -1. */
function decimalEnd(bytes: Buffer, at: number): number {
  const wholeEnd = integerEnd(bytes, at);
  if (wholeEnd === -1 || bytes[wholeEnd] !== point) return wholeEnd;
  const end = digitsEnd(bytes, wholeEnd + 1);
  return end === wholeEnd + 1 || end > wholeEnd + 21 ? -1 : end;
}

/** `undefined` also when what is appended has a key of Caddy's own. */
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
 * What `1795461349.0951176` has behind the point, in nanoseconds: seconds from 2^30 to 2^31 with up to seven decimals,
 * which stand from `from` to `to`. `undefined` where JSON.parse would print the number with other digits than the line
 * has.
 *
 * Doubles of that size are 2^-22 apart at most. Numbers of six decimals are further apart, so each is what its double
 * is printed as, but for zeros at its end. With seven the double is printed as the nearest of them, unless six will do.
 * The products below are exact: 10^7 × 2^22 < 2^53.
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

/** The number that digits, and a point among them, stand for: what `Number` gives. */
function decimalIn(bytes: Buffer, from: number, to: number): number {
  if (to - from > 16) return Number(bytes.toString('latin1', from, to));
  const wholeEnd = digitsEnd(bytes, from);
  if (wholeEnd === to) return integerIn(bytes, from, to);
  // Both are exact in a double, so their quotient is the double that is nearest (Clinger, "How to read floating point
  // numbers accurately", 1990).
  const decimals = to - wholeEnd - 1;
  return (
    (integerIn(bytes, from, wholeEnd) * powersOfTen[decimals]! + integerIn(bytes, wholeEnd + 1, to)) /
    powersOfTen[decimals]!
  );
}

/** That of at most 15 digits. */
function integerIn(bytes: Buffer, from: number, to: number): number {
  let integer = 0;
  for (let at = from; at < to; at += 1) integer = integer * 10 + bytes[at]! - zero;
  return integer;
}

const powersOfTen = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));

/**
 * The first value of a header, of the last of that name as in JSON.parse. Between a quote that nothing escapes and `:[`
 * only a name can end, and names have no escapes, so `"NAME":[` is found nowhere else. The quote in front is looked at
 * last, since there are many.
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
/** By its byte: whether a character stands for itself in a text of JSON, and is one of ASCII. */
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
