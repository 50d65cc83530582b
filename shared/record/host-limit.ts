import { isSuccess } from '../status.js';
import { otherName } from './bounds.js';
import { ConfiguredHosts } from './configured-hosts.js';

/** Limits how many hosts are counted by name. Scanners can make up any number of them. */
export interface HostLimitOptions {
  /** Maximum number of hosts that are counted by name. Requests of all others are counted as `_other`. */
  readonly hostsMax: number;
  /**
   * Hosts that are always counted by name, in addition to `hostsMax` others. Hosts that match one of their wildcards
   * rank above all others. Default: none.
   */
  readonly configured?: Pick<ConfiguredHosts, 'version' | 'has' | 'covers'> | undefined;
  /** Time without a request after which a host ranks below all active ones, in milliseconds. Default: a day. */
  readonly idleMs?: number;
}

interface Host {
  readonly name: string;
  /** Requests with a status from 100 to 399 since the host was first seen. */
  successes: number;
  requests: number;
  lastMs: number;
  isCovered: boolean;
}

/** Number of admitted hosts drawn at random to find one to replace: the weakest of 16 is nearly the weakest of all. */
const draws = 16;
/**
 * Minimum number of hosts remembered without being admitted. The requests of a forgotten host are no longer counted
 * in its favour.
 */
const waitingMin = 20_000;

/**
 * Admits hosts up to a limit. Beyond it, a new host replaces a weaker one. Hosts matched by Caddy's configuration
 * rank first, then those with the most successful responses, then those with the most requests. So a scanner cannot
 * displace real sites, even if it comes first.
 */
export class HostLimit {
  readonly #hostsMax: number;
  readonly #idleMs: number;
  readonly #random: () => number;
  readonly #configured: NonNullable<HostLimitOptions['configured']>;
  #version: number;
  readonly #admitted = new Map<string, Host>();
  /** The admitted hosts, to draw from at random. */
  #drawn: Host[] = [];
  /** Hosts that are not admitted, least recently seen first. */
  readonly #waiting = new Map<string, Host>();

  /** `random` returns numbers from 0 to 1. */
  constructor(
    { hostsMax, configured = new ConfiguredHosts(), idleMs = 86_400_000 }: HostLimitOptions,
    random = Math.random,
  ) {
    this.#hostsMax = hostsMax;
    this.#idleMs = idleMs;
    this.#random = random;
    this.#configured = configured;
    this.#version = configured.version;
  }

  /**
   * Returns the name to count a request under: its host, or `_other`. `timeMs` is the time of the request, so that in
   * an import idle time follows the log.
   */
  admit(host: string, { status, timeMs }: { readonly status: number; readonly timeMs: number }): string {
    const known = this.#admitted.get(host);
    if (known !== undefined) {
      count(known, status, timeMs);
      return host;
    }
    if (this.#configured.has(host)) return host;
    if (this.#version !== this.#configured.version) this.#reconfigure();
    const newcomer = this.#waiting.get(host) ?? {
      name: host,
      successes: 0,
      requests: 0,
      lastMs: timeMs,
      isCovered: this.#configured.covers(host),
    };
    count(newcomer, status, timeMs);
    if (this.#drawn.length < this.#hostsMax) {
      this.#drawn.push(newcomer);
    } else {
      const index = this.#findWeaker(newcomer);
      if (index === undefined) {
        this.#wait(newcomer);
        return otherName;
      }
      const displaced = this.#drawn[index]!;
      this.#admitted.delete(displaced.name);
      this.#wait(displaced);
      this.#drawn[index] = newcomer;
    }
    this.#waiting.delete(host);
    this.#admitted.set(host, newcomer);
    return host;
  }

  #reconfigure(): void {
    this.#version = this.#configured.version;
    for (const host of [...this.#drawn, ...this.#waiting.values()]) host.isCovered = this.#configured.covers(host.name);
    for (const name of this.#admitted.keys()) if (this.#configured.has(name)) this.#admitted.delete(name);
    this.#drawn = [...this.#admitted.values()];
  }

  /** Index of a weaker host in `#drawn`; `undefined` if none was found. */
  #findWeaker(newcomer: Host): number | undefined {
    let weakest: number | undefined;
    for (let draw = 0; draw < draws; draw += 1) {
      const at = Math.floor(this.#random() * this.#drawn.length);
      if (weakest === undefined || this.#isWeaker(this.#drawn[at]!, this.#drawn[weakest]!, newcomer.lastMs))
        weakest = at;
    }
    return weakest !== undefined && this.#isWeaker(this.#drawn[weakest]!, newcomer, newcomer.lastMs)
      ? weakest
      : undefined;
  }

  #isWeaker(one: Host, other: Host, nowMs: number): boolean {
    const idle = [one, other].map(({ lastMs }) => Number(nowMs - lastMs > this.#idleMs));
    if (idle[0] !== idle[1]) return idle[0]! > idle[1]!;
    if (one.isCovered !== other.isCovered) return other.isCovered;
    return one.successes !== other.successes ? one.successes < other.successes : one.requests < other.requests;
  }

  #wait(host: Host): void {
    this.#waiting.delete(host.name);
    this.#waiting.set(host.name, host);
    if (this.#waiting.size > Math.max(waitingMin, this.#hostsMax))
      this.#waiting.delete(this.#waiting.keys().next().value!);
  }
}

function count(host: Host, status: number, timeMs: number): void {
  host.requests += 1;
  if (isSuccess(status)) host.successes += 1;
  if (timeMs > host.lastMs) host.lastMs = timeMs;
}
