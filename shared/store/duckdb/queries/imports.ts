import type { DuckDBBlobValue } from '@duckdb/node-api';
import { importedBytes, type ImportedRow } from '../../../record/imported-requests.js';
import type { ImportSummary, TimeRange } from '../../store.js';
import { texts } from '../columns.js';
import type { Query } from '../read-pool.js';
import { BoundValues } from './bound-values.js';
import { windowsIn } from './conditions.js';
import { inTurns, topRowsPerTurn } from './in-turns.js';

/** See `Store.readImported`. */
export async function readImported(query: Query, range: TimeRange): Promise<ImportedRow[]> {
  const values = new BoundValues();
  const columns = await values.columnsOf(
    query,
    `SELECT import_id, window_ms, row_id, ${texts('source')}, packed FROM imported_request WHERE ${windowsIn(range, values).join(' AND ')}`,
  );
  const [importId, windowMs, rowId, source, packed] = columns as [
    bigint[],
    bigint[],
    bigint[],
    string[],
    DuckDBBlobValue[],
  ];
  return await inTurns(
    windowMs,
    (start, at) => ({
      importId: Number(importId[at]!),
      windowMs: Number(start),
      rowId: Number(rowId[at]!),
      source: source[at]!,
      packed: Buffer.from(packed[at]!.bytes).toString('base64'),
    }),
    topRowsPerTurn,
  );
}

/** See `Store.listImports`. */
export async function listImports(query: Query): Promise<ImportSummary[]> {
  // By text: DuckDB 1.5.5 groups few integers by their statistics, which are out of date while rows are inserted, and
  // then fails.
  const columns = await new BoundValues().columnsOf(
    query,
    `
    SELECT min(import_id), sum(octet_length(packed))::BIGINT, min(window_ms), max(window_ms) FROM imported_request GROUP BY import_id::VARCHAR ORDER BY 1`,
  );
  const [importId, bytes, first, last] = columns as [bigint[], bigint[], bigint[], bigint[]];
  return importId.map((id, at) => ({
    importId: Number(id),
    requests: Number(bytes[at]!) / importedBytes,
    firstHourMs: Number(first[at]!),
    lastHourMs: Number(last[at]!),
  }));
}
