/** What only the edge and an app together can tell: pure. */
import { groupBy } from '../../shared/group-by.js';
import { addTally, emptyTally, type RollupRow, type Tally } from '../../shared/rollup.js';
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

/** One pair for each app that has a host in common with the edge. The rows may be of any windows; they are put together by `windowOf`. */
export function pairsOf(rows: readonly RollupRow[], windowOf: (timeMs: number) => number): Pair[] {
  const edge = rows.filter(({ series }) => series.source === caddySource);
  const edgeHosts = new Set(edge.map(({ series }) => hostName(series.host)));
  const apps = groupBy(rows.filter(({ series }) => series.source !== caddySource), ({ series }) => series.source);
  return [...apps].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([app, inside]) => {
    const hosts = new Set(inside.map(({ series }) => hostName(series.host)).filter((host) => edgeHosts.has(host)));
    if (hosts.size === 0) return [];
    const shared = edge.filter(({ series }) => hosts.has(hostName(series.host)));
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
function compare(edge: readonly RollupRow[], app: readonly RollupRow[], hosts: ReadonlySet<string>): PairFigures {
  const inside = app.filter(({ series }) => hosts.has(hostName(series.host)));
  const edgeTally = tallyOf(edge);
  const appTally = tallyOf(inside);
  const percentile = (quantile: number): number | null => difference(edgeTally.histogram.quantile(quantile), appTally.histogram.quantile(quantile));
  return {
    outsideMeanMs: difference(meanOf(edgeTally), meanOf(appTally)),
    outsideP50Ms: percentile(0.5),
    outsideP95Ms: percentile(0.95),
    edgeOnlyErrors: Math.max(0, errorsOf(edge) - errorsOf(inside)),
    bypassed: bypassedOf(edge, app),
  };
}

/** Host by host, so that traffic of one host through the edge does not hide what bypassed it on another. */
function bypassedOf(edge: readonly RollupRow[], app: readonly RollupRow[]): number {
  const edgeRows = groupBy(edge, ({ series }) => hostName(series.host));
  return [...groupBy(app, ({ series }) => hostName(series.host))].reduce((sum, [host, rows]) => sum + Math.max(0, countOf(rows) - countOf(edgeRows.get(host) ?? [])), 0);
}

/** Without the port, which the app may see and the edge not. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, '');
}

function tallyOf(rows: readonly RollupRow[]): Tally {
  const tally = emptyTally();
  for (const row of rows) addTally(tally, row);
  return tally;
}

function meanOf({ histogram, durationSumMs }: Tally): number | null {
  return histogram.total === 0 ? null : durationSumMs / histogram.total;
}

function difference(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a - b;
}

function countOf(rows: readonly RollupRow[]): number {
  return rows.reduce((sum, { count }) => sum + count, 0);
}

function errorsOf(rows: readonly RollupRow[]): number {
  return countOf(rows.filter(({ series: { status } }) => status >= 500 && status <= 599));
}
