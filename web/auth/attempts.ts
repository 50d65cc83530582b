/**
 * Bounds how often passwords can be tried: so many failures of one address, then none of its tries is looked at until
 * the minute is over, the right one neither, since an answer to it would tell that it is right.
 */
import type { IncomingMessage } from 'node:http';
import ipaddr from 'ipaddr.js';
import { isLoopback } from '../../shared/settings/settings.js';

/** Counts failures by address. */
export interface AttemptLimit {
  /** How long the address has to wait before its next try, in milliseconds; 0 when it need not. */
  waitMs(address: string): number;
  /** Counts a failure. */
  fail(address: string): void;
}

/**
 * `failuresMax` failures, 10, in `windowMs`, a minute, from the first of them on. Of the last `addressesMax` addresses,
 * 10,000, failures are remembered: a tenth of a kilobyte each. `monotonicMs` is a clock in milliseconds that never
 * steps: putting the machine's clock right must lock nobody out.
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
 * Whose failures count together: an IPv4 address, or the /64 of an IPv6 one, which is one customer's. Behind a proxy on
 * this machine it is the address that the proxy says it saw, the last in `X-Forwarded-For`; from elsewhere that header
 * could be anybody's.
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
