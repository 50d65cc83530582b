/**
 * Caches a digest of the rows of each window, so that a page reads only its newest windows. Closed windows rarely
 * change, but imports can change them, so that every entry can be invalidated:
 *
 * - A store that reports its changes invalidates the windows of each batch, including those being read at that
 *   moment.
 * - If other processes write to the store, entries expire: open windows almost immediately, closed ones after a tenth
 *   of the time since their end, within bounds. From half their TTL on they are refreshed in the background.
 *
 * Concurrent readers of the same windows share one read.
 */
import { groupBy } from '../../shared/group-by.js';
import type { StoreChanges } from '../../shared/store/changes.js';
import type { TimeRange } from '../../shared/store/store.js';
import { CoalescedRead } from './coalesce-reads.js';
import { closedTtlMs, closedTtlMsMin, closesAfterMs, notifiedTtlMs } from './window-ttl.js';

/** The cache key, without the range. */
export interface WindowQuery {
  /** The length of a window, in seconds. */
  readonly level: number;
  /** All other restrictions. */
  readonly [restriction: string]: unknown;
}

/** A window with the digest of its rows. */
export interface Window<Digest> {
  readonly windowMs: number;
  readonly digest: Digest;
}

/** Options of `WindowCache`. */
export interface WindowCacheOptions<Query, Row, Digest> {
  /** Reads rows in pages of whole windows. Each page is cached, even if the rest of the read is cancelled. */
  readonly read: (query: Query & TimeRange, signal: AbortSignal) => AsyncIterable<readonly Row[]>;
  readonly digest: (rows: readonly Row[]) => Digest;
  /** Weight of a digest. The window itself adds one. */
  readonly estimatedSize: (digest: Digest) => number;
  /** Maximum total weight. Beyond it the least recently used queries are evicted, then nothing more is cached. */
  readonly weightMax: number;
  /** `undefined` for a store that other processes write to. */
  readonly changes: StoreChanges | undefined;
  /** TTL of an open window if other processes write, in milliseconds. Default: 200. */
  readonly openTtlMs?: number;
  /** Maximum TTL of a closed window if other processes write, in milliseconds. Default: 60,000. */
  readonly closedTtlMsMax?: number;
  /** Monotonic clock, in milliseconds. */
  readonly clock?: () => number;
}

/** TTL of an open window, in milliseconds. Limits the reads of many concurrent viewers. */
const openTtlMsDefault = 200;

/**
 * Windows of the current query unused for this long can be evicted, in milliseconds. Pages refresh every few seconds.
 */
const unusedMs = 60_000;

/** Characters of a query's key that count as one unit of weight. */
const keyLengthPerWeight = 3000;

interface Entry<Digest> {
  /** `undefined` for a window without rows. */
  readonly digest: Digest | undefined;
  readonly readMs: number;
  readonly weight: number;
  usedMs: number;
}

/** A range that is being read. */
interface Span extends TimeRange {
  readonly startedMs: number;
  /** Windows that have changed since the start of the read. */
  readonly changed: Set<number>;
}

interface Reading<Digest> extends Span {
  readonly done: CoalescedRead<ReadonlyMap<number, Digest>>;
}

interface Group<Query, Digest> {
  readonly query: Query;
  readonly key: string;
  /** Length of a window, in milliseconds. */
  readonly lengthMs: number;
  readonly windows: Map<number, Entry<Digest>>;
  readonly reading: Set<Reading<Digest>>;
}

/** A cache over one kind of rows. */
export class WindowCache<Query extends WindowQuery, Row extends { readonly windowMs: number }, Digest> {
  readonly #options: WindowCacheOptions<Query, Row, Digest>;
  readonly #openTtlMs: number;
  readonly #clock: () => number;
  /** By query, least recently used first. */
  readonly #groups = new Map<string, Group<Query, Digest>>();
  #weight = 0;

  /** Creates an empty cache. */
  constructor(options: WindowCacheOptions<Query, Row, Digest>) {
    this.#options = options;
    this.#openTtlMs = options.openTtlMs ?? openTtlMsDefault;
    this.#clock = options.clock ?? (() => performance.now());
  }

  /** Number of queries with cached windows or reads in progress. */
  get queries(): number {
    return this.#groups.size;
  }

  /** Returns the windows with rows in a range of whole windows, ascending. Throws the error of the read. */
  async get(query: Query, range: TimeRange, nowMs: number, signal?: AbortSignal): Promise<Window<Digest>[]> {
    const group = this.#groupOf(query);
    const { found, missing, ageing } = this.#lookUp(group, range, nowMs);
    if (ageing.length > 0) this.#refresh(group, ageing);
    if (missing.length > 0) {
      const reading = this.#joinable(group, missing) ?? this.#startReading(group, missing);
      const digests = await reading.done.join(signal);
      for (const windowMs of missing) {
        const fresh = digests.get(windowMs);
        if (fresh !== undefined) found.set(windowMs, fresh);
      }
    }
    return [...found].sort(([a], [b]) => a - b).map(([windowMs, digest]) => ({ windowMs, digest }));
  }

  /** Invalidates the windows of these rows. */
  invalidate(rows: readonly { readonly level: number; readonly windowMs: number }[]): void {
    for (const group of [...this.#groups.values()]) {
      for (const { level, windowMs } of rows) {
        if (level !== group.query.level) continue;
        this.#drop(group, windowMs);
        for (const { changed } of group.reading) changed.add(windowMs);
      }
      this.#dropIfEmpty(group);
    }
  }

  /** Invalidates all windows. */
  clear(): void {
    for (const group of [...this.#groups.values()]) {
      group.windows.clear();
      for (const { changed, fromMs, toMs } of group.reading) {
        for (let windowMs = fromMs; windowMs < toMs; windowMs += group.lengthMs) changed.add(windowMs);
      }
      this.#dropIfEmpty(group);
    }
    this.#weight = 0;
  }

  #groupOf(query: Query): Group<Query, Digest> {
    const key = JSON.stringify(query);
    const group = this.#groups.get(key) ?? {
      query,
      key,
      lengthMs: query.level * 1000,
      windows: new Map<number, Entry<Digest>>(),
      reading: new Set<Reading<Digest>>(),
    };
    this.#groups.delete(key);
    this.#groups.set(key, group);
    return group;
  }

  /** The cached digests of a range, and the windows to read: missing ones now, ageing ones in the background. */
  #lookUp({ lengthMs, windows }: Group<Query, Digest>, { fromMs, toMs }: TimeRange, nowMs: number) {
    const found = new Map<number, Digest>();
    const missing: number[] = [];
    const ageing: number[] = [];
    for (let windowMs = fromMs; windowMs < toMs; windowMs += lengthMs) {
      const entry = windows.get(windowMs);
      const ttlMs = this.#ttlMsOf(windowMs + lengthMs, nowMs);
      if (entry === undefined || this.#clock() - entry.readMs > ttlMs) {
        missing.push(windowMs);
        continue;
      }
      entry.usedMs = this.#clock();
      if (!this.#isNotified && ttlMs >= closedTtlMsMin && this.#clock() - entry.readMs > ttlMs / 2)
        ageing.push(windowMs);
      if (entry.digest !== undefined) found.set(windowMs, entry.digest);
    }
    return { found, missing, ageing };
  }

  get #isNotified(): boolean {
    return this.#options.changes !== undefined;
  }

  #ttlMsOf(endMs: number, nowMs: number): number {
    if (this.#isNotified) return notifiedTtlMs;
    const sinceMs = nowMs - endMs;
    return sinceMs < closesAfterMs ? this.#openTtlMs : closedTtlMs(sinceMs, this.#options.closedTtlMsMax);
  }

  /** Reads windows in the background, unless they are being read. */
  #refresh(group: Group<Query, Digest>, ageing: readonly number[]): void {
    if ([...group.reading].some((reading) => covers(reading, ageing))) return;
    this.#startReading(group, ageing)
      .done.join()
      .catch(() => undefined); // a reader receives the error once the entries have expired
  }

  /** A read in progress that returns the current state of all these windows. */
  #joinable({ reading }: Group<Query, Digest>, missing: readonly number[]): Reading<Digest> | undefined {
    return [...reading].find(
      (each) =>
        covers(each, missing) &&
        !each.done.isCancelled &&
        (this.#isNotified || this.#clock() - each.startedMs <= this.#openTtlMs) &&
        !missing.some((windowMs) => each.changed.has(windowMs)),
    );
  }

  /** Reads from the first of these windows to the last. */
  #startReading(group: Group<Query, Digest>, windows: readonly number[]): Reading<Digest> {
    const span: Span = {
      fromMs: windows[0]!,
      toMs: windows.at(-1)! + group.lengthMs,
      startedMs: this.#clock(),
      changed: new Set(),
    };
    const read = (signal: AbortSignal): Promise<ReadonlyMap<number, Digest>> =>
      this.#read(group, span, signal).finally(() => {
        group.reading.delete(reading);
        this.#dropIfEmpty(group);
      });
    const reading: Reading<Digest> = { ...span, done: new CoalescedRead(read) };
    group.reading.add(reading);
    return reading;
  }

  /** Reads the rows of a span, and caches each window once its page is complete. Pages are ascending. */
  async #read(
    group: Group<Query, Digest>,
    { fromMs, toMs, changed, startedMs }: Span,
    signal: AbortSignal,
  ): Promise<ReadonlyMap<number, Digest>> {
    const { read, digest } = this.#options;
    const digests = new Map<number, Digest>();
    let cachedMs = fromMs;
    const cacheUntil = (untilMs: number): void => {
      for (; cachedMs < untilMs; cachedMs += group.lengthMs)
        if (!changed.has(cachedMs)) this.#add(group, cachedMs, digests.get(cachedMs), startedMs);
    };
    for await (const page of read({ ...group.query, fromMs, toMs }, signal)) {
      const rowsOf = groupBy(page, ({ windowMs }) => windowMs);
      for (const [windowMs, rows] of rowsOf) digests.set(windowMs, digest(rows));
      cacheUntil(Math.max(...rowsOf.keys()) + group.lengthMs);
    }
    cacheUntil(toMs);
    return digests;
  }

  #add(group: Group<Query, Digest>, windowMs: number, digest: Digest | undefined, readMs: number): void {
    if ((group.windows.get(windowMs)?.readMs ?? -Infinity) > readMs) return; // a later read finished first
    this.#drop(group, windowMs);
    const ofDigest = digest === undefined ? 0 : this.#options.estimatedSize(digest);
    const weight = 1 + Math.floor(group.key.length / keyLengthPerWeight) + ofDigest;
    this.#makeRoom(weight, group);
    if (this.#weight + weight > this.#options.weightMax) return;
    group.windows.set(windowMs, { digest, readMs, weight, usedMs: this.#clock() });
    this.#weight += weight;
  }

  #drop({ windows }: Group<Query, Digest>, windowMs: number): void {
    this.#weight -= windows.get(windowMs)?.weight ?? 0;
    windows.delete(windowMs);
  }

  /** Removes a query without entries: there can be one for each value to filter by. */
  #dropIfEmpty(group: Group<Query, Digest>): void {
    if (group.windows.size === 0 && group.reading.size === 0 && this.#groups.get(group.key) === group)
      this.#groups.delete(group.key);
  }

  /**
   * Evicts the least recently used queries, and windows of the current query, `last`, that its range no longer
   * covers.
   */
  #makeRoom(wanted: number, last: Group<Query, Digest>): void {
    for (const [key, group] of this.#groups) {
      if (this.#weight + wanted <= this.#options.weightMax) return;
      for (const [windowMs, { usedMs }] of group.windows)
        if (group !== last || this.#clock() - usedMs > unusedMs) this.#drop(group, windowMs);
      if (group !== last && group.reading.size === 0) this.#groups.delete(key);
    }
  }
}

function covers({ fromMs, toMs }: TimeRange, windows: readonly number[]): boolean {
  return fromMs <= windows[0]! && windows.at(-1)! < toMs;
}
