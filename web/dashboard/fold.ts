/** From rollup rows to figures: pure, and the same for every store. */
import type { Histogram } from '../../shared/histogram.js';
import { addTally, emptyTally, type RollupRow, type Tally } from '../../shared/rollup.js';
import { pairsOf, type Pair } from './pair.js';
import { caddySource } from '../../shared/request-event.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';

/** Latencies in milliseconds; `null` where no request has one. */
export interface Latency {
  readonly mean: number | null;
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
  readonly max: number | null;
}

/** What is told of some requests. */
export interface Figures {
  readonly requests: number;
  /** Those with a status of 5xx. */
  readonly errors: number;
  /** Those with a status of 4xx, but for 401 and 429, which are how a site says no. */
  readonly clientErrors: number;
  /** Bytes of the responses' bodies. */
  readonly bytes: number;
  readonly latencyMs: Latency;
  /** Of the latencies. */
  readonly histogram: Histogram;
  /** Requests by status, ascending. */
  readonly statuses: ReadonlyMap<number, number>;
}

/** The figures of one source in one window. */
export interface WindowFigures extends Figures {
  /** The window's start, in milliseconds since 1970. */
  readonly timeMs: number;
  readonly source: string;
}

/** What a page shows of its rows. */
export interface Fold {
  /** By time, then by source. A window without requests of a source is left out: that is a gap, not a zero. */
  readonly windows: readonly WindowFigures[];
  /** By source: Caddy first, then by name. */
  readonly sources: ReadonlyMap<string, Figures>;
  /** Of the first source, since what passes through both edge and app would count twice; by requests, most first. */
  readonly hosts: ReadonlyMap<string, Figures>;
  /** The same by method. */
  readonly methods: ReadonlyMap<string, Figures>;
  readonly pairs: readonly Pair[];
}

/** The windows of a page: `stepMs` long, the first one starting at `fromMs`. */
export interface Grid {
  readonly fromMs: number;
  readonly stepMs: number;
}

/** Adds rows up, by window and source and by source. */
export function fold(rows: readonly RollupRow[], { fromMs, stepMs }: Grid): Fold {
  const windowOf = (rowMs: number): number => fromMs + Math.floor((rowMs - fromMs) / stepMs) * stepMs;
  const windows = new Map<string, { timeMs: number; source: string; sum: Sum }>();
  for (const row of rows) {
    const timeMs = windowOf(row.windowMs);
    const { source, status } = row.series;
    const key = `${timeMs} ${source}`;
    let window = windows.get(key);
    if (window === undefined) windows.set(key, window = { timeMs, source, sum: emptySum() });
    addTally(window.sum.tally, row);
    addCount(window.sum.statuses, status, row.count);
  }
  const sources = new Map<string, Sum>();
  for (const { source, sum } of windows.values()) {
    let total = sources.get(source);
    if (total === undefined) sources.set(source, total = emptySum());
    addTally(total.tally, sum.tally);
    for (const [status, count] of sum.statuses) addCount(total.statuses, status, count);
  }
  const [first] = [...sources.keys()].sort(compareSources);
  const ofFirst = rows.filter(({ series }) => series.source === first);
  return {
    hosts: topOf(ofFirst, ({ host }) => host),
    methods: topOf(ofFirst, ({ method }) => method),
    pairs: pairsOf(rows, windowOf),
    windows: [...windows.values()]
      .sort((a, b) => a.timeMs - b.timeMs || compareSources(a.source, b.source))
      .map(({ timeMs, source, sum }) => ({ timeMs, source, ...figuresOf(sum) })),
    sources: new Map([...sources]
      .sort(([a], [b]) => compareSources(a, b))
      .map(([source, sum]) => [source, figuresOf(sum)])),
  };
}

/** Whether the figures hold all requests: no line was lost, none is still on its way, and no read stopped at its limit. */
export function isComplete(ledgers: readonly LedgerSnapshot[], { bounded }: { bounded: boolean }): boolean {
  return !bounded && ledgers.every((ledger) => sumOf(ledger.dropped) === 0 && ledger.deadLettered === 0 && ledger.spooled === 0
    && !ledger.warnings['datagrams-lost'] && !ledger.warnings['earlier-spooled']);
}

/** The sum of counts by reason. */
export function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function topOf(rows: readonly RollupRow[], valueOf: (series: RollupRow['series']) => string): Map<string, Figures> {
  const sums = new Map<string, Sum>();
  for (const row of rows) {
    const value = valueOf(row.series);
    let sum = sums.get(value);
    if (sum === undefined) sums.set(value, sum = emptySum());
    addTally(sum.tally, row);
    addCount(sum.statuses, row.series.status, row.count);
  }
  return new Map([...sums].sort(([a, { tally: tallyA }], [b, { tally: tallyB }]) => tallyB.count - tallyA.count || (a < b ? -1 : 1)).map(([value, sum]) => [value, figuresOf(sum)]));
}

interface Sum {
  readonly tally: Tally;
  readonly statuses: Map<number, number>;
}

function emptySum(): Sum {
  return { tally: emptyTally(), statuses: new Map() };
}

function addCount(counts: Map<number, number>, status: number, count: number): void {
  counts.set(status, (counts.get(status) ?? 0) + count);
}

function figuresOf({ tally, statuses }: Sum): Figures {
  let errors = 0;
  let clientErrors = 0;
  for (const [status, count] of statuses) {
    if (status >= 500 && status <= 599) errors += count;
    if (status >= 400 && status <= 499 && status !== 401 && status !== 429) clientErrors += count;
  }
  return {
    requests: tally.count,
    errors,
    clientErrors,
    bytes: tally.sizeSum,
    /** Made when it is asked for: of two hundred hosts ten are shown. */
    get latencyMs() { return latencyOf(tally); },
    histogram: tally.histogram,
    statuses: new Map([...statuses].sort(([a], [b]) => a - b)),
  };
}

/** The latency figures of a tally. */
export function latencyOf({ histogram, durationSumMs, durationMaxMs }: Omit<Tally, 'count' | 'sizeSum'>): Latency {
  if (histogram.total === 0) return { mean: null, p50: null, p95: null, p99: null, max: null };
  // The middle of the highest bucket can lie above the greatest value that was seen.
  const percentile = (quantile: number): number => Math.min(histogram.quantile(quantile) ?? 0, durationMaxMs);
  return { mean: durationSumMs / histogram.total, p50: percentile(0.5), p95: percentile(0.95), p99: percentile(0.99), max: durationMaxMs };
}

function compareSources(a: string, b: string): number {
  return Number(b === caddySource) - Number(a === caddySource) || (a < b ? -1 : a > b ? 1 : 0);
}
