/**
 * Reads the two parts of a line that contain headers, for the fast path: with patterns, since their keys and their order
 * vary. Each part of a pattern starts with a character that the previous part cannot contain, which limits backtracking
 * to one value.
 */
import { createMemo, detachString } from '../../shared/memo.js';
import { isEventStream } from '../../shared/status.js';
import { mediaType } from './entry-fields.js';
import type { JsonObject } from './json-object.js';
import { quote } from './scan-bytes.js';

/** Values of the request's headers and of the TLS object after them. */
export interface RestOfRequest {
  readonly userAgent: string;
  readonly referrer: string;
  /** `undefined` for plain HTTP. */
  readonly tlsVersion: number | undefined;
}

/** Values of the response's headers and of the fields after them. */
export interface RestOfLine {
  /** `X-Request-Id` of the response. */
  readonly responseId: string;
  readonly isEventStream: boolean;
  /** `Content-Type` of the response, without parameters. */
  readonly contentType: string;
  /** Fields appended by `log_append` and tracing. */
  readonly appended: JsonObject | undefined;
}

const plain = String.raw`[^"\\\x00-\x1f]*`;
const escaped = String.raw`${plain}(?:\\["\\/bfnrt]${plain})*`;
const headers = String.raw`\{(?:"${plain}":\[(?:"${escaped}"(?:,"${escaped}")*)?\](?:,(?!\})|(?=\})))*\}`;
const scalar = String.raw`null|true|false|-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,20})?|"${escaped}"`;
const tls = String.raw`,"tls":\{"resumed":(?:true|false),"version":([1-9][0-9]{0,4}),"cipher_suite":[1-9][0-9]{0,4},"proto":"${plain}","server_name":"${plain}"(?:,"ech":(?:true|false))?\}`;
const restOfRequest = new RegExp(String.raw`^(${headers})(?:,"transfer_encoding":\["${plain}"\])?(?:${tls})?$`);
const restOfLine = new RegExp(String.raw`^(${headers})((?:,"[A-Za-z_]{1,60}":(?:${scalar})){0,20})\}$`);

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

const mediaTypeOf = createMemo(mediaType);

/** Creates a function that reads the request's headers and the TLS object. It returns `undefined` for other text. */
export function createRestOfRequestReader(): (text: string) => RestOfRequest | undefined {
  // Different headers often contain the same agents and referrers.
  const interned = { userAgent: createMemo((text) => text), referrer: createMemo((text) => text) };
  return (text) => {
    const found = restOfRequest.exec(text);
    if (found === null) return undefined;
    const [, requestHeaders, tlsVersion] = found as unknown as string[];
    return {
      userAgent: interned.userAgent(firstOf('User-Agent', requestHeaders!)),
      referrer: interned.referrer(firstOf('Referer', requestHeaders!)),
      tlsVersion: tlsVersion === undefined ? undefined : Number(tlsVersion),
    };
  };
}

/**
 * Reads the response's headers and the fields after them, up to the end of the line. Returns `undefined` for other text,
 * and if a key of Caddy's own is appended again.
 */
export function readRestOfLine(text: string): RestOfLine | undefined {
  const found = restOfLine.exec(text);
  if (found === null) return undefined;
  const [, responseHeaders, appendedText] = found as unknown as string[];
  const appended = appendedText === '' ? undefined : (JSON.parse(`{${appendedText!.slice(1)}}`) as JsonObject);
  if (appended !== undefined && ownKeys.some((key) => Object.hasOwn(appended, key))) return undefined;
  const contentType = firstOf('Content-Type', responseHeaders!);
  return {
    responseId: detachString(firstOf('X-Request-Id', responseHeaders!)),
    isEventStream: isEventStream(contentType),
    contentType: mediaTypeOf(contentType),
    appended,
  };
}

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

const headerEnds = {
  'User-Agent': 'User-Agent":[',
  Referer: 'Referer":[',
  'X-Request-Id': 'X-Request-Id":[',
  'Content-Type': 'Content-Type":[',
} as const;
type HeaderName = keyof typeof headerEnds;
const escapedText = new RegExp(`^"${escaped}"`);
