/**
 * What was made of the rows of each window, kept so that a page reads the newest windows alone: a window that has ended
 * does not change any more, as a rule. An import can change it all the same, so that nothing is kept beyond doubt:
 *
 * - a store that tells of its changes is asked for a window again as soon as a batch has touched it. What was being
 *   read at that moment is
 *   not kept, since it may lack that batch;
 * - of a store to which others write as well, windows are asked for again after a time: the newest almost at once, the
 *   others
 *   after a tenth of the time since their end, within bounds. From half that time on they are read again while those who ask get what is kept: else every now and then
 *   somebody would wait for a whole range.
 *
 * Those who ask for the same windows at the same time wait for one read.
 */
import { groupBy } from '../../shared/group-by.js';
import type { StoreChanges } from '../../shared/store/changes.js';
import type { TimeRange } from '../../shared/store/store.js';
import { CoalescedRead } from './coalesce-reads.js';

/** What tells the rows of one query from those of another, besides the range. */
export interface WindowQuery {
  /** The length of a window, in seconds. */
  readonly level: number;
  /** All else that restricts the rows. */
  readonly [restriction: string]: unknown;
}

/** What was made of a window's rows. */
export interface Window<Digest> {
  readonly windowMs: number;
  readonly digest: Digest;
}

/** A cache over one kind of rows. */
export interface WindowCache<Query, Digest> {
  /** The windows of a range of whole windows that have rows, ascending. Throws what the read throws. */
  get(query: Query, range: TimeRange, nowMs: number, signal?: AbortSignal): Promise<Window<Digest>[]>;
  /** Drops what has changed. */
  forget(rows: readonly { readonly level: number; readonly windowMs: number }[]): void;
  /** Drops everything. */
  clear(): void;
  /** How many queries there are of which anything is kept, or being read. */
  readonly queries: number;
}

/** What a cache needs. */
export interface WindowCacheOptions<Query, Row, Digest> {
  /**
   * Reads in pages, each of which has all rows of its windows: what was read of a long range is kept even if the rest
   * is cancelled.
   */
  readonly read: (query: Query & TimeRange, signal: AbortSignal) => AsyncIterable<readonly Row[]>;
  readonly digest: (rows: readonly Row[]) => Digest;
  /** What a digest weighs; one more is added for the window itself. */
  readonly estimatedSize: (digest: Digest) => number;
  /**
   * What all digests may weigh together. Beyond it the queries that were asked least lately are dropped, and then no
   * more is kept.
   */
  readonly weightMax: number;
  /** `undefined` for a store to which others write as well. */
  readonly changes: StoreChanges | undefined;
  /** How long a window that has not ended is kept where others write, in milliseconds: 200. */
  readonly openTtlMs?: number;
  /**
   * How long a window that has ended long ago is kept where others write, in milliseconds: a minute. One that ended
   * later is kept for a tenth of the time since then.
   */
  readonly closedTtlMsMax?: number;
  /** Milliseconds of a clock that only goes forward. */
  readonly clock?: () => number;
}

/**
 * How long a window is kept where the store tells of its changes, in milliseconds: what is too old is deleted without a
 * word.
 */
export const notifiedTtlMs = 600_000;
/** How long a window that has ended is kept at least where others write, in milliseconds. */
export const closedTtlMsMin = 10_000;
/** And at most: an import, or what waited on a disk, changes old windows too. */
export const closedTtlMsMaxDefault = 60_000;
/** How long one is kept that has not, or not for long: a crowd costs the store no more reads than this lets through. */
const openTtlMsDefault = 200;
/** A window counts as ended so long after its end: lines come late, and clocks differ. */
export const closesAfterMs = 60_000;

/** What has not been asked for so long may go, in milliseconds: the page asks every few seconds. */
const unusedMs = 60_000;

/** So many characters of a query's key weigh as much as a window. */
const keyLengthPerWeight = 3000;

interface Kept<Digest> {
  /** `undefined` for a window without rows. */
  readonly digest: Digest | undefined;
  readonly readMs: number;
  readonly weight: number;
  usedMs: number;
}

interface Reading<Digest> extends TimeRange {
  readonly startedMs: number;
  /** Windows that have changed since it began. */
  readonly changed: Set<number>;
  readonly done: CoalescedRead<ReadonlyMap<number, Digest>>;
}

interface Group<Digest> {
  readonly key: string;
  readonly level: number;
  readonly windows: Map<number, Kept<Digest>>;
  readonly reading: Set<Reading<Digest>>;
}

/** Makes a cache that is empty. */
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
  /** By query, those that were asked least lately first. */
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
        const kept = group.windows.get(windowMs);
        const forMs = keptMs(windowMs + lengthMs, nowMs);
        if (kept === undefined || clock() - kept.readMs > forMs) missing.push(windowMs);
        else {
          kept.usedMs = clock();
          if (changes === undefined && forMs >= closedTtlMsMin && clock() - kept.readMs > forMs / 2)
            ageing.push(windowMs);
          if (kept.digest !== undefined) found.set(windowMs, kept.digest);
        }
      }
      if (ageing.length > 0 && ![...group.reading].some((reading) => covers(reading, ageing))) {
        startReading(group, query, { fromMs: ageing[0]!, toMs: ageing.at(-1)! + lengthMs })
          .done.join()
          .catch(() => undefined); // who asks when they are too old gets the error
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

    forget(rows) {
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

  function keptMs(endMs: number, nowMs: number): number {
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

  /** A read under way that gives all these windows as they are now. */
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
          fromMs = keepUntil(
            Math.max(fromMs, ...[...rowsOf.keys()].map((windowMs) => windowMs + query.level * 1000)),
            fromMs,
            digests,
          );
        }
        keepUntil(span.toMs, fromMs, digests);
        return digests;
      } finally {
        group.reading.delete(reading);
        dropIfEmpty(group);
      }
    }

    /** Keeps the windows of the pages so far. Pages come in the order of time. */
    function keepUntil(toMs: number, fromMs: number, digests: ReadonlyMap<number, Digest>): number {
      for (let windowMs = fromMs; windowMs < toMs; windowMs += query.level * 1000) {
        if (!changed.has(windowMs)) keep(group, windowMs, digests.get(windowMs), startedMs);
      }
      return toMs;
    }
  }

  function keep(group: Group<Digest>, windowMs: number, kept: Digest | undefined, readMs: number): void {
    if ((group.windows.get(windowMs)?.readMs ?? -Infinity) > readMs) return; // a read that began later was quicker
    drop(group, windowMs);
    const own = 1 + Math.floor(group.key.length / keyLengthPerWeight) + (kept === undefined ? 0 : estimatedSize(kept));
    makeRoom(own, group);
    if (weight + own > weightMax) return;
    group.windows.set(windowMs, { digest: kept, readMs, weight: own, usedMs: clock() });
    weight += own;
  }

  function drop(group: Group<Digest>, windowMs: number): void {
    weight -= group.windows.get(windowMs)?.weight ?? 0;
    group.windows.delete(windowMs);
  }

  /** A query that nothing is kept of is forgotten: there are as many as there are values to filter by. */
  function dropIfEmpty(group: Group<Digest>): void {
    if (group.windows.size === 0 && group.reading.size === 0 && groups.get(group.key) === group)
      groups.delete(group.key);
  }

  /**
   * Drops the queries that were asked least lately, and of `last`, the one that is being asked, what its range has left
   * behind.
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
 * How long what was read of a window is kept where others write, that long after its end, in milliseconds: what ended
 * lately is more likely to change.
 */
export function closedTtlMs(sinceEndMs: number, maxMs = closedTtlMsMaxDefault): number {
  return Math.min(maxMs, Math.max(closedTtlMsMin, sinceEndMs / 10));
}

function covers({ fromMs, toMs }: TimeRange, windows: readonly number[]): boolean {
  return fromMs <= windows[0]! && windows.at(-1)! < toMs;
}
