import { HyperLogLog } from '../sketch/hyperloglog.js';
import { createMemo } from '../memo.js';
import type { RequestEvent } from '../request-event.js';
import { isClosing, latencyBucketOf, randomRowIds, windowStart, type RowIds } from '../rollup/rollup.js';
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
 * Turns requests into the rows of the top lists and of the unique clients. A request touches the finest level; the rows
 * of all levels are merged from it every `gatherMs`, and are cumulative while their window is open.
 *
 * A row has thousands of bytes, so it is not written with every batch, but as `writeEveryMs` says, and once more when
 * its window has ended. A process that is killed takes with it what was not written.
 */
export interface TopListAggregator {
  /**
   * Counts a request; `bucket` is that of its latency, where it is known already, and `country` `''` where it is not
   * known.
   */
  add(event: RequestEvent, bucket?: number, country?: string): void;
  /** Whether `drain` would have something to give. */
  isDue(nowMs: number): boolean;
  /** The rows that are due, as they stand now; with `all`, every row that changed. */
  drain(nowMs: number, options?: { all?: boolean }): TopRow[];
}

/** How long requests gather before they are merged into the rows, in milliseconds. */
const gatherMs = 2000;
/** How often a row of an open window is written at most, in milliseconds. */
const writeEveryMs: Readonly<Record<TopLevel, number>> = { 60: 2000, 600: 5000, 3600: 20_000, 86_400: 60_000 };
/**
 * The same for the clients of a host: at least, and for each open row, so that the load does not grow with the number
 * of hosts.
 */
const writeHostEveryMs = 60_000;
const writeHostEveryMsPerRow = 15;
/** The same for a window that has ended, into which an import may be writing. */
const writeEndedEveryMs = 2000;
/** So many windows and sources may gather before they are merged at once. */
const gatheredMax = 100;

/** What gathers of one source in one window of the finest level. */
type Gathered = {
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
 * `listsOpenMax` and `clientsBytesMax` bound the memory: beyond them, the rows that did not change for longest are
 * written and closed; see `isClosing`. A list takes some 20 to 100 kB, a sketch of clients 8 kB at most.
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
  let gathered = new Map<string, Gathered>();
  /** The one of the last request: that of the next as a rule. */
  let last: Gathered | undefined;
  /** Clients by host, in windows of the finest level that has them. */
  let gatheredHosts = new Map<string, Pick<Gathered, 'source' | 'windowMs' | 'clientsByHost'>>();
  // The same ones again and again: they need not be cut, and hashed, for each request.
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
      const entry = gatheredOf(event.source, windowStart(event.timeMs, topLevels[0]));
      const { userAgent, clientIp } = event;
      // One by one: a loop over the dimensions looks each property up by its name.
      const path = topValueOf.path(event);
      if (path !== '') entry.path.add(path, event, bucket);
      const referrer = referrerOf(event.referrer);
      if (referrer !== '') entry.referrer.add(referrer, event, bucket);
      if (userAgent !== '') entry.user_agent.add(userAgent, event, bucket);
      if (clientIp !== '') entry.client.add(clientIp, event, bucket);
      if (country !== '') entry.country.add(country, event, bucket);
      if (clientIp === '') return;
      entry.clients.add(clientIp);
      let sketch = entry.clientsByHost.get(event.host);
      if (sketch === undefined) entry.clientsByHost.set(event.host, (sketch = new HyperLogLog()));
      sketch.add(clientIp);
    },

    isDue(nowMs) {
      // A clock that was put back comes to none of these times for long.
      return (
        nowMs < mergedMs ||
        nowMs >= dueMs ||
        (gathered.size > 0 && (nowMs - mergedMs >= gatherMs || gathered.size > gatheredMax))
      );
    },

    drain(nowMs, { all = false } = {}) {
      if (!all && !this.isDue(nowMs)) return [];
      let oldestMs = gathered.size > 0 ? Infinity : -Infinity;
      for (const { source, windowMs: finestMs, clients: ofAll, ...summaries } of gathered.values()) {
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
      for (const { source, windowMs: finestMs, clientsByHost } of gatheredHosts.values()) {
        for (const level of hostClientsLevels) {
          const windowMs = windowStart(finestMs, level);
          if (isExpired(level, windowMs, nowMs)) continue;
          for (const [host, sketch] of clientsByHost)
            clients.merge({ level, windowMs, source, host, kind: 'host_clients' }, sketch, nowMs);
        }
      }
      gathered = new Map();
      gatheredHosts = new Map();
      last = undefined;
      mergedMs = nowMs;
      const rows = [...lists.drain(nowMs, { all, oldestMs }), ...clients.drain(nowMs, { all, oldestMs })];
      dueMs = Math.min(lists.dueMs(nowMs), clients.dueMs(nowMs));
      return rows;
    },
  };

  function gatheredOf(source: string, windowMs: number): Gathered {
    if (last?.windowMs === windowMs && last.source === source) return last;
    const key = `${windowMs}\n${source}`;
    last =
      gathered.get(key) ??
      emptyGathered(source, windowMs, clientsByHostOf(source, windowStart(windowMs, hostClientsLevels[0]!)));
    gathered.set(key, last);
    return last;
  }

  function clientsByHostOf(source: string, windowMs: number): Gathered['clientsByHost'] {
    const key = `${windowMs}\n${source}`;
    let ofHosts = gatheredHosts.get(key);
    if (ofHosts === undefined) gatheredHosts.set(key, (ofHosts = { source, windowMs, clientsByHost: new Map() }));
    return ofHosts.clientsByHost;
  }
}

/** Whether a row of a window is too old to be read, and would be deleted soon. */
function isExpired(level: TopLevel, windowMs: number, nowMs: number): boolean {
  return nowMs - windowMs > (topListRetentionMs[level] ?? Infinity);
}

/** Estimated size of an open row without its digest, in bytes. */
const rowBytes = 300;

function emptyGathered(source: string, windowMs: number, clientsByHost: Gathered['clientsByHost']): Gathered {
  return {
    source,
    windowMs,
    clients: new HyperLogLog(),
    clientsByHost,
    path: new SpaceSaving(),
    referrer: new SpaceSaving(),
    user_agent: new SpaceSaving(),
    client: new SpaceSaving(),
    country: new SpaceSaving(),
  };
}

type RowKey = Omit<TopRow, 'packed' | 'rowId'>;

interface OpenRows<Kind> {
  merge(key: RowKey, part: Kind, nowMs: number): void;
  /** `oldestMs` as `isClosing` has it. */
  drain(nowMs: number, options: { all: boolean; oldestMs: number }): TopRow[];
  /** When the next row is due; `Infinity` when none has changed. */
  dueMs(nowMs: number): number;
}

function createOpenRows<Kind extends Digest & { merge(other: Kind): void }>(
  empty: () => Kind,
  { estimatedSize, weightMax, rowIds }: { estimatedSize: (digest: Kind) => number; weightMax: number; rowIds: RowIds },
): OpenRows<Kind> {
  // In the order in which they last changed.
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
          isClosing({ ...row.key, changedMs: row.changedMs }, { open: weight, openMax: weightMax, oldestMs, nowMs });
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

/** The time at which a changed row is written, while `open` rows are open. */
function dueMsOf(row: OpenRow, nowMs: number, open: number): number {
  const endMs = endOf(row);
  if (row.writtenMs > nowMs) return nowMs; // written before the clock was put back
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
