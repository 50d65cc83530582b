/** Tracks each connection and each UDP sender: its lines, and the clock skew of its Caddy. */

import { zoneOffsetMs } from './decode/wall-clock.js';
import type { Log } from '../shared/log.js';
import type { PartialLines } from './partial-lines.js';

/** Minimum clock skew for a warning, in milliseconds. */
const skewMsMin = 30_000;

/** Idle time after which a UDP sender is removed, in milliseconds. */
const idleMsMax = 3_600_000;

/** Maximum number of sources in `/ledger`, by descending skew. */
const shownMax = 100;

/** A stream connection, or all UDP senders of one address. Updated with each line. */
export class LineSource {
  /** UDP: the address. TCP: address and port. Unix socket: its path. */
  readonly peer: string;
  /** When it was opened or first seen, in milliseconds since 1970. */
  readonly sinceMs: number;
  lines = 0;
  /**
   * Smallest difference of arrival time and line time in the current half window, in milliseconds; `Infinity` before
   * the first line.
   */
  lagMsMin = Infinity;
  /** The same for the last two half windows that had lines. */
  previousLagMsMin = Infinity;
  olderLagMsMin = Infinity;
  /** Half windows since the last line. */
  idleHalfWindows = 0;
  /** Whether its skew has been reported. */
  isReported = false;
  /** Assembles lines that arrive in parts; `undefined` before the first. */
  partialLines: PartialLines | undefined;
  /** Whether its timestamps have no time zone and are read in `COLLECTOR_TIME_ZONE`. */
  isWithoutZone = false;

  constructor(peer: string, sinceMs: number) {
    this.peer = peer;
    this.sinceMs = sinceMs;
  }

  /**
   * How far the clock of this Caddy is behind (positive) or ahead of (negative) this machine's, in milliseconds;
   * `undefined` before the first line. Caddy writes an access line when its request ends, so the smallest lag over some
   * time approximates the skew.
   */
  get skewMs(): number | undefined {
    const lagMs = Math.min(this.lagMsMin, this.previousLagMsMin);
    return lagMs === Infinity ? undefined : lagMs;
  }

  /**
   * The skew if it is large enough for a warning, else `undefined`. A line from the future always proves skew. An old
   * line may have been delayed, so a clock counts as behind only if two half windows agree: the lag of a backlog
   * shrinks.
   */
  get largeSkewMs(): number | undefined {
    const skewMs = this.skewMs;
    if (skewMs === undefined || Math.abs(skewMs) < skewMsMin) return undefined;
    if (skewMs < 0) return skewMs;
    return Math.abs(this.previousLagMsMin - this.olderLagMsMin) <= Math.max(skewMsMin / 3, skewMs / 20)
      ? skewMs
      : undefined;
  }
}

/** A source in the JSON of `/ledger`. */
export interface LineSourceJson {
  readonly peer: string;
  readonly since: string;
  readonly lines: number;
  /** `null` before the first line. */
  readonly clock_skew_ms: number | null;
  /** The settings to change if the skew is caused by a time zone. */
  readonly hint?: string;
}

/** All sources of lines of a collector. */
export class LineSources {
  /**
   * The source of the lines that are being read. Listeners set it before each chunk, since they share their handlers.
   */
  current = new LineSource('', 0);
  readonly #streams = new Set<LineSource>();
  /** By address, least recently used first. */
  readonly #senders = new Map<string, LineSource>();
  readonly #now: () => number;
  readonly #sendersMax: number;
  readonly #timeZone: string;
  readonly #halfWindowMs: number;
  readonly #log: Pick<Log, 'debug'> | undefined;
  #turnedMs = performance.now();

  /**
   * `sendersMax`: number of UDP senders tracked; beyond it, the least recent is evicted. Default: 1,000.
   * `halfWindowMs`: default 30 s. `timeZone`: IANA zone of timestamps without one, default UTC. `log`: default none.
   */
  constructor({
    now = Date.now,
    sendersMax = 1000,
    halfWindowMs = 30_000,
    timeZone = 'UTC',
    log,
  }: {
    now?: () => number;
    sendersMax?: number;
    halfWindowMs?: number | undefined;
    timeZone?: string;
    log?: Pick<Log, 'debug'>;
  } = {}) {
    this.#log = log;
    this.#now = now;
    this.#timeZone = timeZone;
    this.#sendersMax = sendersMax;
    this.#halfWindowMs = halfWindowMs;
  }

  /** Adds a stream connection; `close` it at its end. */
  open(peer: string): LineSource {
    const source = new LineSource(peer, this.#now());
    this.#streams.add(source);
    this.#log?.debug('Connection opened.', { peer });
    return source;
  }

  close(source: LineSource): void {
    if (this.#streams.delete(source))
      this.#log?.debug('Connection closed.', { peer: source.peer, lines: source.lines });
  }

  /** Returns the source of datagrams from an address. Adds it if it is new. */
  sender(address: string): LineSource {
    let source = this.#senders.get(address);
    if (source !== undefined && source === this.current) return source;
    if (source === undefined) {
      source = new LineSource(address, this.#now());
      this.#log?.debug('First datagram of a sender.', { peer: address });
      if (this.#senders.size >= this.#sendersMax) this.#forget(this.#senders.values().next().value!);
    } else {
      this.#senders.delete(address);
    }
    this.#senders.set(address, source);
    return source;
  }

  /**
   * Checks the skew of every source. Call it every few seconds. Returns the sources whose skew has newly been detected
   * since the last call, and the largest absolute skew that deserves a warning, in milliseconds; 0 if there is none.
   */
  checkSkew(): { readonly found: readonly LineSource[]; readonly largestMs: number } {
    const found: LineSource[] = [];
    let largestMs = 0;
    for (const source of this.#all()) {
      const skewMs = source.largeSkewMs;
      largestMs = Math.max(largestMs, Math.abs(skewMs ?? 0));
      if (skewMs !== undefined && !source.isReported) found.push(source);
      source.isReported = skewMs !== undefined;
    }
    if (performance.now() - this.#turnedMs >= this.#halfWindowMs) this.#turn();
    return { found, largestMs };
  }

  /** The largest absolute skew, in milliseconds. */
  get skewMsMax(): number {
    return Math.max(0, ...this.#all().map(({ skewMs = 0 }) => Math.abs(skewMs)));
  }

  /** Discards partial lines whose rest has not arrived in time. Returns their number. */
  expirePartialLines(): number {
    return this.#all().reduce((count, { partialLines }) => count + (partialLines?.expire(this.#now()) ?? 0), 0);
  }

  /** The sources for `/ledger`, those with the largest skew first. */
  json(): LineSourceJson[] {
    const skewOf = ({ skewMs = 0 }: LineSource): number => Math.abs(skewMs);
    return this.#all()
      .sort((a, b) => skewOf(b) - skewOf(a))
      .slice(0, shownMax)
      .map((source) => {
        const { peer, sinceMs, lines, skewMs } = source;
        const hint = this.zoneHint(source);
        return {
          peer,
          since: new Date(sinceMs).toISOString(),
          lines,
          clock_skew_ms: skewMs ?? null,
          ...(hint !== undefined && { hint: `${hint}.` }),
        };
      });
  }

  /**
   * The settings to change if the timestamps of a source have no zone and are off by a multiple of 15 minutes;
   * `undefined` if its skew has another cause.
   */
  zoneHint({ isWithoutZone, skewMs }: LineSource): string | undefined {
    if (!isWithoutZone || skewMs === undefined) return undefined;
    const shiftMs = Math.round(skewMs / quarterMs) * quarterMs;
    const offsetMs = zoneOffsetMs(this.#timeZone, this.#now()) - shiftMs;
    if (shiftMs === 0 || Math.abs(skewMs - shiftMs) > skewMsMin || offsetMs < -12 * hourMs || offsetMs > 14 * hourMs)
      return undefined;
    const zone = zoneOf(offsetMs);
    return `Its times have no time zone and are read in ${this.#timeZone}, but its clock shows ${utcText(offsetMs)}. Set COLLECTOR_TIME_ZONE${zone === undefined ? ' to the IANA zone of that Caddy' : `=${zone}, or to the IANA zone of that Caddy, which includes daylight saving time`}, or let Caddy write times with a zone (time_format iso8601)`;
  }

  #forget(source: LineSource): void {
    source.partialLines?.end(); // releases its memory
    this.#senders.delete(source.peer);
  }

  #all(): LineSource[] {
    return [...this.#streams, ...this.#senders.values()];
  }

  /**
   * Begins a half window. A source without lines keeps its lags, since a quiet site has few lines. Removes idle UDP
   * senders.
   */
  #turn(): void {
    this.#turnedMs = performance.now();
    for (const source of this.#all()) {
      if (source.lagMsMin === Infinity) {
        source.idleHalfWindows += 1;
        if (source.idleHalfWindows * this.#halfWindowMs > idleMsMax) this.#forget(source);
        continue;
      }
      source.idleHalfWindows = 0;
      source.olderLagMsMin = source.previousLagMsMin;
      source.previousLagMsMin = source.lagMsMin;
      source.lagMsMin = Infinity;
    }
  }
}

/** Time zone offsets are multiples of this. */
const quarterMs = 900_000;
const hourMs = 3_600_000;

/** The IANA zone with this fixed offset, whose sign is reversed: `Etc/GMT-2` is UTC+2. Only whole hours have one. */
function zoneOf(offsetMs: number): string | undefined {
  const hours = offsetMs / hourMs;
  if (!Number.isInteger(hours)) return undefined;
  return hours === 0 ? 'UTC' : `Etc/GMT${hours > 0 ? '-' : '+'}${Math.abs(hours)}`;
}

function utcText(offsetMs: number): string {
  const minutes = Math.abs(offsetMs) / 60_000;
  return `UTC${offsetMs < 0 ? '-' : '+'}${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`;
}
