/** What is told of some requests, and how it adds up: pure. */
import { Histogram } from '../../shared/sketch/histogram.js';
import { mergeAggregate, emptyAggregate, type Cell, type Aggregate } from '../../shared/rollup/rollup.js';
import { isClientError, isServerError } from '../../shared/status.js';

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
  /** Those with a status of 4xx. */
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
  readonly net: Net;
  readonly latencies: Latencies;
}

/**
 * The counts of the rows, added up. A correction takes requests away (`count: -1`), so any of them can be below zero.
 * `Figures` count what is below zero as zero.
 */
interface Net {
  /** Requests that are not kept one by one. */
  readonly sampledOut: number;
  readonly bytes: number;
  readonly statuses: ReadonlyMap<number, number>;
}

/** What latencies are told from. */
type Latencies = Pick<Aggregate, 'durationSumMs' | 'durationMaxMs' | 'histogram'>;

/** The sum of cells. */
export function sumOfCells(cells: readonly Cell[]): Sum {
  const sum = new CellSum();
  for (const cell of cells) sum.add(cell);
  return sum.sum();
}

/** Adds up cells, given one at a time. */
export class CellSum {
  readonly #aggregate = emptyAggregate();
  readonly #statuses = new Map<number, number>();

  add(cell: Cell): void {
    mergeAggregate(this.#aggregate, cell);
    addCount(this.#statuses, cell.status, cell.count);
  }

  /** The sum of the cells so far. Do not add more afterwards. */
  sum(): Sum {
    return sumWith(
      { sampledOut: this.#aggregate.sampledOut, bytes: this.#aggregate.sizeSum, statuses: this.#statuses },
      () => this.#aggregate,
    );
  }
}

/** Sums together. Their histograms are merged when a latency is asked for: of a list of hundreds, ten are shown. */
export function addSums(parts: readonly Sum[]): Sum {
  const [first, ...others] = parts;
  if (first !== undefined && others.length === 0) return first;
  const statuses = new Map<number, number>();
  let [sampledOut, bytes] = [0, 0];
  for (const { net } of parts) {
    sampledOut += net.sampledOut;
    bytes += net.bytes;
    for (const [status, count] of net.statuses) addCount(statuses, status, count);
  }
  return sumWith({ sampledOut, bytes, statuses }, () => {
    const all = { durationSumMs: 0, durationMaxMs: 0, histogram: new Histogram() };
    for (const {
      latencies: { durationSumMs, durationMaxMs, histogram },
    } of parts) {
      all.durationSumMs += durationSumMs;
      all.durationMaxMs = Math.max(all.durationMaxMs, durationMaxMs);
      all.histogram.merge(histogram);
    }
    return all;
  });
}

function sumWith(net: Net, latenciesOf: () => Latencies): Sum {
  const sorted = [...net.statuses].sort(([a], [b]) => a - b);
  const statuses = new Map(sorted.filter(([, count]) => count > 0));
  let [requests, errors, clientErrors] = [0, 0, 0];
  for (const [status, count] of statuses) {
    requests += count;
    if (isServerError(status)) errors += count;
    if (isClientError(status)) clientErrors += count;
  }
  let latencies: Latencies | undefined;
  const known = (): Latencies => (latencies ??= latenciesOf());
  let latencyMs: Latency | undefined;
  return {
    net: { ...net, statuses: new Map(sorted) },
    requests,
    errors,
    clientErrors,
    statuses,
    bytes: Math.max(0, net.bytes),
    get latencies() {
      return known();
    },
    get histogram() {
      return known().histogram;
    },
    get latencyMs() {
      return (latencyMs ??= latencyOf(known()));
    },
  };
}

function addCount(counts: Map<number, number>, status: number, count: number): void {
  counts.set(status, (counts.get(status) ?? 0) + count);
}

/** The same of one source in one window. A spread would ask for the latencies. */
export function withWindow(sum: Sum, timeMs: number, source: string): Sum & WindowFigures {
  const { net, requests, errors, clientErrors, bytes, statuses } = sum;
  return {
    timeMs,
    source,
    net,
    requests,
    errors,
    clientErrors,
    bytes,
    statuses,
    get latencies() {
      return sum.latencies;
    },
    get histogram() {
      return sum.histogram;
    },
    get latencyMs() {
      return sum.latencyMs;
    },
  };
}

/** The share of a part in a whole; `null` where the whole is nothing. */
export function shareOf(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

/** The latency figures of a tally. */
export function latencyOf({ histogram, durationSumMs, durationMaxMs }: Latencies): Latency {
  if (histogram.total <= 0) return { mean: null, p50: null, p95: null, p99: null, max: null };
  // The middle of the highest bucket can lie above the greatest value that was seen.
  const percentile = (quantile: number): number => Math.min(histogram.quantile(quantile) ?? 0, durationMaxMs);
  return {
    mean: Math.max(0, durationSumMs / histogram.total),
    p50: percentile(0.5),
    p95: percentile(0.95),
    p99: percentile(0.99),
    max: durationMaxMs,
  };
}
