/** Reads the figures of single hosts, and what compares Caddy with the apps over their common hosts. */
import { groupBy } from '../../shared/group-by.js';
import { caddySource } from '../../shared/request-event.js';
import type { Level, RollupRow } from '../../shared/rollup/rollup.js';
import type { Filter, TimeRange } from '../../shared/store/store.js';
import { alignRange, levelFor } from '../../shared/time-range.js';
import { CellSum } from '../stats/figures.js';
import { digestOf, foldWindows, hostListOf, merged, ranked, type HostList } from '../stats/fold.js';
import { pairedHosts, type Pair } from '../stats/pair.js';
import type { WindowDigest } from '../stats/window-digest.js';
import { hostParts, seriesFilter } from './plan.js';
import type { Reads } from './reads.js';

/** Maximum number of hosts to compare, without their ports. */
const pairedHostsMax = 200;
/** Maximum number of hosts in a cached read: more would evict the windows of pages. */
const cachedHostsMax = 20;
/** Maximum number of hosts in a statement. Beyond it, reading the rows of all hosts is faster. */
const namedHostsMax = 500;

/** The windows and hosts to read. */
interface HostDigestsQuery {
  /** Ascending. */
  readonly parts: readonly (TimeRange & { readonly level: Level })[];
  readonly filter: Filter;
  readonly hosts: readonly string[];
  /** Whether cells may be merged by status class. Default: yes. */
  readonly byClass?: boolean;
  readonly nowMs: number;
}

/**
 * Reads the hosts of a source, with the figures of the `hostsMax` busiest. Covers whole windows of the levels that
 * hosts have, which may exceed the range. Throws a `StoreError`.
 */
export async function readHosts(
  reads: Reads,
  filter: Filter,
  range: TimeRange,
  { source, hostsMax, nowMs }: { source: string | undefined; hostsMax: number; nowMs: number },
): Promise<HostList> {
  const parts = hostParts(range, nowMs);
  const counts = (await reads.readHostCounts({ parts, filter: seriesFilter(filter) }, nowMs)).filter(
    (host) => host.source === source && host.requests > 0,
  );
  const listed = counts
    .toSorted((one, other) => other.requests - one.requests || (one.host < other.host ? -1 : 1))
    .slice(0, hostsMax)
    .map(({ host }) => host);
  if (source === undefined || listed.length === 0) return hostListOf([], new Map());
  const query = { parts, filter: { ...seriesFilter(filter), source }, hosts: listed, nowMs };
  if (listed.length <= cachedHostsMax)
    return hostListOf(
      counts,
      ranked(merged(range.fromMs, await readHostDigests(reads, query)).sources.get(source)?.hosts),
    );
  const sums = new Map(listed.map((host) => [host, new CellSum()]));
  for await (const { host, cells } of streamHostRows(reads, query))
    for (const cell of cells) sums.get(host!)!.add(cell);
  return hostListOf(counts, ranked(new Map([...sums].map(([host, sum]) => [host, sum.sum()]))));
}

/** Compares Caddy with each app, over their common hosts. Throws a `StoreError`. */
export async function readSourcePairs(
  reads: Reads,
  filter: Filter,
  range: TimeRange,
  { stepMs, sources, nowMs }: { stepMs: number; sources: ReadonlyMap<string, unknown>; nowMs: number },
): Promise<readonly Pair[]> {
  if (!sources.has(caddySource) || sources.size < 2) return [];
  const hostLevel = levelFor(range, nowMs, 'host');
  const counts = await reads.readHostCounts({ parts: hostParts(range, nowMs), filter: seriesFilter(filter) }, nowMs);
  const hosts = pairedHosts(counts, pairedHostsMax);
  if (hosts.length === 0) return [];
  const aligned = alignRange(range, hostLevel);
  const digests = await readHostDigests(reads, {
    parts: [{ ...aligned, level: hostLevel }],
    filter: seriesFilter(filter),
    hosts,
    nowMs,
  });
  return foldWindows(digests, { fromMs: aligned.fromMs, stepMs: Math.max(stepMs, hostLevel * 1000) }).pairs;
}

/** Reads the windows of some hosts, ascending. Throws a `StoreError`. */
export async function readHostDigests(
  reads: Reads,
  { parts, filter, hosts, byClass = true, nowMs }: HostDigestsQuery,
): Promise<WindowDigest[]> {
  if (hosts.length <= cachedHostsMax) {
    const sorted = hosts.toSorted();
    const ofParts = await Promise.all(
      parts.map(({ level, ...range }) =>
        reads.readWindows({ level, scope: 'host', filter, hosts: sorted, byClass }, range, nowMs),
      ),
    );
    return ofParts.flat();
  }
  const rows: RollupRow[] = [];
  for await (const row of streamHostRows(reads, { parts, filter, hosts, byClass })) rows.push(row);
  return [...groupBy(rows, ({ windowMs }) => windowMs)]
    .sort(([one], [other]) => one - other)
    .map(([, ofWindow]) => digestOf(ofWindow));
}

/** Reads the rows of some hosts, part by part and window by window. Throws a `StoreError`. */
export async function* streamHostRows(
  reads: Reads,
  { parts, filter, hosts, byClass = true }: Omit<HostDigestsQuery, 'nowMs'>,
): AsyncGenerator<RollupRow> {
  const wanted = new Set(hosts);
  const named = wanted.size > namedHostsMax ? undefined : [...wanted];
  for (const part of wanted.size === 0 ? [] : parts) {
    for await (const rows of reads.streamRollups({ ...part, scope: 'host', filter, hosts: named, byClass })) {
      for (const row of rows) if (wanted.has(row.host!)) yield row;
    }
  }
}
