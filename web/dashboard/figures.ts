/** What is told of some requests, and how it adds up: pure. */
import { Histogram } from '../../shared/histogram.js';
import { addTally, emptyTally, type RollupRow, type Tally } from '../../shared/rollup.js';

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

/** Figures that add up with others. Not changed any more once they are made. */
export interface Sum extends Figures {
  /** Those of `requests` that are not kept one by one. */
  readonly sampledOut: number;
  readonly latencies: Latencies;
}

/** What latencies are told from. */
type Latencies = Pick<Tally, 'durationSumMs' | 'durationMaxMs' | 'histogram'>;

/** The sum of rows. */
export function sumOfRows(rows: readonly RollupRow[]): Sum {
  const tally = emptyTally();
  const statuses = new Map<number, number>();
  for (const row of rows) {
    addTally(tally, row);
    addCount(statuses, row.series.status, row.count);
  }
  return sumWith(tally, statuses, () => tally);
}

/** Sums together. Their histograms are merged when a latency is asked for: of a list of hundreds, ten are shown. */
export function addSums(parts: readonly Sum[]): Sum {
  const [first, ...others] = parts;
  if (first !== undefined && others.length === 0) return first;
  const counts = { count: 0, sampledOut: 0, sizeSum: 0 };
  const statuses = new Map<number, number>();
  for (const part of parts) {
    counts.count += part.requests;
    counts.sampledOut += part.sampledOut;
    counts.sizeSum += part.bytes;
    for (const [status, count] of part.statuses) addCount(statuses, status, count);
  }
  return sumWith(counts, statuses, () => {
    const all = { durationSumMs: 0, durationMaxMs: 0, histogram: new Histogram() };
    for (const { latencies: { durationSumMs, durationMaxMs, histogram } } of parts) {
      all.durationSumMs += durationSumMs;
      all.durationMaxMs = Math.max(all.durationMaxMs, durationMaxMs);
      all.histogram.merge(histogram);
    }
    return all;
  });
}

function sumWith({ count, sampledOut, sizeSum }: Pick<Tally, 'count' | 'sampledOut' | 'sizeSum'>, statuses: ReadonlyMap<number, number>, latenciesOf: () => Latencies): Sum {
  let errors = 0;
  let clientErrors = 0;
  for (const [status, requests] of statuses) {
    if (status >= 500 && status <= 599) errors += requests;
    if (status >= 400 && status <= 499 && status !== 401 && status !== 429) clientErrors += requests;
  }
  let latencies: Latencies | undefined;
  const known = (): Latencies => latencies ??= latenciesOf();
  let latencyMs: Latency | undefined;
  return {
    requests: count, sampledOut, errors, clientErrors, bytes: sizeSum,
    statuses: new Map([...statuses].sort(([a], [b]) => a - b)),
    get latencies() { return known(); },
    get histogram() { return known().histogram; },
    get latencyMs() { return latencyMs ??= latencyOf(known()); },
  };
}

function addCount(counts: Map<number, number>, status: number, count: number): void {
  counts.set(status, (counts.get(status) ?? 0) + count);
}

/** The same of one source in one window. A spread would ask for the latencies. */
export function withWindow(sum: Sum, timeMs: number, source: string): Sum & WindowFigures {
  const { requests, sampledOut, errors, clientErrors, bytes, statuses } = sum;
  return {
    timeMs, source, requests, sampledOut, errors, clientErrors, bytes, statuses,
    get latencies() { return sum.latencies; },
    get histogram() { return sum.histogram; },
    get latencyMs() { return sum.latencyMs; },
  };
}

/** The latency figures of a tally. */
export function latencyOf({ histogram, durationSumMs, durationMaxMs }: Latencies): Latency {
  if (histogram.total === 0) return { mean: null, p50: null, p95: null, p99: null, max: null };
  // The middle of the highest bucket can lie above the greatest value that was seen.
  const percentile = (quantile: number): number => Math.min(histogram.quantile(quantile) ?? 0, durationMaxMs);
  return { mean: durationSumMs / histogram.total, p50: percentile(0.5), p95: percentile(0.95), p99: percentile(0.99), max: durationMaxMs };
}
