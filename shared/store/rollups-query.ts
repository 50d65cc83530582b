/** What every store makes of a query of rollup rows. */
import { StoreError } from '../errors.js';
import type { RollupRow } from '../rollup.js';
import { needsRequests, type Filter, type RollupsQuery } from './store.js';

/** Throws a `StoreError` ('drop') for a query that rollups cannot answer: that is a bug of the caller. */
export function refuseRollups({ scope, filter }: RollupsQuery): void {
  if (needsRequests(filter)) throw new StoreError('drop', `Cannot read rollup rows by ${Object.keys(filter).join(', ')}: of these only source, host, method and status are known there. Use rollUpRequests.`);
  if (filter.host !== undefined && scope !== 'host') throw new StoreError('drop', `Cannot read rollup rows of scope ${scope} by host. Use scope host.`);
}

/** The row with the cells that a filter admits; nothing if there are none. */
export function filteredRow(row: RollupRow, { exceptSource, method, status }: Filter): RollupRow[] {
  if (row.source === exceptSource) return [];
  if (method === undefined && status === undefined) return [row];
  const cells = row.cells.filter((cell) => (method === undefined || cell.method === method) && (status === undefined || (cell.status >= status.min && cell.status <= status.max)));
  return cells.length === 0 ? [] : [{ ...row, cells }];
}
