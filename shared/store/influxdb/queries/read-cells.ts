import { flux, type ParameterizedQuery } from '@influxdata/influxdb-client';
import { windowStart, type Level } from '../../../rollup/rollup.js';
import { fluxText } from '../flux-text.js';
import { parseTimestamp } from '../line-values.js';

/**
 * Runs a query and calls `onRow` with the cells of each row, in the order of `columns`. Missing columns and empty
 * cells are `undefined`.
 */
export type ReadCells = (
  query: ParameterizedQuery,
  columns: readonly string[],
  onRow: (cells: readonly (string | undefined)[]) => void,
) => Promise<void>;

/** The window and the row id in the time of a row. */
export function rowOfTime(time: string, level: Level): { windowMs: number; rowId: number } {
  const { timeMs, timeNs } = parseTimestamp(time);
  const windowMs = windowStart(timeMs, level);
  return { windowMs, rowId: (timeMs - windowMs) * 1e6 + timeNs };
}

/** The last whole day that fits into 64 bits of nanoseconds. An open end would be now, by the server's clock. */
export const timeMsMax = Date.UTC(2262, 3, 11);
/** Maximum number of attempts to read rows whose fields become visible one after another. */
export const triesMax = 5;

/** Reads almost nothing. Fails if the bucket cannot be read. */
export async function readNothing(read: ReadCells, bucket: string): Promise<void> {
  await read(
    flux`from(bucket: ${fluxText(bucket)}) |> range(start: -1s) |> filter(fn: (r) => r._measurement == "collector_ledger") |> limit(n: 1)`,
    [],
    () => {},
  );
}
