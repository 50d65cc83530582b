/**
 * The line that Caddy's `json` encoder writes unless it is told otherwise, read by patterns: several times as fast as JSON.parse, which builds
 * objects and texts for all that nobody looks at.
 *
 * The patterns take nothing that JSON.parse refuses, and know where each value stands, so what they read is what JSON.parse would have given.
 * Anything else (other encoders, keys or formats, a value with an escape, a long line) is left to the general way; a property over mutated
 * lines holds both against each other.
 *
 * Each part of a pattern begins with what the one before cannot contain: it never goes back further than one value.
 *
 * The headers are half of a line, and a client sends the same ones with each request, as a server does with each answer: what was read of
 * them is remembered. They end where `},"bytes_read":` is found first, since no text has a quote in it that nothing escapes.
 */
import { createMemo, createSpanMemo, ownText } from '../../shared/memo.js';
import type { JsonObject } from './envelope.js';
import { normaliseHost } from './host.js';

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

/** A line that is longer has a value that fills it, and is rare. In UTF-16 code units. */
const lineLengthMax = 16_384;

const plain = String.raw`[^"\\\x00-\x1f]*`;
const escaped = String.raw`${plain}(?:\\["\\/bfnrt]${plain})*`;
const headers = String.raw`\{(?:"${plain}":\[(?:"${escaped}"(?:,"${escaped}")*)?\](?:,(?!\})|(?=\})))*\}`;
const integer = '0|[1-9][0-9]{0,14}';
const decimal = String.raw`(?:${integer})(?:\.[0-9]{1,20})?`;
const scalar = String.raw`null|true|false|-?${decimal}|"${escaped}"`;
const tls = String.raw`,"tls":\{"resumed":(?:true|false),"version":([1-9][0-9]{0,4}),"cipher_suite":[1-9][0-9]{0,4},"proto":"${plain}","server_name":"${plain}"(?:,"ech":(?:true|false))?\}`;
const beforeHeaders = new RegExp([
  String.raw`\{"level":"(?:info|error)","ts":((?:1[1-9]|20)[0-9]{8}\.[0-9]{1,7}),"logger":"(http\.log\.access(?:\.${plain})?)","msg":"${plain}",`,
  String.raw`"request":\{"remote_ip":"(${plain})","remote_port":"${plain}",(?:"client_ip":"(${plain})",)?("proto":"${plain}","method":"${plain}","host":"${plain}"),"uri":"(${plain})","headers":`,
].join(''), 'y');
const restOfRequest = new RegExp(String.raw`^(${headers})(?:,"transfer_encoding":\["${plain}"\])?(?:${tls})?$`);
const figures = new RegExp(String.raw`\},(?:"bytes_read":(${integer}),)?"user_id":"${plain}","duration":(${decimal}),"size":(${integer}),"status":(0|[1-9][0-9]{0,2}),"resp_headers":`, 'y');
const restOfLine = new RegExp(String.raw`^(${headers})((?:,"[A-Za-z_]{1,60}":(?:${scalar})){0,20})\}$`);

/** The keys in front of what is appended: one of them again hides the first, in JSON.parse. */
const ownKeys = ['level', 'ts', 'logger', 'msg', 'request', 'bytes_read', 'user_id', 'duration', 'size', 'status', 'resp_headers'];

/** What the headers of a request say, and what stands behind them. */
type RestOfRequest = Pick<KnownLine, 'userAgent' | 'referrer' | 'tlsVersion'>;
/** What the headers of a response say, and what stands behind them. */
type RestOfLine = Pick<KnownLine, 'responseId' | 'appended'>;

/** Makes a reader of such lines; it gives `undefined` for all others. What it gives holds on to no part of the line, and until the next line is read: it is the same object each time. */
export function createKnownShapeReader(): (line: string) => KnownLine | undefined {
  // What is cut out of the line outlives it: see `createMemo`. One memo for each, since its last text is often the next one.
  const owned = (): (text: string) => string => createMemo((text) => text);
  const own = { logger: owned(), address: owned(), userAgent: owned(), referrer: owned() };
  const targetIn = createSpanMemo(readTarget, { spansMax: 1024 });
  const restOfRequestIn = createSpanMemo(readRestOfRequest);
  const restOfLineIn = createSpanMemo(readRestOfLine);
  const known: { -readonly [Key in keyof KnownLine]: KnownLine[Key] } = {
    timeMs: 0, timeNs: 0, logger: '', address: '', target: readTarget(''), uri: '', userAgent: '', referrer: '', tlsVersion: undefined,
    bytesRead: 0, duration: 0, size: 0, status: 0, responseId: '', appended: undefined,
  };

  return (line) => {
    if (line.length > lineLengthMax) return undefined;
    beforeHeaders.lastIndex = 0;
    const before = beforeHeaders.exec(line);
    if (before === null) return undefined;
    const headersAt = beforeHeaders.lastIndex;
    let headersEnd = line.indexOf('},"bytes_read":', headersAt);
    if (headersEnd === -1) headersEnd = line.indexOf('},"user_id":', headersAt);
    if (headersEnd === -1) return undefined;
    const request = restOfRequestIn(line, headersAt, headersEnd);
    if (request === undefined) return undefined;
    figures.lastIndex = headersEnd;
    const numbers = figures.exec(line);
    if (numbers === null) return undefined;
    const rest = line.charCodeAt(line.length - 2) === brace ? restOfLineIn(line, figures.lastIndex, line.length) : readRestOfLine(line.slice(figures.lastIndex));
    if (rest === undefined) return undefined;
    // By their numbers: to take an array apart costs an iterator for each line.
    const ts = before[1]!;
    const target = before[5]!;
    const bytesRead = numbers[1];
    const nanoseconds = nanosecondsIn(ts);
    if (nanoseconds === undefined) return undefined;
    known.timeNs = nanoseconds % 1_000_000;
    known.timeMs = integerIn(ts, 0, 10) * 1000 + (nanoseconds - known.timeNs) / 1_000_000;
    known.logger = own.logger(before[2]!);
    known.address = own.address(before[4] || before[3]!);
    known.target = targetIn(target, 0, target.length);
    known.uri = ownText(before[6]!);
    known.userAgent = request.userAgent;
    known.referrer = request.referrer;
    known.tlsVersion = request.tlsVersion;
    known.bytesRead = bytesRead === undefined ? 0 : integerOf(bytesRead);
    known.duration = decimalOf(numbers[2]!);
    known.size = integerOf(numbers[3]!);
    known.status = integerOf(numbers[4]!);
    known.responseId = rest.responseId;
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

/** `undefined` also when what is appended has a key of Caddy's own. */
function readRestOfLine(text: string): RestOfLine | undefined {
  const found = restOfLine.exec(text);
  if (found === null) return undefined;
  const [, responseHeaders, appendedText] = found as unknown as string[];
  const appended = appendedText === '' ? undefined : JSON.parse(`{${appendedText!.slice(1)}}`) as JsonObject;
  if (appended !== undefined && ownKeys.some((key) => Object.hasOwn(appended, key))) return undefined;
  return { responseId: ownText(firstOf('X-Request-Id', responseHeaders!)), appended };
}

function readTarget(text: string): Target {
  const [protocol = '', method = '', host = ''] = text.split('","').map((pair) => pair.slice(pair.indexOf('":"') + 3).replace(/"$/, ''));
  return { protocol: ownText(protocol), method: ownText(method), host: ownText(normaliseHost(host)) };
}

/**
 * What `1795461349.0951176` has behind the point, in nanoseconds: seconds from 2^30 to 2^31 with up to seven decimals. `undefined` where JSON.parse
 * would print the number with other digits than the line has.
 *
 * Doubles of that size are 2^-22 apart at most. Numbers of six decimals are further apart, so each is what its double is printed as, but for zeros
 * at its end. With seven the double is printed as the nearest of them, unless six will do. The products below are exact: 10^7 × 2^22 < 2^53.
 */
function nanosecondsIn(ts: string): number | undefined {
  if (ts.charCodeAt(ts.length - 1) === zero) return undefined;
  const decimals = ts.length - 11;
  const fraction = integerIn(ts, 11, ts.length);
  if (decimals === 7) {
    const double = Math.round(fraction * 2 ** 22 / 1e7) / 2 ** 22;
    const distance = Math.abs(double * 1e6 - Math.round(double * 1e6));
    if (Math.round(double * 1e7) !== fraction || distance * 2 ** 23 <= 1.000001e6) return undefined;
  }
  return fraction * powersOfTen[9 - decimals]!;
}

/** The number that a text of digits, and a point among them, stands for: what `Number` gives, in a third of the time. */
function decimalOf(text: string): number {
  const point = text.indexOf('.');
  if (text.length > 16) return Number(text);
  if (point === -1) return integerOf(text);
  // Both are exact in a double, so their quotient is the double that is nearest (Clinger, "How to read floating point numbers accurately", 1990).
  const decimals = text.length - point - 1;
  return (integerIn(text, 0, point) * powersOfTen[decimals]! + integerIn(text, point + 1, text.length)) / powersOfTen[decimals]!;
}

/** That of at most 15 digits. */
function integerOf(digits: string): number {
  return integerIn(digits, 0, digits.length);
}

function integerIn(text: string, from: number, to: number): number {
  let integer = 0;
  for (let at = from; at < to; at += 1) integer = integer * 10 + text.charCodeAt(at) - zero;
  return integer;
}

const powersOfTen = Array.from({ length: 23 }, (_, exponent) => Number(`1e${exponent}`));

/**
 * The first value of a header, of the last of that name as in JSON.parse. Between a quote that nothing escapes and `:[` only a name can end, and
 * names have no escapes, so `"NAME":[` is found nowhere else. The quote in front is looked at last, since there are many.
 */
function firstOf(name: HeaderName, headersText: string): string {
  const end = headerEnds[name];
  let from = -1;
  for (let at = headersText.indexOf(end); at !== -1; at = headersText.indexOf(end, at + 1)) if (headersText.charCodeAt(at - 1) === quote) from = at + end.length + 1;
  if (from === -1 || headersText.charCodeAt(from - 1) !== quote) return '';
  const text = headersText.slice(from, headersText.indexOf('"', from));
  return text.includes('\\') ? JSON.parse(escapedText.exec(headersText.slice(from - 1))![0]) as string : text;
}

const quote = 0x22;
const zero = 0x30;
const brace = 0x7d;
const headerEnds = { 'User-Agent': 'User-Agent":[', 'Referer': 'Referer":[', 'X-Request-Id': 'X-Request-Id":[' } as const;
type HeaderName = keyof typeof headerEnds;
const escapedText = new RegExp(`^"${escaped}"`);
