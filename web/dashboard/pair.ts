/** What only the edge and an app together can tell: pure. */
import { groupBy } from '../../shared/group-by.js';
import { Histogram } from '../../shared/histogram.js';
import type { Tally } from '../../shared/rollup.js';
import { caddySource } from '../../shared/request-event.js';

/** An app beside the edge. Latencies and errors are of the hosts that both have seen. */
export interface PairFigures {
  /** Mean latency at the edge less that in the app, in milliseconds: the time outside the app. `null` without latencies. */
  readonly outsideMeanMs: number | null;
  /** Percentiles at the edge less those in the app, in milliseconds: not percentiles of the difference, which no count can tell. */
  readonly outsideP50Ms: number | null;
  readonly outsideP95Ms: number | null;
  /** 5xx at the edge beyond those of the app: it never produced them. */
  readonly edgeOnlyErrors: number;
  /** Requests of the app beyond those at the edge, on any host: they did not come through it. */
  readonly bypassed: number;
}

/** The same in one window, by its start in milliseconds since 1970. */
export interface PairWindow extends PairFigures {
  readonly timeMs: number;
}

/** An app over the whole range, and by window, ascending. */
export interface Pair extends PairFigures {
  readonly app: string;
  readonly windows: readonly PairWindow[];
}

/** What one source knows of one host in one window. */
export interface PairRow extends Tally {
  readonly windowMs: number;
  readonly source: string;
  readonly host: string;
  /** Requests with a status of 5xx. */
  readonly errors: number;
}

/** One pair for each app that has a host in common with the edge. The rows may be of any windows; they are put together by `windowOf`. */
export function pairsOf(rows: readonly PairRow[], windowOf: (timeMs: number) => number): Pair[] {
  const bySource = groupBy(rows, ({ source }) => source);
  const edge = bySource.get(caddySource) ?? [];
  bySource.delete(caddySource);
  const edgeHosts = new Set(edge.map(({ host }) => hostName(host)));
  return [...bySource].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([app, inside]) => {
    const hosts = new Set(inside.map(({ host }) => hostName(host)).filter((host) => edgeHosts.has(host)));
    if (hosts.size === 0) return [];
    const shared = edge.filter(({ host }) => hosts.has(hostName(host)));
    const edgeWindows = groupBy(shared, ({ windowMs }) => windowOf(windowMs));
    const appWindows = groupBy(inside, ({ windowMs }) => windowOf(windowMs));
    const timesMs = [...new Set([...edgeWindows.keys(), ...appWindows.keys()])].sort((a, b) => a - b);
    return [{
      app,
      ...compare(shared, inside, hosts),
      windows: timesMs.map((timeMs) => ({ timeMs, ...compare(edgeWindows.get(timeMs) ?? [], appWindows.get(timeMs) ?? [], hosts) })),
    }];
  });
}

/** `edge` is of the `hosts` that both have seen, and `app` of all that the app has seen. */
function compare(edge: readonly PairRow[], app: readonly PairRow[], hosts: ReadonlySet<string>): PairFigures {
  const inside = app.filter(({ host }) => hosts.has(hostName(host)));
  const edgeHistogram = histogramOf(edge);
  const appHistogram = histogramOf(inside);
  const percentile = (quantile: number): number | null => difference(edgeHistogram.quantile(quantile), appHistogram.quantile(quantile));
  return {
    outsideMeanMs: difference(meanOf(edge), meanOf(inside)),
    outsideP50Ms: percentile(0.5),
    outsideP95Ms: percentile(0.95),
    edgeOnlyErrors: Math.max(0, sumOf(edge, 'errors') - sumOf(inside, 'errors')),
    bypassed: bypassedOf(edge, app),
  };
}

/** Host by host, so that traffic of one host through the edge does not hide what bypassed it on another. */
function bypassedOf(edge: readonly PairRow[], app: readonly PairRow[]): number {
  const edgeRows = groupBy(edge, ({ host }) => hostName(host));
  return [...groupBy(app, ({ host }) => hostName(host))].reduce((sum, [host, rows]) => sum + Math.max(0, sumOf(rows, 'count') - sumOf(edgeRows.get(host) ?? [], 'count')), 0);
}

/** Without the port, which the app may see and the edge not. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, '');
}

function histogramOf(rows: readonly PairRow[]): Histogram {
  const histogram = new Histogram();
  for (const row of rows) histogram.merge(row.histogram);
  return histogram;
}

function meanOf(rows: readonly PairRow[]): number | null {
  let durationSumMs = 0;
  let count = 0;
  for (const row of rows) {
    durationSumMs += row.durationSumMs;
    count += row.histogram.total;
  }
  return count === 0 ? null : durationSumMs / count;
}

function difference(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a - b;
}

function sumOf(rows: readonly PairRow[], key: 'count' | 'errors'): number {
  return rows.reduce((sum, row) => sum + row[key], 0);
}
