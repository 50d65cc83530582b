/** The cells of rollup rows: counting, merging and packing them. */
import { Histogram } from '../sketch/histogram.js';
import { isClientError, isServerError } from '../status.js';
import { copyAggregate, mergeAggregate, type Cell } from './rollup.js';

/** Merges cells by status class, such as 5xx. A merged cell has the method `''` and the first status of its class. */
export function byStatusClass(cells: Iterable<Cell>): Cell[] {
  const classes = new Map<number, Cell>();
  for (const cell of cells) {
    const status = Math.floor(cell.status / 100) * 100;
    const found = classes.get(status);
    if (found === undefined) classes.set(status, { ...copyAggregate(cell), method: '', status });
    else mergeAggregate(found, cell);
  }
  return [...classes.values()];
}

/** The counts of a row. */
export interface CellCounts {
  readonly requests: number;
  /** Requests with a 5xx status. */
  readonly errors: number;
  /** Requests with a 4xx status. */
  readonly clientErrors: number;
  readonly sampledOut: number;
  readonly sizeSum: number;
}

/** Adds up cells. */
export function countsOf(cells: Iterable<Cell>): CellCounts {
  const counts = { requests: 0, errors: 0, clientErrors: 0, sampledOut: 0, sizeSum: 0 };
  for (const { status, count, sampledOut, sizeSum } of cells) {
    counts.requests += count;
    if (isServerError(status)) counts.errors += count;
    if (isClientError(status)) counts.clientErrors += count;
    counts.sampledOut += sampledOut;
    counts.sizeSum += sizeSum;
  }
  return counts;
}

/**
 * Packs cells into text. Per cell: method, status, count, sampled-out requests, sum of sizes, sum and maximum of
 * latencies, and histogram.
 */
export function packCells(cells: Iterable<Cell>): string {
  let packed = '';
  for (const { method, status, count, sampledOut, sizeSum, durationSumMs, durationMaxMs, histogram } of cells) {
    const max = durationMaxMs === durationSumMs ? '' : durationMaxMs; // equal if there is one latency
    packed += `${packed === '' ? '' : ','}${encodeURIComponent(method)} ${status} ${count} ${sampledOut === 0 ? '' : sampledOut} ${sizeSum} ${durationSumMs} ${max} ${histogram.pack()}`;
  }
  return packed;
}

/** Parses the output of `packCells`. Throws a `RangeError` with the text that is not a cell. */
export function unpackCells(packed: string): Cell[] {
  if (packed === '') return [];
  return packed.split(',').map((text) => {
    const [method, status, count, sampledOut, sizeSum, durationSumMs, durationMaxMs, histogram] = text.split(' ');
    if (histogram === undefined) throw new RangeError(`${JSON.stringify(text)} is not a cell of a rollup row.`);
    return {
      method: decodeURIComponent(method!),
      status: Number(status),
      count: Number(count),
      sampledOut: Number(sampledOut),
      sizeSum: Number(sizeSum),
      durationSumMs: Number(durationSumMs),
      durationMaxMs: Number(durationMaxMs === '' ? durationSumMs : durationMaxMs),
      histogram: Histogram.unpack(histogram),
    };
  });
}
