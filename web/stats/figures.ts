/** Figures of requests, and how they add up. Pure. */
import { Histogram } from '../../shared/sketch/histogram.js';
import { mergeAggregate, emptyAggregate, type Cell, type Aggregate } from '../../shared/rollup/rollup.js';
import { isClientError, isServerError } from '../../shared/status.js';

/** Latencies in milliseconds; `null` if no request has one. */
export interface Latency {
  readonly mean: number | null;
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
  readonly max: number | null;
}

/** The figures of a set of requests. */
export interface Figures {
  readonly requests: number;
  /** Requests with a 5xx status. */
  readonly errors: number;
  /** Requests with a 4xx status. */
  readonly clientErrors: number;
  /** Bytes of the response bodies. */
  readonly bytes: number;
  readonly latencyMs: Latency;
  /** Histogram of the latencies. Do not modify. */
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

/** Figures that can be added up. Immutable. */
export interface Sum extends Figures {
  readonly net: Net;
  readonly latencies: Latencies;
}

/** Total counts of the rows. Corrections (`count: -1`) can make them negative; `Figures` clamp them to zero. */
interface Net {
  /** Requests that are counted but not sampled. */
  readonly sampledOut: number;
  readonly bytes: number;
  readonly statuses: ReadonlyMap<number, number>;
}

/** The aggregate that latency figures are computed from. */
type Latencies = Pick<Aggregate, 'durationSumMs' | 'durationMaxMs' | 'histogram'>;

/** Returns the sum of cells. */
export function sumOfCells(cells: readonly Cell[]): Sum {
  const sum = new CellSum();
  for (const cell of cells) sum.add(cell);
  return sum.sum();
}

/** Adds up cells incrementally. */
export class CellSum {
  readonly #aggregate = emptyAggregate();
  readonly #statuses = new Map<number, number>();

  add(cell: Cell): void {
    mergeAggregate(this.#aggregate, cell);
    addCount(this.#statuses, cell.status, cell.count);
  }

  /** Returns the sum of the cells so far. Do not add cells afterwards. */
  sum(): Sum {
    return sumWith(
      { sampledOut: this.#aggregate.sampledOut, bytes: this.#aggregate.sizeSum, statuses: this.#statuses },
      () => this.#aggregate,
    );
  }
}

/** Adds up sums. Merges their histograms lazily: a page shows ten of hundreds of values. */
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

/** Returns the sum as that of one source in one window. A spread would compute the lazy latencies. */
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

/** Returns the share of a part in a whole; `null` if the whole is 0. */
export function shareOf(part: number, whole: number): number | null {
  return whole > 0 ? part / whole : null;
}

/** Computes the latency figures of an aggregate. */
export function latencyOf({ histogram, durationSumMs, durationMaxMs }: Latencies): Latency {
  if (histogram.total <= 0) return { mean: null, p50: null, p95: null, p99: null, max: null };
  // The midpoint of the highest bucket can exceed the maximum.
  const percentile = (quantile: number): number => Math.min(histogram.quantile(quantile) ?? 0, durationMaxMs);
  return {
    mean: Math.max(0, durationSumMs / histogram.total),
    p50: percentile(0.5),
    p95: percentile(0.95),
    p99: percentile(0.99),
    max: durationMaxMs,
  };
}
