/**
 * The tables of the embedded store.
 *
 * - `request_metrics`: a row per request. No index: DuckDB keeps the least and the greatest `time_ns` of every 122,880
 *   rows, and rows arrive in about the order of time.
 * - `request_rollup`: a row per window and source: counts, and packed cells by method and status (`packCells`). Written
 *   once, when the window closes; late
 *   requests add further rows. No index: rows arrive in about the order of time. `closed` numbers the transactions that wrote rows.
 * - `host_rollup`: the same by host. A row with many cells also has them merged by status class, for lists of hosts.
 * - `rollup_journal`: a copy of the open windows, which are in memory, for the start after a kill: see
 *   `open-windows.ts`. Compressed with zlib.
 * - `rollup_fold`: per level, the greatest `closed` of the finer rows that it includes: see `rollup-folds.ts`.
 * - `request_top`: a row per window, row id, source, host and kind, rewritten in place: a packed list or sketch,
 *   compressed with zlib (its first
 *   byte is 0x78), or as text in rows that a program before version 3 wrote.
 * - `caddy_event`: a row per minute and kind of event: see `EventFolder`. Rewritten while its minute lasts.
 * - `collector_ledger`: the newest ledger of each collector.
 * - `applied_batch`: the last batch of each writer, written in the batch's own transaction: a batch counts exactly
 *   once.
 * - `retention_state`: one row, what `RetentionGuard` remembers, as JSON.
 * - `imported_request`: what identifies the requests of imports, packed by hour and source: see `imported-requests.ts`.
 *   Written in the batch's
 *   transaction.
 * - `store_schema`: one row, the version of all this.
 *
 * Times in `_ns` and `_ms` are whole nanoseconds and milliseconds since 1970; `duration_ms` is a duration. Texts that
 * are not known are `''`, numbers that are not known NULL. A sum of sizes is a double, as it was in the recorder: it
 * cannot overflow, and is exact up to 2^53.
 */
import type { DuckDBConnection } from '@duckdb/node-api';
import { StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { eventTableSql } from './events.js';
import { convertSeriesRollups } from './rollup-tables.js';

/**
 * Migrations from an empty file to this program's tables, one version at a time. Append new ones; never change
 * existing ones, since the contents of files depend on them. See
 * docs/decisions/0035-steps-from-version-to-version.md.
 */
const steps: readonly (readonly (
  | string
  | ((connection: DuckDBConnection, options: SchemaOptions) => Promise<void>)
)[])[] = [
  // 1
  [
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
  ],
  // 2. Before there were migrations, version 1 grew: its files may lack some of this.
  [
    'ALTER TABLE request_metrics ALTER COLUMN duration_ms DROP NOT NULL',
    'ALTER TABLE request_metrics ADD COLUMN IF NOT EXISTS upstream_ms DOUBLE',
    "ALTER TABLE request_metrics ADD COLUMN IF NOT EXISTS request_id VARCHAR DEFAULT ''",
    `CREATE TABLE IF NOT EXISTS request_top (
      level INTEGER NOT NULL, window_ms BIGINT NOT NULL, row_id BIGINT NOT NULL, source VARCHAR NOT NULL, host VARCHAR NOT NULL,
      kind VARCHAR NOT NULL, packed VARCHAR NOT NULL,
      PRIMARY KEY (level, window_ms, row_id, source, host, kind)
    )`,
    "ALTER TABLE collector_ledger ADD COLUMN IF NOT EXISTS warnings VARCHAR DEFAULT '{}'",
  ],
  // 3
  [
    'ALTER TABLE request_rollup ADD COLUMN sampled_out BIGINT DEFAULT 0',
    // Recreated, since a change of a column's type by an expression cannot be replayed from the log (DuckDB 1.5.5): a
    // kill right after it would lose the file.
    'ALTER TABLE request_top RENAME TO request_top_as_text',
    `CREATE TABLE request_top (
      level INTEGER NOT NULL, window_ms BIGINT NOT NULL, row_id BIGINT NOT NULL, source VARCHAR NOT NULL, host VARCHAR NOT NULL,
      kind VARCHAR NOT NULL, packed BLOB NOT NULL,
      PRIMARY KEY (level, window_ms, row_id, source, host, kind)
    )`,
    'INSERT INTO request_top SELECT level, window_ms, row_id, source, host, kind, encode(packed) FROM request_top_as_text',
    'DROP TABLE request_top_as_text',
  ],
  // 4
  ['CREATE TABLE retention_state (state VARCHAR NOT NULL)'],
  // 5
  [
    'CREATE TABLE imported_request (import_id BIGINT NOT NULL, window_ms BIGINT NOT NULL, row_id BIGINT NOT NULL, source VARCHAR NOT NULL, packed BLOB NOT NULL)',
  ],
  // 6
  [
    'ALTER TABLE request_rollup RENAME TO series_rollup',
    ...(['request_rollup', 'host_rollup'] as const).map(
      (table) => `CREATE TABLE ${table} (
      level INTEGER NOT NULL, window_ms BIGINT NOT NULL, source VARCHAR NOT NULL, ${table === 'host_rollup' ? 'host VARCHAR NOT NULL, ' : ''}import_id BIGINT NOT NULL,
      requests BIGINT NOT NULL, errors BIGINT NOT NULL, client_errors BIGINT NOT NULL, sampled_out BIGINT NOT NULL, size_sum DOUBLE NOT NULL,
      cells VARCHAR NOT NULL, ${table === 'host_rollup' ? 'classes VARCHAR NOT NULL, ' : ''}closed BIGINT NOT NULL
    )`,
    ),
    'CREATE TABLE rollup_journal (import_id BIGINT NOT NULL, level INTEGER NOT NULL, window_ms BIGINT NOT NULL, packed BLOB NOT NULL)',
    'CREATE TABLE rollup_fold (scope VARCHAR NOT NULL, level INTEGER NOT NULL, closed BIGINT NOT NULL, folded_ms BIGINT NOT NULL)',
    convertSeriesRollups,
  ],
  // 7
  [
    ...['error', 'error_id', 'upstream'].map(
      (name) => `ALTER TABLE request_metrics ADD COLUMN ${name} VARCHAR DEFAULT ''`,
    ),
    'ALTER TABLE request_metrics ADD COLUMN retries DOUBLE',
    "ALTER TABLE request_metrics ADD COLUMN content_type VARCHAR DEFAULT ''",
    'ALTER TABLE collector_ledger ADD COLUMN events BIGINT DEFAULT 0',
    eventTableSql,
  ],
];

/** Dependencies of the migrations. */
export interface SchemaOptions {
  /** Now, in milliseconds since 1970. */
  readonly nowMs: number;
  /** Receives the progress of a long step. */
  readonly log: Pick<Log, 'info'>;
}

/** The version of the tables that this program writes. */
export const schemaVersion = steps.length;

/** Throws a `StoreError` ('stop') when the tables have another version than this program's. Changes nothing. */
export async function refuseOtherSchema(connection: Pick<DuckDBConnection, 'run'>, path: string): Promise<void> {
  const [table] = await (
    await connection.run("SELECT count(*)::INTEGER FROM duckdb_tables() WHERE table_name = 'store_schema'")
  ).getRows();
  if (table?.[0] === 0)
    throw new StoreError(
      'stop',
      `Cannot use the DuckDB file ${path}: it has no tables of this program. Set STORE to another file.`,
    );
  const [row] = await (await connection.run('SELECT max(version) FROM store_schema')).getRows();
  const version = Number(row?.[0] ?? 0);
  if (version === schemaVersion) return;
  throw new StoreError(
    'stop',
    version > schemaVersion
      ? newerSchema(path, version)
      : `Cannot read the DuckDB file ${path} with --read-only: its tables have version ${version}, and this program reads version ${schemaVersion}. Start a copy of it once without --read-only, which converts it; RETENTION_DELAY protects its data meanwhile.`,
  );
}

function newerSchema(path: string, version: number): string {
  return `Cannot use the DuckDB file ${path}: its tables have version ${version}, and this program knows version ${schemaVersion}. Upgrade the program, or set STORE to another file.`;
}

/**
 * Migrates the tables to this program's version, in one transaction, so that a crash leaves the old or the new
 * version. Throws a `StoreError` ('stop') if a newer program wrote them. Do not use the connection after an error.
 */
export async function prepareSchema(connection: DuckDBConnection, path: string, options: SchemaOptions): Promise<void> {
  await connection.run('BEGIN TRANSACTION');
  await connection.run('CREATE TABLE IF NOT EXISTS store_schema (version INTEGER NOT NULL)');
  const [row] = await (await connection.run('SELECT max(version) FROM store_schema')).getRows();
  const version = Number(row?.[0] ?? 0);
  if (version > schemaVersion) throw new StoreError('stop', newerSchema(path, version));
  for (const step of steps.slice(version).flat())
    await (typeof step === 'string' ? connection.run(step) : step(connection, options));
  if (version < schemaVersion) {
    await connection.run('DELETE FROM store_schema');
    await connection.run('INSERT INTO store_schema VALUES ($1)', [schemaVersion]);
  }
  await connection.run('COMMIT');
}
