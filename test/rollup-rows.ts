/** Rollup rows in tests. */
import { BatchTallies } from '../shared/rollup/rollup-aggregator.js';
import { addTally, emptyTally, type RollupRow, type SeriesTally, type Tally } from '../shared/rollup/rollup.js';
import type { RequestEvent } from '../shared/request-event.js';

/** The sum of all cells of some rows. */
export function tallyOf(rows: readonly RollupRow[]): Tally {
  const tally = emptyTally();
  for (const { cells } of rows) for (const cell of cells) addTally(tally, cell);
  return tally;
}

/** What requests add to the rollups, as the recorder of a batch counts it at `nowMs`. */
export function talliesOf(requests: readonly RequestEvent[], nowMs: number): SeriesTally[] {
  const counted = new BatchTallies(() => nowMs);
  for (const request of requests) counted.add(request);
  return counted.take();
}
