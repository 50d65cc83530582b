/**
 * Parses Common and Combined Log Format, as written by the encoders `single_field common_log` (Caddy up to 2.4) and
 * `transform`. Neither has a host or a duration.
 */
import ipaddr from 'ipaddr.js';
import type { JsonObject } from './json-object.js';

const date = /\[(\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "/;
/**
 * Matches the text after the opening quote of the request. The user agent, which clients control, is last and may
 * contain quotes.
 */
const rest = /^((?:[^"\\]|\\.)*)" (\d{1,3}) (\d{1,15}|-)(?: "((?:[^"\\]|\\.)*)" "(.*)")?\s*$/;
/** Maximum length of the text before the date that is searched for the client's address, in characters. */
const headMax = 1000;
/** Decoration in prefixes: colours, priorities, column separators. */
// eslint-disable-next-line no-control-regex -- colours are control characters
const decoration = /\u001b\[[\d;]*m|[<>|]/g;
/** Maximum number of words searched before the date: address, identity, user, and some to spare. */
const wordsMax = 6;

/**
 * Returns the fields of a line in Common or Combined Log Format under Caddy's names; `undefined` for any other text.
 * Uses the first date, since a request or a user agent may contain another.
 */
export function readCommonLog(text: string): JsonObject | undefined {
  const found = date.exec(text);
  if (found === null) return undefined;
  const parts = rest.exec(text.slice(found.index + found[0].length));
  if (parts === null) return undefined;
  const [, request = '', status, size, referrer = '', userAgent = ''] = parts;
  const [method = '', uri = '', proto = ''] = requestLine(unescaped(request));
  return {
    logger: 'http.log.access',
    ts: found[1],
    request: {
      remote_ip: addressIn(text.slice(Math.max(0, found.index - headMax), found.index)),
      method,
      uri,
      proto,
      headers: { Referer: valueOf(referrer), 'User-Agent': valueOf(userAgent) },
    },
    size: size === '-' ? 0 : Number(size),
    status: Number(status),
  };
}

/** Splits a request line into method, target and protocol. The target may contain spaces. */
function requestLine(text: string): string[] {
  return /^(\S{1,255}) (.*?)(?: (HTTP\/\d(?:\.\d)?))?$/s.exec(text)?.slice(1) ?? [];
}

/** The last address before the date. Any prefix may precede it. */
function addressIn(head: string): string {
  const words = head.replace(decoration, ' ').trim().split(/\s+/).slice(-wordsMax).reverse();
  return words.find((word) => /[.:]/.test(word) && ipaddr.isValid(word)) ?? '';
}

function valueOf(text: string): readonly string[] {
  return text === '-' || text === '' ? [] : [unescaped(text)];
}

function unescaped(text: string): string {
  return text.includes('\\') ? text.replace(/\\(["\\])/g, '$1') : text;
}
