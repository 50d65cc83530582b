import { caddySource, type RequestEvent } from '../../shared/request-event.js';
import type { RejectionReason } from '../ledger.js';
import { normaliseHost } from './host.js';

/** What a line is. */
export type Decoded =
  | { readonly kind: 'request'; readonly event: RequestEvent }
  /** Any other logger's line, the errors that double an access line included. */
  | { readonly kind: 'runtime' }
  | { readonly kind: 'rejected'; readonly reason: RejectionReason };

/** Reads one line of Caddy's default JSON encoder. Never throws. */
export function decodeLine(line: string): Decoded {
  let entry: unknown;
  try {
    entry = JSON.parse(line);
  } catch {
    return rejected('not-json');
  }
  if (!isObject(entry)) return rejected('not-caddy');
  if (!isAccessLog(entry)) {
    return typeof entry['msg'] === 'string' && entry['level'] !== undefined ? runtime : rejected('not-caddy');
  }
  return decodeAccessLog(entry);
}

const runtime: Decoded = { kind: 'runtime' };

function rejected(reason: RejectionReason): Decoded {
  return { kind: 'rejected', reason };
}

type JsonObject = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Only the loggers `http.log.access` and `http.log.access.NAME` speak of requests that ended. Their debug lines ("rejecting
 * request with long method") have no request.
 */
function isAccessLog(entry: JsonObject): boolean {
  const { logger } = entry;
  if (typeof logger !== 'string' || !/^http\.log\.access(?:\.|$)/.test(logger)) return false;
  return entry['request'] !== undefined || entry['status'] !== undefined;
}

function decodeAccessLog(entry: JsonObject): Decoded {
  const { request, ts, duration, status } = entry;
  if (!isObject(request)) return rejected('bad-request');
  const time = timeOf(ts);
  if (time === undefined) return rejected('bad-time');
  if (typeof duration !== 'number' || !(duration >= 0)) return rejected('bad-duration');
  if (!Number.isInteger(status) || (status as number) < 0 || (status as number) > 999) return rejected('bad-status');
  const headers = isObject(request['headers']) ? request['headers'] : {};
  return {
    kind: 'request',
    event: {
      source: caddySource,
      ...time,
      host: normaliseHost(textOf(request['host'])),
      method: textOf(request['method']),
      status: status as number,
      durationMs: duration * 1000,
      size: countOf(entry['size']),
      bytesRead: countOf(entry['bytes_read']),
      uri: textOf(request['uri']),
      endpoint: '',
      clientIp: textOf(request['client_ip']) || textOf(request['remote_ip']),
      userAgent: firstOf(headers['User-Agent']),
      referrer: firstOf(headers['Referer']),
      protocol: textOf(request['proto']),
      tls: tlsOf(request['tls']),
      upstreamMs: null,
      requestId: '',
    },
  };
}

/** Times that a stored row can have: 1970 to 2200, inside what 64 bits of nanoseconds hold. */
const timeMaxMs = Date.UTC(2200, 0, 1);

/**
 * Caddy's default `ts`: seconds since 1970 as the shortest decimal that gives the double, so its text has the digits that
 * Caddy wrote.
 */
function timeOf(ts: unknown): { timeMs: number; timeNs: number } | undefined {
  if (typeof ts !== 'number') return undefined;
  const match = /^(\d{1,10})(?:\.(\d{1,9})\d*)?$/.exec(String(ts));
  if (match === null) return undefined;
  const fraction = (match[2] ?? '').padEnd(9, '0');
  const timeMs = Number(match[1]) * 1000 + Number(fraction.slice(0, 3));
  return timeMs < timeMaxMs ? { timeMs, timeNs: Number(fraction.slice(3)) } : undefined;
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function countOf(value: unknown): number {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? value as number : 0;
}

/** The first value of a header: Caddy writes arrays of strings. */
function firstOf(header: unknown): string {
  return Array.isArray(header) ? textOf(header[0]) : '';
}

/** The versions of RFC 8446, section 4.2.1, as Caddy writes them: integers. */
const tlsVersions: Readonly<Record<string, string>> = { 769: 'TLS 1.0', 770: 'TLS 1.1', 771: 'TLS 1.2', 772: 'TLS 1.3' };

function tlsOf(tls: unknown): string {
  if (!isObject(tls)) return '';
  return tlsVersions[String(tls['version'])] ?? 'TLS';
}
