import { HyperLogLog } from '../sketch/hyperloglog.js';
import { createMemo } from '../memo.js';
import type { RequestEvent } from '../request-event.js';
import { isClosing } from '../rollup/closing.js';
import { latencyBucketOf, randomRowIds, windowStart, type RowIds } from '../rollup/rollup.js';
import {
  hostClientsLevels,
  topDimensions,
  topListRetentionMs,
  topKinds,
  topLevels,
  topValueOf,
  type TopLevel,
  type TopRow,
} from './top-row.js';
import { SpaceSaving } from '../sketch/space-saving.js';

/**
 * Aggregates requests into rows of top lists and unique clients. Requests are counted at the finest level and merged
 * into the cumulative rows of all levels every `collectMs`.
 *
 * A row has thousands of bytes, so it is not written with every batch: at the interval `writeEveryMs` while its
 * window is open, and once after it has ended. If the process is killed, unwritten changes are lost.
 */
export interface TopListAggregator {
  /** Counts a request. Pass the `bucket` of its latency if it is already known. `country` is `''` if unknown. */
  add(event: RequestEvent, bucket?: number, country?: string): void;
  /** Whether `drain` would return rows. */
  isDue(nowMs: number): boolean;
  /** Returns the rows that are due, or with `all` every changed row, in their current state. */
  drain(nowMs: number, options?: { all?: boolean }): TopRow[];
}

/** How long requests are collected before they are merged into the rows, in milliseconds. */
const collectMs = 2000;
/** Minimum interval between writes of a row of an open window, in milliseconds. */
const writeEveryMs: Readonly<Record<TopLevel, number>> = { 60: 2000, 600: 5000, 3600: 20_000, 86_400: 60_000 };
/**
 * The same for clients of a host: a minimum, plus a time per open row, so that the load does not grow with the number
 * of hosts.
 */
const writeHostEveryMs = 60_000;
const writeHostEveryMsPerRow = 15;
/** The same for a window that has ended, for imports. */
const writeEndedEveryMs = 2000;
/** Maximum number of windows and sources to collect before merging immediately. */
const collectedMax = 100;

/** Collected requests of one source and window of the finest level. */
type Collected = {
  readonly source: string;
  readonly windowMs: number;
  readonly clients: HyperLogLog;
  readonly clientsByHost: Map<string, HyperLogLog>;
} & Readonly<Record<(typeof topDimensions)[number], SpaceSaving>>;

interface Digest {
  readonly pack: () => string;
}

interface OpenRow {
  readonly key: Omit<TopRow, 'packed'>;
  readonly digest: Digest;
  changedMs: number;
  writtenMs: number;
  changed: boolean;
}

/**
 * `listsOpenMax` and `clientsBytesMax` limit the memory. Beyond them, the least recently changed rows are written and
 * closed: see `isClosing`. A list occupies 20 to 100 kB, a sketch of clients at most 8 kB.
 */
export function createTopListAggregator({
  listsOpenMax = 500,
  clientsBytesMax = 48 * 2 ** 20,
  rowIds = randomRowIds(),
}: {
  listsOpenMax?: number;
  clientsBytesMax?: number;
  rowIds?: RowIds;
} = {}): TopListAggregator {
  let collected = new Map<string, Collected>();
  /** That of the last request, which usually is that of the next one. */
  let last: Collected | undefined;
  /** Clients by host, in windows of the finest level of `host_clients`. */
  let collectedHosts = new Map<string, Pick<Collected, 'source' | 'windowMs' | 'clientsByHost'>>();
  // Referrers repeat: this avoids truncating and hashing them for each request.
  const referrerOf = createMemo((referrer) => topValueOf.referrer({ referrer }));
  let mergedMs = -Infinity;
  let dueMs = Infinity;
  const lists = createOpenRows(() => new SpaceSaving(), { estimatedSize: () => 1, weightMax: listsOpenMax, rowIds });
  const clients = createOpenRows(() => new HyperLogLog(), {
    estimatedSize: ({ bytes }) => rowBytes + bytes,
    weightMax: clientsBytesMax,
    rowIds,
  });

  return {
    add(event, bucket = latencyBucketOf(event), country = '') {
      const entry = collectedOf(event.source, windowStart(event.timeMs, topLevels[0]));
      const { userAgent, clientIp } = event;
      // Unrolled: a loop would look up the properties by name.
      const path = topValueOf.path(event);
      if (path !== '') entry.path.add(path, event, bucket);
      const referrer = referrerOf(event.referrer);
      if (referrer !== '') entry.referrer.add(referrer, event, bucket);
      if (userAgent !== '') entry.user_agent.add(userAgent, event, bucket);
      if (clientIp !== '') entry.client.add(clientIp, event, bucket);
      if (country !== '') entry.country.add(country, event, bucket);
      if (event.error !== '') entry.error.add(event.error, event, bucket);
      if (event.upstream !== '') entry.upstream.add(event.upstream, event, bucket);
      if (clientIp === '') return;
      entry.clients.add(clientIp);
      let sketch = entry.clientsByHost.get(event.host);
      if (sketch === undefined) entry.clientsByHost.set(event.host, (sketch = new HyperLogLog()));
      sketch.add(clientIp);
    },

    isDue(nowMs) {
      // If the clock was set back, the other conditions would not be met for a long time.
      return (
        nowMs < mergedMs ||
        nowMs >= dueMs ||
        (collected.size > 0 && (nowMs - mergedMs >= collectMs || collected.size > collectedMax))
      );
    },

    drain(nowMs, { all = false } = {}) {
      if (!all && !this.isDue(nowMs)) return [];
      let oldestMs = collected.size > 0 ? Infinity : -Infinity;
      for (const { source, windowMs: finestMs, clients: ofAll, ...summaries } of collected.values()) {
        oldestMs = Math.min(oldestMs, finestMs);
        for (const level of topLevels) {
          const windowMs = windowStart(finestMs, level);
          if (isExpired(level, windowMs, nowMs)) continue;
          for (const dimension of topDimensions) {
            if (summaries[dimension].total > 0)
              lists.merge({ level, windowMs, source, host: '', kind: dimension }, summaries[dimension], nowMs);
          }
          if (summaries.client.total > 0)
            clients.merge({ level, windowMs, source, host: '', kind: 'unique_clients' }, ofAll, nowMs);
        }
      }
      for (const { source, windowMs: finestMs, clientsByHost } of collectedHosts.values()) {
        for (const level of hostClientsLevels) {
          const windowMs = windowStart(finestMs, level);
          if (isExpired(level, windowMs, nowMs)) continue;
          for (const [host, sketch] of clientsByHost)
            clients.merge({ level, windowMs, source, host, kind: 'host_clients' }, sketch, nowMs);
        }
      }
      collected = new Map();
      collectedHosts = new Map();
      last = undefined;
      mergedMs = nowMs;
      const rows = [...lists.drain(nowMs, { all, oldestMs }), ...clients.drain(nowMs, { all, oldestMs })];
      dueMs = Math.min(lists.dueMs(nowMs), clients.dueMs(nowMs));
      return rows;
    },
  };

  function collectedOf(source: string, windowMs: number): Collected {
    if (last?.windowMs === windowMs && last.source === source) return last;
    const key = `${windowMs}\n${source}`;
    last =
      collected.get(key) ??
      emptyCollected(source, windowMs, clientsByHostOf(source, windowStart(windowMs, hostClientsLevels[0]!)));
    collected.set(key, last);
    return last;
  }

  function clientsByHostOf(source: string, windowMs: number): Collected['clientsByHost'] {
    const key = `${windowMs}\n${source}`;
    let ofHosts = collectedHosts.get(key);
    if (ofHosts === undefined) collectedHosts.set(key, (ofHosts = { source, windowMs, clientsByHost: new Map() }));
    return ofHosts.clientsByHost;
  }
}

/** Whether a row is too old to be read: it would soon be deleted. */
function isExpired(level: TopLevel, windowMs: number, nowMs: number): boolean {
  return nowMs - windowMs > (topListRetentionMs[level] ?? Infinity);
}

/** Estimated size of an open row without its digest, in bytes. */
const rowBytes = 300;

function emptyCollected(source: string, windowMs: number, clientsByHost: Collected['clientsByHost']): Collected {
  return {
    source,
    windowMs,
    clients: new HyperLogLog(),
    clientsByHost,
    path: new SpaceSaving(),
    referrer: new SpaceSaving(),
    user_agent: new SpaceSaving(),
    client: new SpaceSaving(),
    error: new SpaceSaving(),
    upstream: new SpaceSaving(),
    country: new SpaceSaving(),
  };
}

type RowKey = Omit<TopRow, 'packed' | 'rowId'>;

interface OpenRows<Kind> {
  merge(key: RowKey, part: Kind, nowMs: number): void;
  /** `oldestMs` as in `isClosing`. */
  drain(nowMs: number, options: { all: boolean; oldestMs: number }): TopRow[];
  /** Time at which the next row is due; `Infinity` if none has changed. */
  dueMs(nowMs: number): number;
}

function createOpenRows<Kind extends Digest & { merge(other: Kind): void }>(
  empty: () => Kind,
  { estimatedSize, weightMax, rowIds }: { estimatedSize: (digest: Kind) => number; weightMax: number; rowIds: RowIds },
): OpenRows<Kind> {
  // Least recently changed first.
  const open = new Map<string, OpenRow & { readonly digest: Kind }>();
  let weight = 0;

  return {
    merge(key, part, nowMs) {
      const text = `${key.level}\n${key.windowMs}\n${topKinds.indexOf(key.kind)}\n${key.source}\n${key.host}`;
      let row = open.get(text);
      const before = row === undefined ? 0 : estimatedSize(row.digest);
      if (row === undefined)
        row = {
          key: { ...key, rowId: rowIds.draw() },
          digest: empty(),
          changedMs: 0,
          writtenMs: -Infinity,
          changed: false,
        };
      else open.delete(text);
      open.set(text, row);
      row.digest.merge(part);
      weight += estimatedSize(row.digest) - before;
      row.changed = true;
      row.changedMs = nowMs;
    },

    drain(nowMs, { all, oldestMs }) {
      const rows: TopRow[] = [];
      const openBefore = open.size;
      for (const [text, row] of open) {
        const closes =
          weight > weightMax ||
          isClosing(
            { level: row.key.level, windowMs: row.key.windowMs, changedMs: row.changedMs },
            { open: weight, openMax: weightMax, oldestMs, nowMs },
          );
        if (row.changed && (all || closes || nowMs >= dueMsOf(row, nowMs, open.size))) {
          rows.push({ ...row.key, packed: row.digest.pack() });
          row.changed = false;
          row.writtenMs = nowMs;
        }
        if (!closes) continue;
        open.delete(text);
        weight -= estimatedSize(row.digest);
      }
      if (open.size < openBefore) rowIds.onClosed();
      return rows;
    },

    dueMs(nowMs) {
      let dueMs = Infinity;
      for (const row of open.values()) if (row.changed) dueMs = Math.min(dueMs, dueMsOf(row, nowMs, open.size));
      return dueMs;
    },
  };
}

/** Time at which to write a changed row, with `open` open rows. */
function dueMsOf(row: OpenRow, nowMs: number, open: number): number {
  const endMs = endOf(row);
  if (row.writtenMs > nowMs) return nowMs; // written before the clock was set back
  if (row.writtenMs < endMs && endMs <= nowMs) return endMs;
  return endMs <= nowMs
    ? row.writtenMs + writeEndedEveryMs
    : Math.min(
        endMs,
        row.writtenMs +
          (row.key.kind === 'host_clients'
            ? Math.max(writeHostEveryMs, open * writeHostEveryMsPerRow)
            : writeEveryMs[row.key.level]),
      );
}

function endOf({ key }: OpenRow): number {
  return key.windowMs + key.level * 1000;
}
