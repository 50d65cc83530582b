/** What only the edge and an app together can tell: pure. */
import { groupBy } from '../../shared/group-by.js';
import { Histogram } from '../../shared/histogram.js';
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

/** What is known of some requests. */
interface Sum {
  /** Those with a status of 5xx. */
  readonly errors: number;
  readonly durationSumMs: number;
  readonly histogram: Histogram;
}

/** What one source knows of one host in one window. */
export interface PairRow extends Sum {
  readonly windowMs: number;
  readonly source: string;
  /** See `pairHost`. */
  readonly host: string;
  readonly count: number;
}

/** A host without the port, which the app may see and the edge not. */
export function pairHost(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, '');
}

/** One pair for each app that has a host in common with the edge. The rows may be of any windows; they are put together by `windowOf`. */
export function pairsOf(rows: readonly PairRow[], windowOf: (timeMs: number) => number): Pair[] {
  const bySource = groupBy(rows, ({ source }) => source);
  const edge = bySource.get(caddySource) ?? [];
  bySource.delete(caddySource);
  const edgeHosts = new Set(edge.map(({ host }) => host));
  return [...bySource].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([app, inside]) => {
    const hosts = new Set(inside.map(({ host }) => host).filter((host) => edgeHosts.has(host)));
    if (hosts.size === 0) return [];
    const shared = edge.filter(({ host }) => hosts.has(host));
    const edgeWindows = groupBy(shared, ({ windowMs }) => windowOf(windowMs));
    const appWindows = groupBy(inside, ({ windowMs }) => windowOf(windowMs));
    const timesMs = [...new Set([...edgeWindows.keys(), ...appWindows.keys()])].sort((a, b) => a - b);
    const windows = timesMs.map((timeMs) => {
      const [edgeRows, appRows] = [edgeWindows.get(timeMs) ?? [], appWindows.get(timeMs) ?? []];
      return { timeMs, edge: sumOf(edgeRows), app: sumOf(appRows.filter(({ host }) => hosts.has(host))), bypassed: bypassedOf(edgeRows, appRows) };
    });
    return [{
      app,
      ...compare(sumOf(windows.map((window) => window.edge)), sumOf(windows.map((window) => window.app)), bypassedOf(shared, inside)),
      windows: windows.map((window) => ({ timeMs: window.timeMs, ...compare(window.edge, window.app, window.bypassed) })),
    }];
  });
}

/** Of the hosts that both have seen. */
function compare(edge: Sum, app: Sum, bypassed: number): PairFigures {
  const percentile = (quantile: number): number | null => difference(edge.histogram.quantile(quantile), app.histogram.quantile(quantile));
  return {
    outsideMeanMs: difference(meanOf(edge), meanOf(app)),
    outsideP50Ms: percentile(0.5),
    outsideP95Ms: percentile(0.95),
    edgeOnlyErrors: Math.max(0, edge.errors - app.errors),
    bypassed,
  };
}

/** Host by host, so that traffic of one host through the edge does not hide what bypassed it on another. */
function bypassedOf(edge: readonly PairRow[], app: readonly PairRow[]): number {
  const beyond = new Map<string, number>();
  for (const { host, count } of app) beyond.set(host, (beyond.get(host) ?? 0) + count);
  for (const { host, count } of edge) beyond.set(host, (beyond.get(host) ?? 0) - count);
  let bypassed = 0;
  for (const count of beyond.values()) bypassed += Math.max(0, count);
  return bypassed;
}

function sumOf(parts: readonly Sum[]): Sum {
  let errors = 0;
  let durationSumMs = 0;
  const histogram = new Histogram();
  for (const part of parts) {
    errors += part.errors;
    durationSumMs += part.durationSumMs;
    histogram.merge(part.histogram);
  }
  return { errors, durationSumMs, histogram };
}

function meanOf({ durationSumMs, histogram }: Sum): number | null {
  return histogram.total === 0 ? null : durationSumMs / histogram.total;
}

function difference(a: number | null, b: number | null): number | null {
  return a === null || b === null ? null : a - b;
}
