/**
 * The tables of the embedded store.
 *
 * - `request_metrics`: a row per request. No index: DuckDB keeps the least and the greatest `time_ns` of every 122,880
 *   rows, and rows arrive in about the order of time.
 * - `request_rollup`: a row per window, row id and series, rewritten in place under its primary key.
 * - `request_top`: a row per window, row id, source, host and kind: a packed list or sketch, rewritten in place.
 * - `collector_ledger`: the newest ledger of each collector.
 * - `applied_batch`: the last batch of each writer, written in the batch's own transaction: a batch counts exactly once.
 * - `store_schema`: one row, the version of all this.
 *
 * Times in `_ns` and `_ms` are whole nanoseconds and milliseconds since 1970; `duration_ms` is a duration. Texts that are
 * not known are `''`, numbers that are not known NULL. A sum of sizes is a double, as it was in the recorder: it cannot overflow, and is exact up to 2^53.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { StoreError } from '../../errors.js';

/** The version of the tables that this program writes. */
export const schemaVersion = 1;

/** Makes the tables where there are none. Throws a `StoreError` ('stop') when a newer program made them. */
export async function prepareSchema(connection: DuckDBConnection, path: string): Promise<void> {
  await connection.run('CREATE TABLE IF NOT EXISTS store_schema (version INTEGER NOT NULL)');
  const [row] = await (await connection.run('SELECT max(version) FROM store_schema')).getRows();
  const version = row?.[0] ?? null;
  if (version === schemaVersion) {
    for (const statement of additions) await connection.run(statement);
    return;
  }
  if (version !== null) {
    throw new StoreError('stop', `Cannot use the DuckDB file ${path}: its tables have version ${String(version)}, and this program knows version ${schemaVersion}. Upgrade the program, or set STORE to another file.`);
  }
  await connection.run('BEGIN TRANSACTION');
  for (const statement of [...statements, ...additions]) await connection.run(statement);
  await connection.run('INSERT INTO store_schema VALUES ($1)', [schemaVersion]);
  await connection.run('COMMIT');
}

/** What files of the first release lack. Programs of then can go on with it: they do not look there. */
const additions = [
  `CREATE TABLE IF NOT EXISTS request_top (
    level INTEGER NOT NULL, window_ms BIGINT NOT NULL, row_id BIGINT NOT NULL, source VARCHAR NOT NULL, host VARCHAR NOT NULL,
    kind VARCHAR NOT NULL, packed VARCHAR NOT NULL,
    PRIMARY KEY (level, window_ms, row_id, source, host, kind)
  )`,
  "ALTER TABLE collector_ledger ADD COLUMN IF NOT EXISTS warnings VARCHAR DEFAULT '{}'",
];

const statements = [
  `CREATE TABLE request_metrics (
    time_ns BIGINT NOT NULL, source VARCHAR NOT NULL, host VARCHAR NOT NULL, method VARCHAR NOT NULL, status_code SMALLINT NOT NULL,
    endpoint VARCHAR NOT NULL, duration_ms DOUBLE, size BIGINT NOT NULL, bytes_read BIGINT NOT NULL, uri VARCHAR NOT NULL,
    client_ip VARCHAR NOT NULL, user_agent VARCHAR NOT NULL, referrer VARCHAR NOT NULL, protocol VARCHAR NOT NULL, tls VARCHAR NOT NULL,
    upstream_ms DOUBLE, request_id VARCHAR NOT NULL
  )`,
  `CREATE TABLE request_rollup (
    level INTEGER NOT NULL, window_ms BIGINT NOT NULL, row_id BIGINT NOT NULL, source VARCHAR NOT NULL, host VARCHAR NOT NULL,
    method VARCHAR NOT NULL, status_code SMALLINT NOT NULL, "count" BIGINT NOT NULL, duration_ms_sum DOUBLE NOT NULL,
    duration_ms_max DOUBLE NOT NULL, size_sum DOUBLE NOT NULL, histogram VARCHAR NOT NULL,
    PRIMARY KEY (level, window_ms, row_id, source, host, method, status_code)
  )`,
  `CREATE TABLE collector_ledger (
    collector VARCHAR PRIMARY KEY, time_ms BIGINT NOT NULL, received BIGINT NOT NULL, accepted BIGINT NOT NULL, runtime BIGINT NOT NULL,
    rejected VARCHAR NOT NULL, dropped VARCHAR NOT NULL, stored BIGINT NOT NULL, spooled BIGINT NOT NULL, in_memory BIGINT NOT NULL,
    dead_lettered BIGINT NOT NULL, last_line_ms BIGINT
  )`,
  'CREATE TABLE applied_batch (writer VARCHAR NOT NULL, sequence BIGINT NOT NULL, applied_ms BIGINT NOT NULL)',
];
