/** From rollup rows to figures: pure, and the same for every store. */
import type { Histogram } from '../../shared/histogram.js';
import { addTally, emptyTally, type RollupRow, type Tally } from '../../shared/rollup.js';
import { groupBy } from '../../shared/group-by.js';
import { pairHost, pairsOf, type Pair, type PairRow } from './pair.js';
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
  /** Of the latencies; not to be changed. */
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

/** What is known of some requests of one window. Not changed any more once the digest is made. */
interface Sum extends Tally {
  readonly statuses: Map<number, number>;
}

/** What a page needs of a window's rows: far fewer sums than rows, which add up with those of other windows. */
export interface WindowDigest {
  readonly sources: ReadonlyMap<string, SourceDigest>;
  /** Of `sources`, by host: for `pairsOf`. */
  readonly pairRows: readonly PairRow[];
}

interface SourceDigest {
  readonly all: Sum;
  readonly hosts: ReadonlyMap<string, Sum>;
  readonly methods: ReadonlyMap<string, Sum>;
  /** Of `all`. */
  readonly figures: WindowFigures;
}

/** Makes the digest of the rows of one window. */
export function digestOf(rows: readonly RollupRow[]): WindowDigest {
  const sources = new Map([...groupBy(rows, ({ series }) => series.source)].map(([source, ofSource]): [string, SourceDigest] => {
    const all = sumOfRows(ofSource);
    return [source, { all, hosts: sumsBy(ofSource, 'host'), methods: sumsBy(ofSource, 'method'), figures: withWindow(figuresOf([all]), ofSource[0]!.windowMs, source) }];
  }));
  return { sources, pairRows: [...sources].flatMap(([source, { hosts, figures }]) => pairRowsOf(hosts, { windowMs: figures.timeMs, source })) };
}

/** How many sums a digest holds: each has a histogram, of 3 kB at most as a rule. */
export function sumsIn({ sources }: WindowDigest): number {
  return [...sources.values()].reduce((count, { hosts, methods }) => count + 1 + hosts.size + methods.size, 0);
}

/** Adds rows up, by window and source and by source. */
export function fold(rows: readonly RollupRow[], grid: Grid): Fold {
  const byWindow = [...groupBy(rows, ({ windowMs }) => windowMs)].sort(([a], [b]) => a - b);
  return foldWindows(byWindow.map(([windowMs, ofWindow]) => ({ windowMs, digest: digestOf(ofWindow) })), grid);
}

/** Adds windows up. They come in the order of time, and are as long as the grid's or shorter. */
export function foldWindows(digests: readonly { readonly windowMs: number; readonly digest: WindowDigest }[], { fromMs, stepMs }: Grid): Fold {
  const windowOf = (timeMs: number): number => fromMs + Math.floor((timeMs - fromMs) / stepMs) * stepMs;
  const windows: WindowFigures[] = [];
  for (const [timeMs, together] of groupBy(digests, ({ windowMs }) => windowOf(windowMs))) {
    for (const [source, parts] of partsBySource(together)) {
      const { figures } = parts[0]!;
      windows.push(parts.length === 1 && figures.timeMs === timeMs ? figures : withWindow(figuresOf(parts.map(({ all }) => all)), timeMs, source));
    }
  }
  const bySource = partsBySource(digests);
  const ofFirst = bySource.values().next().value ?? [];
  return {
    windows,
    sources: new Map([...bySource].map(([source, parts]) => [source, figuresOf(parts.map(({ all }) => all))])),
    hosts: ranked(ofFirst.map(({ hosts }) => hosts)),
    methods: ranked(ofFirst.map(({ methods }) => methods)),
    pairs: pairsOf(digests.flatMap(({ digest }) => digest.pairRows), windowOf),
  };
}

/** By source, in the order of the page. */
function partsBySource(digests: readonly { readonly digest: WindowDigest }[]): Map<string, SourceDigest[]> {
  const parts = groupBy(digests.flatMap(({ digest }) => [...digest.sources]), ([source]) => source);
  return new Map([...parts].sort(([a], [b]) => compareSources(a, b)).map(([source, each]) => [source, each.map(([, part]) => part)]));
}

function pairRowsOf(hosts: ReadonlyMap<string, Sum>, { windowMs, source }: { windowMs: number; source: string }): PairRow[] {
  return [...hosts].map(([host, { count, durationSumMs, histogram, statuses }]) => ({ windowMs, source, host: pairHost(host), count, errors: countErrors(statuses), durationSumMs, histogram }));
}

/** How many of the requests that are counted are kept one by one, where not all are: see `request-sample.ts`. */
export interface Sampled {
  readonly kept: number;
  readonly of: number;
}

/** What is kept of the requests of some windows; `undefined` where all are. */
export function sampledIn(digests: readonly { readonly digest: WindowDigest }[]): Sampled | undefined {
  const all = digests.flatMap(({ digest }) => [...digest.sources.values()]);
  const sampledOut = all.reduce((sum, source) => sum + source.all.sampledOut, 0);
  const of = all.reduce((sum, source) => sum + source.all.count, 0);
  return sampledOut === 0 ? undefined : { kept: of - sampledOut, of };
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

function sumsBy(rows: readonly RollupRow[], key: 'host' | 'method'): Map<string, Sum> {
  return new Map([...groupBy(rows, ({ series }) => series[key])].map(([value, ofValue]) => [value, sumOfRows(ofValue)]));
}

function sumOfRows(rows: readonly RollupRow[]): Sum {
  const tally = emptyTally();
  const statuses = new Map<number, number>();
  for (const row of rows) {
    addTally(tally, row);
    addCount(statuses, row.series.status, row.count);
  }
  return { ...tally, statuses };
}

/** The figures by value, most requests first. */
function ranked(windows: readonly ReadonlyMap<string, Sum>[]): Map<string, Figures> {
  const parts = groupBy(windows.flatMap((values) => [...values]), ([value]) => value);
  const figures = [...parts].map(([value, sums]) => [value, figuresOf(sums.map(([, sum]) => sum))] as const);
  return new Map(figures.sort(([a, { requests: requestsA }], [b, { requests: requestsB }]) => requestsB - requestsA || (a < b ? -1 : 1)));
}

function addCount(counts: Map<number, number>, status: number, count: number): void {
  counts.set(status, (counts.get(status) ?? 0) + count);
}

/** The figures of sums together. Their histograms are merged when a latency is asked for: of a list of hundreds, ten are shown. */
function figuresOf(sums: readonly Sum[]): Figures {
  let requests = 0;
  let bytes = 0;
  const statuses = new Map<number, number>();
  for (const sum of sums) {
    requests += sum.count;
    bytes += sum.sizeSum;
    for (const [status, count] of sum.statuses) addCount(statuses, status, count);
  }
  let clientErrors = 0;
  for (const [status, count] of statuses) if (status >= 400 && status <= 499 && status !== 401 && status !== 429) clientErrors += count;
  let tally: Tally | undefined;
  const whole = (): Tally => tally ??= tallyOf(sums);
  let latencyMs: Latency | undefined;
  return {
    requests,
    errors: countErrors(statuses),
    clientErrors,
    bytes,
    get latencyMs() { return latencyMs ??= latencyOf(whole()); },
    get histogram() { return whole().histogram; },
    statuses: new Map([...statuses].sort(([a], [b]) => a - b)),
  };
}

function tallyOf(sums: readonly Sum[]): Tally {
  const [first, ...others] = sums;
  if (first !== undefined && others.length === 0) return first;
  const tally = emptyTally();
  for (const sum of sums) addTally(tally, sum);
  return tally;
}

/** A spread would ask for the latencies. */
function withWindow(figures: Figures, timeMs: number, source: string): WindowFigures {
  const { requests, errors, clientErrors, bytes, statuses } = figures;
  return {
    timeMs, source, requests, errors, clientErrors, bytes, statuses,
    get latencyMs() { return figures.latencyMs; },
    get histogram() { return figures.histogram; },
  };
}

function countErrors(statuses: ReadonlyMap<number, number>): number {
  let errors = 0;
  for (const [status, count] of statuses) if (status >= 500 && status <= 599) errors += count;
  return errors;
}

/** The latency figures of a tally. */
export function latencyOf({ histogram, durationSumMs, durationMaxMs }: Omit<Tally, 'count' | 'sampledOut' | 'sizeSum'>): Latency {
  if (histogram.total === 0) return { mean: null, p50: null, p95: null, p99: null, max: null };
  // The middle of the highest bucket can lie above the greatest value that was seen.
  const percentile = (quantile: number): number => Math.min(histogram.quantile(quantile) ?? 0, durationMaxMs);
  return { mean: durationSumMs / histogram.total, p50: percentile(0.5), p95: percentile(0.95), p99: percentile(0.99), max: durationMaxMs };
}

function compareSources(a: string, b: string): number {
  return Number(b === caddySource) - Number(a === caddySource) || (a < b ? -1 : a > b ? 1 : 0);
}
