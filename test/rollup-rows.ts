/** Rollup rows in tests. */
import { BatchAggregates } from '../shared/rollup/rollup-aggregator.js';
import {
  mergeAggregate,
  emptyAggregate,
  type RollupRow,
  type SeriesAggregate,
  type Aggregate,
} from '../shared/rollup/rollup.js';
import type { RequestEvent } from '../shared/request-event.js';

/** The sum of all cells of some rows. */
export function aggregateOf(rows: readonly RollupRow[]): Aggregate {
  const aggregate = emptyAggregate();
  for (const { cells } of rows) for (const cell of cells) mergeAggregate(aggregate, cell);
  return aggregate;
}

/** What requests add to the rollups, as the recorder of a batch counts it at `nowMs`. */
export function aggregatesOf(requests: readonly RequestEvent[], nowMs: number): SeriesAggregate[] {
  const counted = new BatchAggregates(() => nowMs);
  for (const request of requests) counted.add(request);
  return counted.take();
}
