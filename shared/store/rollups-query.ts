/** How every store validates and filters a query of rollup rows, and counts hosts. */
import { StoreError } from '../errors.js';
import { countsOf } from '../rollup/cells.js';
import type { Cell, Level, RollupRow, RowKey } from '../rollup/rollup.js';
import { needsRequests, type Filter, type HostCounts, type RollupsQuery, type TimeRange } from './store.js';

/** Throws a `StoreError` ('hold') if rollups cannot answer the query, which is a bug of the caller. */
export function refuseRollups({ scope, filter }: RollupsQuery): void {
  if (needsRequests(filter))
    throw new StoreError(
      'hold',
      `Cannot read rollup rows by ${Object.keys(filter).join(', ')}: of these, rollups only have source, host, method and status. Use rollUpRequests.`,
    );
  if (filter.host !== undefined && scope !== 'host')
    throw new StoreError('hold', `Cannot read rollup rows of scope ${scope} by host. Use scope host.`);
}

/**
 * The range of the windows that start in a range: both ends move up to the start of a window. Rows of finer windows are
 * then read for whole windows of the level.
 */
export function wholeWindows({ fromMs, toMs }: TimeRange, level: Level): TimeRange {
  const lengthMs = level * 1000;
  return { fromMs: Math.ceil(fromMs / lengthMs) * lengthMs, toMs: Math.ceil(toMs / lengthMs) * lengthMs };
}

/** The part of a filter that applies to whole rows. The rest applies to their cells. */
export function rowFilter({ source, exceptSource, host }: Filter): Filter {
  return {
    ...(source !== undefined && { source }),
    ...(exceptSource !== undefined && { exceptSource }),
    ...(host !== undefined && { host }),
  };
}

/** Whether a filter applies to cells. */
export function filtersCells({
  method,
  status,
}: {
  readonly method?: Filter['method'] | undefined;
  readonly status?: Filter['status'] | undefined;
}): boolean {
  return method !== undefined || status !== undefined;
}

/** Whether to read cells merged by status class. A filter on cells needs the exact ones. */
export function readsByClass({ scope, byClass = false, filter }: RollupsQuery): boolean {
  return byClass && scope === 'host' && !filtersCells(filter);
}

/** Whether a row matches the part of a filter that applies to rows. */
export function matchesRow({ source, exceptSource, host }: Filter, row: Pick<RowKey, 'source' | 'host'>): boolean {
  return (
    (source === undefined || row.source === source) &&
    row.source !== exceptSource &&
    (host === undefined || row.host === host)
  );
}

/** Whether a cell matches the part of a filter that applies to cells. */
export function matchesCell({ method, status }: Filter, cell: Pick<Cell, 'method' | 'status'>): boolean {
  return (
    (method === undefined || cell.method === method) &&
    (status === undefined || (cell.status >= status.min && cell.status <= status.max))
  );
}

/** The row with its matching cells; empty if none match. */
export function filteredRow(row: RollupRow, filter: Filter): RollupRow[] {
  if (row.source === filter.exceptSource) return [];
  if (!filtersCells(filter)) return [row];
  const cells = row.cells.filter((cell) => matchesCell(filter, cell));
  return cells.length === 0 ? [] : [{ ...row, cells }];
}

/** Adds cells of a host's row to the counts of that host, by `hostKey`. */
export function addHostCells(
  counts: Map<string, HostCounts>,
  { source, host = '' }: Pick<RowKey, 'source' | 'host'>,
  cells: Iterable<Cell>,
): void {
  const { requests, errors, clientErrors, sizeSum } = countsOf(cells);
  addHostCounts(counts, { source, host, requests, errors, clientErrors, bytes: sizeSum });
}

/** Adds to the counts of a host, by `hostKey`. */
export function addHostCounts(counts: Map<string, HostCounts>, added: HostCounts): void {
  const key = hostKey(added.source, added.host);
  const known = counts.get(key);
  counts.set(
    key,
    known === undefined
      ? added
      : {
          source: added.source,
          host: added.host,
          requests: known.requests + added.requests,
          errors: known.errors + added.errors,
          clientErrors: known.clientErrors + added.clientErrors,
          bytes: known.bytes + added.bytes,
        },
  );
}

/** Adds the rows of hosts to their counts, by `hostKey`. */
export function addHostRows(counts: Map<string, HostCounts>, rows: readonly RollupRow[]): void {
  for (const row of rows) addHostCells(counts, row, row.cells);
}

/** A key that no two hosts of a source share. */
export function hostKey(source: string, host: string): string {
  return `${source}\n${host}`;
}
