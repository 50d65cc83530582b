/**
 * Limits password attempts per address. After too many failures, all attempts are refused until the minute is over,
 * including correct ones, so that the response does not reveal the password.
 */
import type { IncomingMessage } from 'node:http';
import ipaddr from 'ipaddr.js';
import { isLoopback } from '../../shared/settings/settings.js';

/** Counts failures by address. */
export interface AttemptLimit {
  /** Time until the address may try again, in milliseconds; 0 if it may now. */
  waitMs(address: string): number;
  /** Counts a failure. */
  fail(address: string): void;
}

/**
 * Creates a limit of `failuresMax` failures (10) within `windowMs` (one minute) of the first. Tracks the `addressesMax`
 * (10,000) most recent addresses. `monotonicMs` is a monotonic clock, so that wall clock steps lock nobody out.
 */
export function createAttemptLimit({
  failuresMax = 10,
  windowMs = 60_000,
  addressesMax = 10_000,
  monotonicMs = () => performance.now(),
}: {
  failuresMax?: number;
  windowMs?: number;
  addressesMax?: number;
  monotonicMs?: (() => number) | undefined;
} = {}): AttemptLimit {
  const failed = new Map<string, { count: number; readonly endMs: number }>();
  const current = (address: string) => {
    const entry = failed.get(address);
    return entry !== undefined && entry.endMs > monotonicMs() ? entry : undefined;
  };
  return {
    waitMs(address) {
      const entry = current(address);
      return entry === undefined || entry.count < failuresMax ? 0 : entry.endMs - monotonicMs();
    },
    fail(address) {
      const entry = current(address) ?? { count: 0, endMs: monotonicMs() + windowMs };
      entry.count += 1;
      failed.delete(address);
      failed.set(address, entry);
      if (failed.size > addressesMax) failed.delete(failed.keys().next().value!);
    },
  };
}

/**
 * Returns the key to count failures by: the IPv4 address, or the /64 of an IPv6 address. Behind a proxy on this machine
 * it is the last address in `X-Forwarded-For`; from other peers that header is not trusted.
 */
export function attemptAddress({
  headers,
  socket,
}: Pick<IncomingMessage, 'headers'> & { readonly socket: { readonly remoteAddress?: string | undefined } }): string {
  const peer = socket.remoteAddress ?? '';
  const forwarded = isLoopback(peer) ? [headers['x-forwarded-for']].flat().join(',').split(',').at(-1)!.trim() : '';
  const address = ipaddr.isValid(forwarded) ? forwarded : peer;
  if (!ipaddr.isValid(address)) return '';
  const parsed = ipaddr.process(address);
  return parsed.kind() === 'ipv6' ? `${parsed.toByteArray().slice(0, 8).join('.')}/64` : parsed.toString();
}
