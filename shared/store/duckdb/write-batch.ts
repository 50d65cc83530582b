/**
 * How a batch gets into the tables. Requests are appended (`request-appender.ts`). Rows that replace earlier ones cannot be: each of their columns
 * is one bound text, its values joined with NUL, which the statement splits again on DuckDB's threads.
 */
import { deflateSync } from 'node:zlib';
import { BIGINT, VARCHAR, type DuckDBConnection, type DuckDBPreparedStatement } from '@duckdb/node-api';
import type { ImportedRow } from '../../imported-requests.js';
import type { RollupRow } from '../../rollup.js';
import type { TopRow } from '../../top-row.js';
import type { Batch, LedgerSnapshot } from '../store.js';
import { createRequestAppender } from './request-appender.js';
import { runKept } from './statements.js';

/** Writes batches over one connection, each in a transaction of its own. */
export interface BatchWriter {
  /**
   * Writes a batch, unless its writer's number says that it is there already. Throws what DuckDB throws, with the transaction still open. Passes
   * the commit to `alone`, which must run it while no read is in progress: in DuckDB 1.5.5, a concurrent read can miss rows (decision 39).
   */
  write(batch: Batch, nowMs: number, alone: (commit: () => Promise<void>) => Promise<void>): Promise<void>;
  /** Whether a checkpoint is due, given the size of the write-ahead log in bytes: as soon as no read is in progress, or before the next batch. */
  checkpointDue(logBytes: number): 'when-idle' | 'now' | undefined;
  /** Runs a checkpoint. No read may be in progress. */
  checkpoint(): Promise<void>;
}

/** Prepares the statements once. The connection must be used for nothing else while a batch is written. */
export async function createBatchWriter(connection: DuckDBConnection, { logBytesMax }: { logBytesMax: number }): Promise<BatchWriter> {
  const appendRequests = createRequestAppender(connection);
  const upsertRollups = await connection.prepare(rollupsSql);
  const upsertTops = await connection.prepare(topsSql);
  const insertImported = await connection.prepare(insertSql('imported_request', importedColumns));
  let heldBytes = heldBytesMax; // by a log that is there already, if one is
  return {
    checkpointDue(logBytes) {
      if (heldBytes >= heldBytesMax || logBytes >= logBytesMax) return 'now';
      return heldBytes >= heldBytesWanted || logBytes >= logShareWanted * logBytesMax ? 'when-idle' : undefined;
    },

    async checkpoint() {
      await connection.run('CHECKPOINT');
      heldBytes = 0;
    },

    async write(batch, nowMs, alone) {
      await connection.run('BEGIN TRANSACTION');
      if (await isNew(connection, batch, nowMs)) {
        await appendRequests(batch.kept ?? batch.requests);
        heldBytes += await writeRows(upsertRollups, rollupColumns, batch.rollups, rowsPerStatement);
        heldBytes += await writeRows(upsertTops, topColumns, batch.tops, topRowsPerStatement);
        if (batch.imported !== undefined) heldBytes += await writeRows(insertImported, importedColumns, batch.imported, importedRowsPerStatement);
        if (batch.ledger !== undefined) await upsertLedger(connection, batch.ledger);
      }
      await alone(async () => { await connection.run('COMMIT'); });
    },
  };
}

/**
 * Until the next checkpoint, DuckDB keeps the log, and in its memory the texts of rows that were replaced, in blocks that grow by doubling. From
 * `heldBytesWanted` and `logShareWanted` on, a checkpoint is due as soon as no read is in progress; at the maximum it waits for the reads, and new ones wait for it.
 */
const heldBytesWanted = 8 * 2 ** 20;
const heldBytesMax = 2 * heldBytesWanted;
const logShareWanted = 0.75;

/** Bounds the texts that are built at once: JavaScript is kept busy for about 10 ms by so many requests. */
const rowsPerStatement = 5000;
/** A row of a list has some 10 kB. */
const topRowsPerStatement = 200;
/** A row of imported requests has up to 64 kB. */
const importedRowsPerStatement = 50;

async function isNew(connection: DuckDBConnection, { writer, sequence }: Batch, nowMs: number): Promise<boolean> {
  const result = await runKept(connection, 'SELECT sequence FROM applied_batch WHERE writer = $1', [writer], [VARCHAR]);
  const last = result.rowCount === 0 ? undefined : result.getChunk(0).getColumnValues(0)[0];
  if (typeof last === 'bigint' && last >= BigInt(sequence)) return false;
  await runKept(
    connection,
    last === undefined
      ? 'INSERT INTO applied_batch (writer, sequence, applied_ms) VALUES ($1, $2, $3)'
      : 'UPDATE applied_batch SET sequence = $2, applied_ms = $3 WHERE writer = $1',
    [writer, BigInt(sequence), BigInt(nowMs)], [VARCHAR, BIGINT, BIGINT],
  );
  return true;
}

/** A column of a table, its type, and the text of its value in a row. */
type Column<Row> = readonly [name: string, type: 'BIGINT' | 'INTEGER' | 'SMALLINT' | 'DOUBLE' | 'VARCHAR' | 'BLOB', text: (row: Row) => string | number];

/** Which row of which window it is. */
const windowColumns: readonly Column<Pick<RollupRow | TopRow, 'level' | 'windowMs' | 'rowId'>>[] = [
  ['level', 'INTEGER', ({ level }) => level],
  ['window_ms', 'BIGINT', ({ windowMs }) => windowMs],
  ['row_id', 'BIGINT', ({ rowId }) => rowId],
];

const rollupColumns: readonly Column<RollupRow>[] = [
  ...windowColumns,
  ['source', 'VARCHAR', ({ series }) => series.source],
  ['host', 'VARCHAR', ({ series }) => series.host],
  ['method', 'VARCHAR', ({ series }) => series.method],
  ['status_code', 'SMALLINT', ({ series }) => series.status],
  ['"count"', 'BIGINT', ({ count }) => count],
  ['sampled_out', 'BIGINT', ({ sampledOut }) => sampledOut],
  ['duration_ms_sum', 'DOUBLE', ({ durationSumMs }) => durationSumMs],
  ['duration_ms_max', 'DOUBLE', ({ durationMaxMs }) => durationMaxMs],
  ['size_sum', 'DOUBLE', ({ sizeSum }) => sizeSum],
  ['histogram', 'VARCHAR', ({ histogram }) => histogram.pack()],
];

const topColumns: readonly Column<TopRow>[] = [
  ...windowColumns,
  ['source', 'VARCHAR', ({ source }) => source],
  ['host', 'VARCHAR', ({ host }) => host],
  ['kind', 'VARCHAR', ({ kind }) => kind],
  ['packed', 'BLOB', ({ packed }) => compress(packed)],
];

const importedColumns: readonly Column<ImportedRow>[] = [
  ['import_id', 'BIGINT', ({ importId }) => importId],
  ['window_ms', 'BIGINT', ({ windowMs }) => windowMs],
  ['row_id', 'BIGINT', ({ rowId }) => rowId],
  ['source', 'VARCHAR', ({ source }) => source],
  ['packed', 'BLOB', ({ packed }) => packed],
];

const rollupsSql = `${insertSql('request_rollup', rollupColumns)}
  ON CONFLICT DO UPDATE SET ${['"count"', 'sampled_out', 'duration_ms_sum', 'duration_ms_max', 'size_sum', 'histogram'].map((name) => `${name} = excluded.${name}`).join(', ')}`;

const topsSql = `${insertSql('request_top', topColumns)} ON CONFLICT DO UPDATE SET packed = excluded.packed`;

function insertSql<Row>(table: string, columns: readonly Column<Row>[]): string {
  const values = columns.map(([, type], index) => `unnest(${columnSql(index + 1, type)})`);
  return `INSERT INTO ${table} (${columns.map(([name]) => name).join(', ')}) SELECT ${values.join(', ')}`;
}

/** A list has some 5 to 15 kB, which DuckDB would store as they are; this leaves less than half of them, and more work would leave little less. Base64 on the way there. */
function compress(packed: string): string {
  return deflateSync(packed, { level: 1 }).toString('base64');
}

/** The values of a bound column. A number that is not known is an empty text, and bytes are in base64. */
function columnSql(parameter: number, type: string): string {
  const texts = `string_split($${parameter}, chr(0))`;
  if (type === 'BLOB') return `list_transform(${texts}, lambda value: from_base64(value))`;
  return type === 'VARCHAR' ? texts : `list_transform(${texts}, lambda value: nullif(value, ''))::${type}[]`;
}

/** Resolves to how long their values are, as text. */
async function writeRows<Row>(statement: DuckDBPreparedStatement, columns: readonly Column<Row>[], rows: readonly Row[], rowsMax: number): Promise<number> {
  let length = 0;
  for (let from = 0; from < rows.length; from += rowsMax) length += await runWithColumns(statement, columns, rows.slice(from, from + rowsMax));
  return length;
}

async function runWithColumns<Row>(statement: DuckDBPreparedStatement, columns: readonly Column<Row>[], rows: readonly Row[]): Promise<number> {
  let length = 0;
  for (const [index, [, , text]] of columns.entries()) {
    const joined = joinColumn(rows.map(text));
    length += joined.length;
    statement.bindVarchar(index + 1, joined);
  }
  try {
    await statement.run();
  } finally {
    statement.clearBindings();
  }
  return length;
}

/**
 * Joins values with NUL. A text that holds a NUL itself (no maker of events lets one through) gets U+FFFD in its place:
 * else its column would be a value too long.
 */
export function joinColumn(values: readonly (string | number)[]): string {
  const joined = values.join('\0');
  let separators = 0;
  for (let at = joined.indexOf('\0'); at >= 0; at = joined.indexOf('\0', at + 1)) separators += 1;
  if (separators === values.length - 1) return joined;
  return values.map((value) => String(value).replaceAll('\0', '\ufffd')).join('\0');
}

async function upsertLedger(connection: DuckDBConnection, ledger: LedgerSnapshot): Promise<void> {
  const { collector, timeMs, received, accepted, runtime, rejected, dropped, stored, spooled, inMemory, deadLettered, warnings, lastLineMs } = ledger;
  await connection.run(
    `INSERT INTO collector_ledger (collector, time_ms, received, accepted, runtime, rejected, dropped, stored, spooled, in_memory, dead_lettered, last_line_ms, warnings)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
     ON CONFLICT (collector) DO UPDATE SET time_ms = excluded.time_ms, received = excluded.received, accepted = excluded.accepted, runtime = excluded.runtime,
       rejected = excluded.rejected, dropped = excluded.dropped, stored = excluded.stored, spooled = excluded.spooled, in_memory = excluded.in_memory,
       dead_lettered = excluded.dead_lettered, last_line_ms = excluded.last_line_ms, warnings = excluded.warnings
     WHERE excluded.time_ms >= collector_ledger.time_ms`,
    [
      collector, ...[timeMs, received, accepted, runtime].map(BigInt), JSON.stringify(rejected), JSON.stringify(dropped),
      ...[stored, spooled, inMemory, deadLettered].map(BigInt), lastLineMs === null ? null : BigInt(lastLineMs), JSON.stringify(warnings),
    ],
    [VARCHAR, BIGINT, BIGINT, BIGINT, BIGINT, VARCHAR, VARCHAR, BIGINT, BIGINT, BIGINT, BIGINT, BIGINT, VARCHAR],
  );
}
