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

/** A cache over one kind of rows. */
export interface WindowCache<Query, Digest> {
  /** Returns the windows with rows in a range of whole windows, ascending. Throws the error of the read. */
  get(query: Query, range: TimeRange, nowMs: number, signal?: AbortSignal): Promise<Window<Digest>[]>;
  /** Invalidates the windows of these rows. */
  invalidate(rows: readonly { readonly level: number; readonly windowMs: number }[]): void;
  /** Invalidates all windows. */
  clear(): void;
  /** Number of queries with cached windows or reads in progress. */
  readonly queries: number;
}

/** Options of `createWindowCache`. */
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
  /** Maximum of `closedTtlMs`, in milliseconds. Default: 60,000. */
  readonly closedTtlMsMax?: number;
  /** Monotonic clock, in milliseconds. */
  readonly clock?: () => number;
}

/** TTL if the store reports its changes, in milliseconds. It does not report the deletion of expired rows. */
export const notifiedTtlMs = 600_000;
/** Minimum TTL of a closed window if other processes write, in milliseconds. */
export const closedTtlMsMin = 10_000;
/** Maximum TTL of a closed window if other processes write: imports and spooled batches change old windows. */
export const closedTtlMsMaxDefault = 60_000;
/** TTL of an open window, in milliseconds. Limits the reads of many concurrent viewers. */
const openTtlMsDefault = 200;
/** Time from a window's end until it counts as closed, in milliseconds. Covers late lines and clock skew. */
export const closesAfterMs = 60_000;

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

interface Reading<Digest> extends TimeRange {
  readonly startedMs: number;
  /** Windows that have changed since the start of the read. */
  readonly changed: Set<number>;
  readonly done: CoalescedRead<ReadonlyMap<number, Digest>>;
}

interface Group<Digest> {
  readonly key: string;
  readonly level: number;
  readonly windows: Map<number, Entry<Digest>>;
  readonly reading: Set<Reading<Digest>>;
}

/** Creates an empty cache. */
export function createWindowCache<Query extends WindowQuery, Row extends { readonly windowMs: number }, Digest>(
  options: WindowCacheOptions<Query, Row, Digest>,
): WindowCache<Query, Digest> {
  const {
    read,
    digest,
    estimatedSize,
    weightMax,
    changes,
    openTtlMs = openTtlMsDefault,
    closedTtlMsMax = closedTtlMsMaxDefault,
    clock = () => performance.now(),
  } = options;
  /** By query, least recently used first. */
  const groups = new Map<string, Group<Digest>>();
  let weight = 0;

  return {
    get queries() {
      return groups.size;
    },

    async get(query, range, nowMs, signal) {
      const lengthMs = query.level * 1000;
      const group = groupOf(query);
      const found = new Map<number, Digest>();
      const missing: number[] = [];
      const ageing: number[] = [];
      for (let windowMs = range.fromMs; windowMs < range.toMs; windowMs += lengthMs) {
        const entry = group.windows.get(windowMs);
        const ttlMs = ttlMsOf(windowMs + lengthMs, nowMs);
        if (entry === undefined || clock() - entry.readMs > ttlMs) missing.push(windowMs);
        else {
          entry.usedMs = clock();
          if (changes === undefined && ttlMs >= closedTtlMsMin && clock() - entry.readMs > ttlMs / 2)
            ageing.push(windowMs);
          if (entry.digest !== undefined) found.set(windowMs, entry.digest);
        }
      }
      if (ageing.length > 0 && ![...group.reading].some((reading) => covers(reading, ageing))) {
        startReading(group, query, { fromMs: ageing[0]!, toMs: ageing.at(-1)! + lengthMs })
          .done.join()
          .catch(() => undefined); // a reader receives the error once the entries have expired
      }
      if (missing.length > 0) {
        const digests = await (
          joinable(group, missing) ??
          startReading(group, query, { fromMs: missing[0]!, toMs: missing.at(-1)! + lengthMs })
        ).done.join(signal);
        for (const windowMs of missing) {
          const fresh = digests.get(windowMs);
          if (fresh !== undefined) found.set(windowMs, fresh);
        }
      }
      return [...found].sort(([a], [b]) => a - b).map(([windowMs, each]) => ({ windowMs, digest: each }));
    },

    invalidate(rows) {
      for (const group of [...groups.values()]) {
        for (const { level, windowMs } of rows) {
          if (level !== group.level) continue;
          drop(group, windowMs);
          for (const reading of group.reading) reading.changed.add(windowMs);
        }
        dropIfEmpty(group);
      }
    },

    clear() {
      for (const group of [...groups.values()]) {
        const { level, windows, reading } = group;
        windows.clear();
        for (const { changed, fromMs, toMs } of reading) {
          for (let windowMs = fromMs; windowMs < toMs; windowMs += level * 1000) changed.add(windowMs);
        }
        dropIfEmpty(group);
      }
      weight = 0;
    },
  };

  function ttlMsOf(endMs: number, nowMs: number): number {
    if (changes !== undefined) return notifiedTtlMs;
    const sinceMs = nowMs - endMs;
    return sinceMs < closesAfterMs ? openTtlMs : closedTtlMs(sinceMs, closedTtlMsMax);
  }

  function groupOf(query: Query): Group<Digest> {
    const key = JSON.stringify(query);
    const group = groups.get(key) ?? { key, level: query.level, windows: new Map(), reading: new Set() };
    groups.delete(key);
    groups.set(key, group);
    return group;
  }

  /** A read in progress that returns the current state of all these windows. */
  function joinable(group: Group<Digest>, missing: readonly number[]): Reading<Digest> | undefined {
    return [...group.reading].find(
      (reading) =>
        covers(reading, missing) &&
        !reading.done.isCancelled &&
        (changes !== undefined || clock() - reading.startedMs <= openTtlMs) &&
        !missing.some((windowMs) => reading.changed.has(windowMs)),
    );
  }

  function startReading(group: Group<Digest>, query: Query, span: TimeRange): Reading<Digest> {
    const changed = new Set<number>();
    const startedMs = clock();
    const reading: Reading<Digest> = { ...span, startedMs, changed, done: new CoalescedRead(run) };
    group.reading.add(reading);
    return reading;

    async function run(signal: AbortSignal): Promise<ReadonlyMap<number, Digest>> {
      const digests = new Map<number, Digest>();
      try {
        let { fromMs } = span;
        for await (const page of read({ ...query, ...span }, signal)) {
          const rowsOf = groupBy(page, ({ windowMs }) => windowMs);
          for (const [windowMs, rows] of rowsOf) digests.set(windowMs, digest(rows));
          fromMs = storeUntil(
            Math.max(fromMs, ...[...rowsOf.keys()].map((windowMs) => windowMs + query.level * 1000)),
            fromMs,
            digests,
          );
        }
        storeUntil(span.toMs, fromMs, digests);
        return digests;
      } finally {
        group.reading.delete(reading);
        dropIfEmpty(group);
      }
    }

    /** Caches the windows of the pages so far. Pages are ascending. */
    function storeUntil(toMs: number, fromMs: number, digests: ReadonlyMap<number, Digest>): number {
      for (let windowMs = fromMs; windowMs < toMs; windowMs += query.level * 1000) {
        if (!changed.has(windowMs)) add(group, windowMs, digests.get(windowMs), startedMs);
      }
      return toMs;
    }
  }

  function add(group: Group<Digest>, windowMs: number, added: Digest | undefined, readMs: number): void {
    if ((group.windows.get(windowMs)?.readMs ?? -Infinity) > readMs) return; // a later read finished first
    drop(group, windowMs);
    const own =
      1 + Math.floor(group.key.length / keyLengthPerWeight) + (added === undefined ? 0 : estimatedSize(added));
    makeRoom(own, group);
    if (weight + own > weightMax) return;
    group.windows.set(windowMs, { digest: added, readMs, weight: own, usedMs: clock() });
    weight += own;
  }

  function drop(group: Group<Digest>, windowMs: number): void {
    weight -= group.windows.get(windowMs)?.weight ?? 0;
    group.windows.delete(windowMs);
  }

  /** Removes a query without entries: there can be one for each value to filter by. */
  function dropIfEmpty(group: Group<Digest>): void {
    if (group.windows.size === 0 && group.reading.size === 0 && groups.get(group.key) === group)
      groups.delete(group.key);
  }

  /**
   * Evicts the least recently used queries, and windows of the current query, `last`, that its range no longer
   * covers.
   */
  function makeRoom(wanted: number, last: Group<Digest>): void {
    for (const [key, group] of groups) {
      if (weight + wanted <= weightMax) return;
      for (const [windowMs, { usedMs }] of group.windows)
        if (group !== last || clock() - usedMs > unusedMs) drop(group, windowMs);
      if (group !== last && group.reading.size === 0) groups.delete(key);
    }
  }
}

/**
 * TTL of a closed window if other processes write, in milliseconds. Recently closed windows are more likely to
 * change.
 */
export function closedTtlMs(sinceEndMs: number, maxMs = closedTtlMsMaxDefault): number {
  return Math.min(maxMs, Math.max(closedTtlMsMin, sinceEndMs / 10));
}

function covers({ fromMs, toMs }: TimeRange, windows: readonly number[]): boolean {
  return fromMs <= windows[0]! && windows.at(-1)! < toMs;
}
