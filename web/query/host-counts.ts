/** Requests per host of a range. Closed windows are cached until a batch changes them. */
import { levelsOf, windowStart, type Level, type RowKey } from '../../shared/rollup/rollup.js';
import type { StoreChanges } from '../../shared/store/changes.js';
import { addHostCounts, hostKey } from '../../shared/store/rollups-query.js';
import type { HostCounts, HostCountsQuery, TimeRange } from '../../shared/store/store.js';
import { coverRange } from '../../shared/time-range.js';
import { CoalescedRead } from './coalesce-reads.js';
import { closedTtlMs, closesAfterMs, notifiedTtlMs } from './window-ttl.js';

/** Options of `HostCountsCache`. */
export interface HostCountsOptions {
  /** Reads the counts of the hosts of some windows. */
  readonly read: (query: HostCountsQuery, signal: AbortSignal) => Promise<HostCounts[]>;
  /** `undefined` for a store that other processes write to: its closed windows expire after `closedTtlMs`. */
  readonly changes: StoreChanges | undefined;
  /** As in `WindowCacheOptions`. */
  readonly closedTtlMsMax?: number | undefined;
  /** Maximum number of hosts in all entries together. Default: 50,000, about 10 MB. */
  readonly hostsMax?: number;
  /** Monotonic clock, in milliseconds. */
  readonly clock?: () => number;
}

interface Entry {
  readonly parts: HostCountsQuery['parts'];
  readonly startedMs: number;
  readonly counts: CoalescedRead<ReadonlyMap<string, HostCounts>>;
  /** Number of hosts; 0 while they are being read. */
  hosts: number;
}

/** Caches requests per host. */
export class HostCountsCache {
  readonly #read: HostCountsOptions['read'];
  readonly #hostsMax: number;
  readonly #isNotified: boolean;
  readonly #closedTtlMsMax: number | undefined;
  readonly #clock: () => number;
  /** By filter and parts, least recently used first. */
  readonly #entries = new Map<string, Entry>();

  constructor({
    read,
    changes,
    closedTtlMsMax,
    hostsMax = 50_000,
    clock = () => performance.now(),
  }: HostCountsOptions) {
    this.#read = read;
    this.#hostsMax = hostsMax;
    this.#isNotified = changes !== undefined;
    this.#closedTtlMsMax = closedTtlMsMax;
    this.#clock = clock;
    changes?.listen(({ rollups }) => {
      this.#invalidate(rollups);
    });
    changes?.listenForExchange(() => {
      this.#entries.clear();
    });
  }

  /** Returns the counts of each host, in no particular order. Throws the error of the read. */
  async get({ parts, filter }: HostCountsQuery, nowMs: number, signal: AbortSignal): Promise<HostCounts[]> {
    const settledMs = nowMs - closesAfterMs;
    const { ended, open } = splitAt(parts, settledMs);
    const finer = splitAt(finerOf(open, settledMs), settledMs);
    const [counts, ...more] = await Promise.all([
      this.#cached({ parts: ended, filter }, nowMs, signal),
      this.#cached({ parts: finer.ended, filter }, nowMs, signal),
      finer.open.length === 0 ? undefined : this.#read({ parts: finer.open, filter }, signal),
    ]);
    const all = new Map(counts);
    for (const some of more) for (const each of some?.values() ?? []) addHostCounts(all, each);
    return [...all.values()];
  }

  async #cached(query: HostCountsQuery, nowMs: number, signal: AbortSignal): Promise<ReadonlyMap<string, HostCounts>> {
    if (query.parts.length === 0) return new Map();
    const key = JSON.stringify(query);
    let entry = this.#entries.get(key);
    this.#entries.delete(key);
    const ttlMs = this.#isNotified
      ? notifiedTtlMs
      : closedTtlMs(nowMs - Math.max(...query.parts.map(({ toMs }) => toMs)), this.#closedTtlMsMax);
    if (entry === undefined || entry.counts.isCancelled || this.#clock() - entry.startedMs > ttlMs)
      entry = this.#start(key, query);
    this.#entries.set(key, entry);
    return await entry.counts.join(signal);
  }

  #start(key: string, query: HostCountsQuery): Entry {
    const remove = (): void => {
      if (this.#entries.get(key) === entry) this.#entries.delete(key);
    };
    const read = async (cancelled: AbortSignal): Promise<ReadonlyMap<string, HostCounts>> => {
      try {
        const counts = new Map(
          (await this.#read(query, cancelled)).map((each) => [hostKey(each.source, each.host), each]),
        );
        entry.hosts = counts.size;
        this.#makeRoom();
        return counts;
      } catch (error) {
        remove();
        throw error;
      }
    };
    const entry: Entry = { parts: query.parts, startedMs: this.#clock(), counts: new CoalescedRead(read), hosts: 0 };
    return entry;
  }

  #makeRoom(): void {
    let hosts = [...this.#entries.values()].reduce((sum, entry) => sum + entry.hosts, 0);
    for (const [key, entry] of this.#entries) {
      if (hosts <= this.#hostsMax && this.#entries.size <= entriesMax) return;
      this.#entries.delete(key);
      hosts -= entry.hosts;
    }
  }

  #invalidate(rows: readonly RowKey[]): void {
    for (const [key, { parts }] of this.#entries) {
      if (
        rows.some(({ level, windowMs }) =>
          parts.some((part) => part.level === level && windowMs >= part.fromMs && windowMs < part.toMs),
        )
      )
        this.#entries.delete(key);
    }
  }
}

/** Splits open windows into finer ones: most hours of an open day have ended. */
export function refineOpen(parts: HostCountsQuery['parts'], nowMs: number): (TimeRange & { readonly level: Level })[] {
  const { ended, open } = splitAt(parts, nowMs);
  return [...ended, ...finerOf(open, nowMs)];
}

function finerOf(parts: HostCountsQuery['parts'], settledMs: number): (TimeRange & { readonly level: Level })[] {
  return parts.flatMap((part) =>
    coverRange(
      part,
      levelsOf.host.filter((level) => level <= part.level),
      settledMs,
    ),
  );
}

/** Splits parts into windows that had ended at `settledMs`, and open ones. */
function splitAt(
  parts: HostCountsQuery['parts'],
  settledMs: number,
): { ended: HostCountsQuery['parts']; open: HostCountsQuery['parts'] } {
  const cuts = parts.map((part) => ({
    ...part,
    cutMs: Math.min(part.toMs, Math.max(part.fromMs, windowStart(settledMs, part.level))),
  }));
  const ended = cuts.map(({ level, fromMs, cutMs }) => ({ level, fromMs, toMs: cutMs }));
  const open = cuts.map(({ level, cutMs, toMs }) => ({ level, fromMs: cutMs, toMs }));
  return { ended: ended.filter(isNotEmpty), open: open.filter(isNotEmpty) };
}

function isNotEmpty({ fromMs, toMs }: TimeRange): boolean {
  return fromMs < toMs;
}

/** Maximum number of entries: entries without hosts do not count towards `hostsMax`. */
const entriesMax = 100;
