/**
 * Limits password attempts per address. After too many failures, all attempts are refused until the minute is over,
 * including correct ones, so that the response does not reveal the password.
 */
import type { IncomingMessage } from 'node:http';
import ipaddr from 'ipaddr.js';
import { isLoopback } from '../../shared/settings/settings.js';

/** Options of `AttemptLimit`. */
export interface AttemptLimitOptions {
  /** Maximum number of failures of an address within `windowMs` of the first. Default: 10. */
  readonly failuresMax?: number;
  /** Default: 60,000. */
  readonly windowMs?: number;
  /** Maximum number of addresses to track: those that failed last. Default: 10,000. */
  readonly addressesMax?: number;
  /** A monotonic clock, in milliseconds, so that wall clock steps lock nobody out. Default: `performance.now`. */
  readonly monotonicMs?: (() => number) | undefined;
}

/** Counts failures by address. */
export class AttemptLimit {
  readonly #failuresMax: number;
  readonly #windowMs: number;
  readonly #addressesMax: number;
  readonly #monotonicMs: () => number;
  /** By address, least recent failure first. */
  readonly #failed = new Map<string, { count: number; readonly endMs: number }>();

  constructor({
    failuresMax = 10,
    windowMs = 60_000,
    addressesMax = 10_000,
    monotonicMs = () => performance.now(),
  }: AttemptLimitOptions = {}) {
    this.#failuresMax = failuresMax;
    this.#windowMs = windowMs;
    this.#addressesMax = addressesMax;
    this.#monotonicMs = monotonicMs;
  }

  /** Time until the address may try again, in milliseconds; 0 if it may now. */
  waitMs(address: string): number {
    const entry = this.#current(address);
    return entry === undefined || entry.count < this.#failuresMax ? 0 : entry.endMs - this.#monotonicMs();
  }

  /** Counts a failure. */
  fail(address: string): void {
    const entry = this.#current(address) ?? { count: 0, endMs: this.#monotonicMs() + this.#windowMs };
    entry.count += 1;
    this.#failed.delete(address);
    this.#failed.set(address, entry);
    if (this.#failed.size > this.#addressesMax) this.#failed.delete(this.#failed.keys().next().value!);
  }

  #current(address: string) {
    const entry = this.#failed.get(address);
    return entry !== undefined && entry.endMs > this.#monotonicMs() ? entry : undefined;
  }
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
