import ipaddr from 'ipaddr.js';
import { detachString } from '../memo.js';

/** Stands for hosts beyond the limit and for unknown methods. */
export const otherName = '_other';

/** How client addresses are stored: truncated, in full, or not at all. */
export type ClientIpPolicy = 'truncated' | 'full' | 'off';

/** Maximum length of a host, method, source or endpoint, in UTF-16 code units: that of a domain name. */
export const nameLengthMax = 255;

/** Maximum length of a stored request target, in UTF-16 code units. */
export const uriLengthMax = 8192;

/** Methods of RFC 9110, RFC 5789 and those that WebDAV clients send (RFC 4918, RFC 3253). */
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

/** Returns the method if it is known, else `_other`: clients can send any method. */
export function boundMethod(method: string): string {
  return knownMethods.has(method) ? method : otherName;
}

// eslint-disable-next-line no-control-regex -- matches control characters
const controlCharacters = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/gu;

/**
 * Sanitizes a name for use as a tag: replaces control characters and lone surrogates with U+FFFD and truncates it to
 * 255 characters.
 */
export function cleanName(name: string): string {
  return truncateText(name, nameLengthMax).replace(controlCharacters, '\uFFFD');
}

/** Truncates free text and replaces lone surrogates and NULs, which no store accepts. */
export function truncateText(text: string, lengthMax: number): string {
  const short = text.length > lengthMax ? detachString(text.slice(0, lengthMax)) : text;
  const whole = short.isWellFormed() ? short : short.toWellFormed();
  return whole.includes('\0') ? whole.replaceAll('\0', '\uFFFD') : whole;
}

/** Maximum plausible duration: a year, in milliseconds. Sums of longer ones would overflow in the stores. */
const durationMsMax = 366 * 86_400_000;
/** Maximum plausible body size: 8 TiB, in bytes. */
const bytesMax = 2 ** 43;

/** Returns the duration if it is plausible, else `null`. */
export function boundDuration(durationMs: number | null): number | null {
  return durationMs !== null && durationMs >= 0 && durationMs <= durationMsMax ? durationMs : null;
}

/** Clamps a number of bytes to 0 to 8 TiB; an invalid one counts as 0. */
export function clampBytes(bytes: number): number {
  return bytes > 0 ? Math.min(Math.floor(bytes), bytesMax) : 0;
}

/**
 * Applies the policy to a client address. `truncated` keeps /24 of IPv4 and /48 of IPv6: `203.0.113.9` becomes
 * `203.0.113.0`. Invalid addresses are omitted unless the policy is `full`.
 */
export function boundClientIp(clientIp: string, policy: ClientIpPolicy): string {
  if (policy === 'off' || clientIp === '') return '';
  if (policy === 'full') return truncateText(clientIp, nameLengthMax);
  if (!ipaddr.isValid(clientIp)) return '';
  const address = ipaddr.process(clientIp); // converts IPv4-mapped IPv6 to IPv4
  return address.kind() === 'ipv4'
    ? ipaddr.IPv4.networkAddressFromCIDR(`${address.toString()}/24`).toString()
    : ipaddr.IPv6.networkAddressFromCIDR(`${address.toString()}/48`).toString();
}
