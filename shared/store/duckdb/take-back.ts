/** Undoes an import: see `Store.takeBack`. */
import { BIGINT, type DuckDBConnection } from '@duckdb/node-api';
import { groupBy } from '../../group-by.js';
import { importKey, unpackImported, type ImportedRequest } from '../../record/imported-requests.js';
import { splitNanoseconds, type RequestEvent } from '../../request-event.js';
import { importRowRange } from '../../rollup/rollup.js';

/** Maximum number of rows that one statement deletes. */
const rowsPerStatement = 5000;
const hourNs = 3_600_000_000_000n;

/**
 * Undoes an import in one transaction. Resolves to its number of requests. Throws DuckDB's errors, with the
 * transaction still open.
 */
export async function takeBack(connection: DuckDBConnection, importId: number): Promise<number> {
  await connection.run('BEGIN TRANSACTION');
  const id = [BigInt(importId)];
  const rows = await (
    await connection.run(
      'SELECT window_ms, source, to_base64(packed) FROM imported_request WHERE import_id = $1 ORDER BY window_ms',
      id,
      [BIGINT],
    )
  ).getRows();
  let requests = 0;
  for (const [windowMs, source, packed] of rows as [bigint, string, string][]) {
    const imported = unpackImported({ importId, rowId: 0, windowMs: Number(windowMs), source, packed });
    requests += imported.length;
    await deleteRows(connection, windowMs * 1_000_000n, source, imported);
  }
  const { from, to } = importRowRange(importId);
  await connection.run(
    'DELETE FROM request_top WHERE row_id >= $1 AND row_id < $2',
    [BigInt(from), BigInt(to)],
    [BIGINT, BIGINT],
  );
  for (const table of ['request_rollup', 'host_rollup', 'rollup_journal', 'imported_request'])
    await connection.run(`DELETE FROM ${table} WHERE import_id = $1`, id, [BIGINT]);
  await connection.run('COMMIT');
  return requests;
}

/** Deletes the rows of requests that are still stored, by time and key. */
async function deleteRows(
  connection: DuckDBConnection,
  hourStartNs: bigint,
  source: string,
  imported: readonly ImportedRequest[],
): Promise<void> {
  const byTime = groupBy(
    imported,
    ({ timeMs, timeNs, shiftNs }) => BigInt(timeMs) * 1_000_000n + BigInt(timeNs + shiftNs),
  );
  const lastNs = [...byTime.keys()].reduce((last, timeNs) => (timeNs > last ? timeNs : last), hourStartNs + hourNs);
  const stored = await (
    await connection.run(
      'SELECT rowid, time_ns, method, status_code, duration_ms, size, bytes_read, uri FROM request_metrics WHERE time_ns >= $1 AND time_ns <= $2 AND source = $3',
      [hourStartNs, lastNs, source],
    )
  ).getRows();
  const rowIds: bigint[] = [];
  for (const [rowId, timeNs, method, status, durationMs, size, bytesRead, uri] of stored as [
    bigint,
    bigint,
    string,
    number,
    number | null,
    bigint,
    bigint,
    string,
  ][]) {
    const candidates = byTime.get(timeNs);
    if (candidates === undefined) continue;
    const row = {
      ...splitNanoseconds(timeNs),
      source,
      method,
      status,
      durationMs,
      size: Number(size),
      bytesRead: Number(bytesRead),
      uri,
    } as RequestEvent;
    const at = candidates.findIndex((each) => importKey(row, each) === each.key);
    if (at < 0) continue;
    candidates.splice(at, 1);
    rowIds.push(rowId);
  }
  for (let from = 0; from < rowIds.length; from += rowsPerStatement)
    await connection.run(
      `DELETE FROM request_metrics WHERE rowid IN (${rowIds.slice(from, from + rowsPerStatement).join(', ')})`,
    );
}
