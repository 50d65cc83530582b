import ipaddr from 'ipaddr.js';
import { detachString } from '../memo.js';

/** What stands in for a host or method beyond the limit. */
export const otherName = '_other';

/** How client addresses are kept: with the last part cut off, whole, or not at all. */
export type ClientIpPolicy = 'truncated' | 'full' | 'off';

/** The longest host, method, source or endpoint, in UTF-16 code units: what a domain name can have. */
export const nameLengthMax = 255;

/** The longest request target that is kept, in UTF-16 code units. */
export const uriLengthMax = 8192;

/** The methods of RFC 9110 and RFC 5789, and those that WebDAV's clients send (RFC 4918, RFC 3253). */
const knownMethods = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'CONNECT',
  'OPTIONS',
  'TRACE',
  'PATCH',
  'PROPFIND',
  'PROPPATCH',
  'MKCOL',
  'COPY',
  'MOVE',
  'LOCK',
  'UNLOCK',
  'REPORT',
]);

/** The method itself when it is a known one, else `_other`: strangers choose it. */
export function boundMethod(method: string): string {
  return knownMethods.has(method) ? method : otherName;
}

// eslint-disable-next-line no-control-regex -- control characters are what it looks for
const controlCharacters = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/gu;

/**
 * A name as a tag can hold it: control characters and lone surrogates become U+FFFD, and it is cut at 255 characters.
 */
export function cleanName(name: string): string {
  return truncateText(name, nameLengthMax).replace(controlCharacters, '\uFFFD');
}

/** Free text without lone surrogates and NULs, which no store can hold, cut at a length. */
export function truncateText(text: string, lengthMax: number): string {
  const short = text.length > lengthMax ? detachString(text.slice(0, lengthMax)) : text;
  const whole = short.isWellFormed() ? short : short.toWellFormed();
  return whole.includes('\0') ? whole.replaceAll('\0', '\uFFFD') : whole;
}

/**
 * The longest duration that is believed, a year in milliseconds: sums of what is longer would leave the range of the
 * stores.
 */
const durationMsMax = 366 * 86_400_000;
/** The largest body that is believed, 8 TiB in bytes. */
const bytesMax = 2 ** 43;

/** A duration that a store can hold and add up; `null` when it is none. */
export function boundDuration(durationMs: number | null): number | null {
  return durationMs !== null && durationMs >= 0 && durationMs <= durationMsMax ? durationMs : null;
}

/** A count of bytes that a store can hold and add up; a larger one counts as 8 TiB, and what is none as 0. */
export function clampBytes(bytes: number): number {
  return bytes > 0 ? Math.min(Math.floor(bytes), bytesMax) : 0;
}

/**
 * A client's address under the policy. Truncated is /24 for IPv4 and /48 for IPv6: `203.0.113.9` becomes `203.0.113.0`.
 * What is not an address is left out unless the policy is `full`.
 */
export function boundClientIp(clientIp: string, policy: ClientIpPolicy): string {
  if (policy === 'off' || clientIp === '') return '';
  if (policy === 'full') return truncateText(clientIp, nameLengthMax);
  if (!ipaddr.isValid(clientIp)) return '';
  const address = ipaddr.process(clientIp); // an IPv4-mapped IPv6 address becomes IPv4
  return address.kind() === 'ipv4'
    ? ipaddr.IPv4.networkAddressFromCIDR(`${address.toString()}/24`).toString()
    : ipaddr.IPv6.networkAddressFromCIDR(`${address.toString()}/48`).toString();
}
