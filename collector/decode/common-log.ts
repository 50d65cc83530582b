/**
 * Common and Combined Log Format, as the encoders `single_field common_log` (Caddy up to 2.4) and `transform` write
 * them. Neither has a host or a duration.
 */
import ipaddr from 'ipaddr.js';
import type { JsonObject } from './split-encoding.js';

const date = /\[(\d\d\/[A-Z][a-z]{2}\/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "/;
/**
 * Behind the opening quote of the request. What strangers choose stands last, and takes every quote before the one at
 * the end.
 */
const rest = /^((?:[^"\\]|\\.)*)" (\d{1,3}) (\d{1,15}|-)(?: "((?:[^"\\]|\\.)*)" "(.*)")?\s*$/;
/** Text before the date that is searched for the client's address, in characters. */
const headMax = 1000;
/** What prefixes have around words: colours, priorities, columns. */
// eslint-disable-next-line no-control-regex -- colours are control characters
const decoration = /\u001b\[[\d;]*m|[<>|]/g;
/** The words between the address and the date: identity and user, and one to spare. */
const wordsMax = 6;

/**
 * The fields of a line in Common or Combined Log Format, under Caddy's names; `undefined` for any other text. Only the
 * first date counts: a request or a user agent may hold another.
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

/** Method, target and protocol; a target may hold spaces. */
function requestLine(text: string): string[] {
  return /^(\S{1,255}) (.*?)(?: (HTTP\/\d(?:\.\d)?))?$/s.exec(text)?.slice(1) ?? [];
}

/** The client's address: the last one before identity and user, behind a prefix of any kind. */
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
