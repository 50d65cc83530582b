/** What every store makes of a query of rollup rows. */
import { StoreError } from '../errors.js';
import type { Cell, Level, RollupRow, RowKey } from '../rollup.js';
import { needsRequests, type Filter, type HostCounts, type RollupsQuery, type TimeRange } from './store.js';

/** Throws a `StoreError` ('drop') for a query that rollups cannot answer: that is a bug of the caller. */
export function refuseRollups({ scope, filter }: RollupsQuery): void {
  if (needsRequests(filter)) throw new StoreError('drop', `Cannot read rollup rows by ${Object.keys(filter).join(', ')}: of these only source, host, method and status are known there. Use rollUpRequests.`);
  if (filter.host !== undefined && scope !== 'host') throw new StoreError('drop', `Cannot read rollup rows of scope ${scope} by host. Use scope host.`);
}

/** The range of the windows that start in a range: both ends move up to the start of a window. Rows of finer windows are then read for whole windows of the level. */
export function wholeWindows({ fromMs, toMs }: TimeRange, level: Level): TimeRange {
  const lengthMs = level * 1000;
  return { fromMs: Math.ceil(fromMs / lengthMs) * lengthMs, toMs: Math.ceil(toMs / lengthMs) * lengthMs };
}

/** The part of a filter that whole rows are restricted by; their cells are by the rest. */
export function rowFilter({ source, exceptSource, host }: Filter): Filter {
  return { ...(source !== undefined && { source }), ...(exceptSource !== undefined && { exceptSource }), ...(host !== undefined && { host }) };
}

/** Whether a filter leaves out some cells of a row. */
export function isOfCells({ method, status }: { readonly method?: Filter['method'] | undefined; readonly status?: Filter['status'] | undefined }): boolean {
  return method !== undefined || status !== undefined;
}

/** Whether rows are read by class of status: a filter of cells needs each of them. */
export function isByClass({ scope, byClass = false, filter }: RollupsQuery): boolean {
  return byClass && scope === 'host' && !isOfCells(filter);
}

/** Whether a filter admits a row, by what all its cells have in common. */
export function takesRow({ source, exceptSource, host }: Filter, row: Pick<RowKey, 'source' | 'host'>): boolean {
  return (source === undefined || row.source === source) && row.source !== exceptSource && (host === undefined || row.host === host);
}

/** Whether a filter admits a cell of a row that it admits. */
export function takesCell({ method, status }: Filter, cell: Pick<Cell, 'method' | 'status'>): boolean {
  return (method === undefined || cell.method === method) && (status === undefined || (cell.status >= status.min && cell.status <= status.max));
}

/** The row with the cells that a filter admits; nothing if there are none. */
export function filteredRow(row: RollupRow, filter: Filter): RollupRow[] {
  if (row.source === filter.exceptSource) return [];
  if (!isOfCells(filter)) return [row];
  const cells = row.cells.filter((cell) => takesCell(filter, cell));
  return cells.length === 0 ? [] : [{ ...row, cells }];
}

/** Adds cells of a row of a host to its counts, by `hostKey`. */
export function addHostCells(counts: Map<string, HostCounts>, { source, host = '' }: Pick<RowKey, 'source' | 'host'>, cells: Iterable<Cell>): void {
  const found = { ...counts.get(hostKey(source, host)) ?? { source, host, requests: 0, errors: 0, clientErrors: 0, bytes: 0 } };
  for (const { status, count, sizeSum } of cells) {
    found.requests += count;
    if (status >= 500 && status <= 599) found.errors += count;
    if (status >= 400 && status <= 499) found.clientErrors += count;
    found.bytes += sizeSum;
  }
  counts.set(hostKey(source, host), found);
}

/** The same for whole rows. */
export function addHostRows(counts: Map<string, HostCounts>, rows: readonly RollupRow[]): void {
  for (const row of rows) addHostCells(counts, row, row.cells);
}

/** A key that no two hosts of a source share. */
export function hostKey(source: string, host: string): string {
  return `${source}\n${host}`;
}
