import { rollUp } from '../../../rollup/rollup-aggregator.js';
import type { RollupRow } from '../../../rollup/rollup.js';
import type { RollupsQuery } from '../../store.js';
import { readRequests } from './raw-requests.js';
import type { ReadCells } from './read-cells.js';

/** Maximum number of raw requests that are counted, the newest of the range. */
const rolledUpMax = 20_000;

/**
 * See `Store.rollUpRequests`. InfluxDB stores the fields of a request separately, so requests have to be reassembled
 * to count by them.
 */
export async function rollUpRequests(
  read: ReadCells,
  bucket: string,
  { level, scope, ...query }: RollupsQuery,
  requestsMax = rolledUpMax,
): Promise<{ rows: RollupRow[]; isBounded: boolean }> {
  const requests = await readRequests(read, bucket, { ...query, limit: requestsMax + 1 });
  return { rows: rollUp(requests.slice(0, requestsMax), level, scope), isBounded: requests.length > requestsMax };
}
