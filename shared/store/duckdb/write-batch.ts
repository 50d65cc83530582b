/**
 * Writes batches into the tables. Requests are appended (`request-appender.ts`). Rows that may replace earlier ones
 * cannot be appended: each of their columns is bound as one text, joined with NUL, which the statement splits on
 * DuckDB's threads.
 */
import { deflateSync } from 'node:zlib';
import { BIGINT, VARCHAR, type DuckDBConnection, type DuckDBPreparedStatement } from '@duckdb/node-api';
import type { ImportedRow } from '../../record/imported-requests.js';
import type { TopRow } from '../../top-list/top-row.js';
import { insertSql, writeRows, type Column } from './columns.js';
import { EventWriter } from './events.js';
import type { OpenWindows } from './open-windows.js';
import { closedRows, type Addition } from './segment.js';
import type { PreparedFold } from './rollup-folds.js';
import { deleteJournals, rewriteJournal, writeJournal } from './rollup-journal.js';
import { createRollupWriter } from './rollup-tables.js';
import type { Batch, LedgerSnapshot } from '../store.js';
import { createRequestAppender, type AppendRequests } from './request-appender.js';
import { runCached } from './statements.js';

/** Runs a commit while no read is in progress: in DuckDB 1.5.5, a concurrent read can miss rows (decision 24). */
export type RunAlone = (commit: () => Promise<void>) => Promise<void>;

interface Statements {
  readonly appendRequests: AppendRequests;
  readonly writeRollups: Awaited<ReturnType<typeof createRollupWriter>>;
  readonly upsertTopLists: DuckDBPreparedStatement;
  readonly insertImported: DuckDBPreparedStatement;
  readonly events: EventWriter;
}

/**
 * Writes batches over one connection, each in a separate transaction. Its methods throw DuckDB's errors, with the
 * transaction still open, and pass each commit to `alone`.
 */
export class BatchWriter {
  readonly #connection: DuckDBConnection;
  readonly #windows: OpenWindows;
  readonly #logBytesMax: number;
  readonly #statements: Statements;
  /** Bytes that DuckDB holds until the next checkpoint. An existing log may have as many as the maximum. */
  #heldBytes = heldBytesMax;

  private constructor(connection: DuckDBConnection, windows: OpenWindows, logBytesMax: number, statements: Statements) {
    this.#connection = connection;
    this.#windows = windows;
    this.#logBytesMax = logBytesMax;
    this.#statements = statements;
  }

  /** Prepares the statements once. The connection must not be used concurrently. */
  static async prepare(
    connection: DuckDBConnection,
    windows: OpenWindows,
    { logBytesMax }: { logBytesMax: number },
  ): Promise<BatchWriter> {
    return new BatchWriter(connection, windows, logBytesMax, {
      appendRequests: createRequestAppender(connection),
      writeRollups: await createRollupWriter(connection),
      upsertTopLists: await connection.prepare(topListsSql),
      insertImported: await connection.prepare(insertSql('imported_request', importedColumns)),
      events: await EventWriter.prepare(connection),
    });
  }

  /** Writes a batch, unless its writer's sequence number shows that it is already stored. */
  async write(batch: Batch, nowMs: number, alone: RunAlone): Promise<void> {
    await this.#connection.run('BEGIN TRANSACTION');
    const isFirst = await isNew(this.#connection, batch, nowMs);
    const additions = isFirst ? this.#windows.place(batch.aggregates, batch.importId ?? 0, nowMs) : [];
    if (isFirst) await this.#insert(batch, additions);
    await alone(async () => {
      await this.#connection.run('COMMIT');
      this.#windows.merge(additions, nowMs);
    });
  }

  /** Closes the windows that ended well before `nowMs`. Resolves to whether there were any. */
  async closeWindows(nowMs: number, alone: RunAlone): Promise<boolean> {
    const windows = this.#windows;
    const segments = windows.closing(nowMs);
    const long = windows.withLongJournal().filter((segment) => !segments.includes(segment));
    if (segments.length + long.length === 0) return false;
    const rows = closedRows(segments);
    await this.#connection.run('BEGIN TRANSACTION');
    await this.#statements.writeRollups(rows, windows.closedMax + 1);
    await deleteJournals(this.#connection, segments);
    for (const segment of long) await rewriteJournal(this.#connection, segment);
    await alone(async () => {
      await this.#connection.run('COMMIT');
      windows.onClosed(segments);
      windows.onRewritten(long);
      windows.folds.onClosed(rows);
    });
    return segments.length > 0;
  }

  /** Appends the rows of a prepared fold. */
  async fold(prepared: PreparedFold, nowMs: number, alone: RunAlone): Promise<void> {
    await this.#connection.run('BEGIN TRANSACTION');
    await this.#statements.writeRollups(prepared.rows, this.#windows.closedMax + 1);
    await this.#windows.folds.note(this.#connection, prepared, nowMs);
    await alone(async () => {
      await this.#connection.run('COMMIT');
      this.#windows.onClosed([]);
      this.#windows.folds.onFolded(prepared, nowMs);
    });
  }

  /**
   * Whether a checkpoint is due, given the size of the write-ahead log in bytes: as soon as no read is in progress, or
   * before the next batch.
   */
  checkpointDue(logBytes: number): 'when-idle' | 'now' | undefined {
    if (this.#heldBytes >= heldBytesMax || logBytes >= this.#logBytesMax) return 'now';
    return this.#heldBytes >= heldBytesWanted || logBytes >= logShareWanted * this.#logBytesMax
      ? 'when-idle'
      : undefined;
  }

  /** Runs a checkpoint. No read may be in progress. */
  async checkpoint(): Promise<void> {
    await this.#connection.run('CHECKPOINT');
    this.#heldBytes = 0;
  }

  async #insert(batch: Batch, additions: readonly Addition[]): Promise<void> {
    const { appendRequests, upsertTopLists, insertImported, events } = this.#statements;
    await appendRequests(batch.kept ?? batch.requests);
    await writeJournal(this.#connection, additions);
    this.#heldBytes += await writeRows(upsertTopLists, topColumns, batch.topLists, topRowsPerStatement);
    if (batch.imported !== undefined)
      this.#heldBytes += await writeRows(insertImported, importedColumns, batch.imported, importedRowsPerStatement);
    this.#heldBytes += await events.write(batch.events ?? []);
    if (batch.ledger !== undefined) await upsertLedger(this.#connection, batch.ledger);
  }
}

/**
 * Until the next checkpoint, DuckDB retains the log and, in memory, the texts of replaced rows, in blocks that grow
 * by doubling. From `heldBytesWanted` and `logShareWanted` on, a checkpoint is due as soon as no read is in progress;
 * at the maximum it waits for the current reads, and new reads wait for it.
 */
const heldBytesWanted = 8 * 2 ** 20;
const heldBytesMax = 2 * heldBytesWanted;
const logShareWanted = 0.75;

/** A row of a list has about 10 kB. */
const topRowsPerStatement = 200;
/** A row of imported requests has up to 64 kB. */
const importedRowsPerStatement = 50;

async function isNew(connection: DuckDBConnection, { writer, sequence }: Batch, nowMs: number): Promise<boolean> {
  const result = await runCached(
    connection,
    'SELECT sequence FROM applied_batch WHERE writer = $1',
    [writer],
    [VARCHAR],
  );
  const last = result.rowCount === 0 ? undefined : result.getChunk(0).getColumnValues(0)[0];
  if (typeof last === 'bigint' && last >= BigInt(sequence)) return false;
  await runCached(
    connection,
    last === undefined
      ? 'INSERT INTO applied_batch (writer, sequence, applied_ms) VALUES ($1, $2, $3)'
      : 'UPDATE applied_batch SET sequence = $2, applied_ms = $3 WHERE writer = $1',
    [writer, BigInt(sequence), BigInt(nowMs)],
    [VARCHAR, BIGINT, BIGINT],
  );
  return true;
}

/** The columns that identify a row within its table. */
const windowColumns: readonly Column<Pick<TopRow, 'level' | 'windowMs' | 'rowId'>>[] = [
  ['level', 'INTEGER', ({ level }) => level],
  ['window_ms', 'BIGINT', ({ windowMs }) => windowMs],
  ['row_id', 'BIGINT', ({ rowId }) => rowId],
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

const topListsSql = `${insertSql('request_top', topColumns)} ON CONFLICT DO UPDATE SET packed = excluded.packed`;

/**
 * Compresses a list of 5 to 15 kB to less than half; higher levels save hardly more. Returns base64 for the
 * statement.
 */
function compress(packed: string): string {
  return deflateSync(packed, { level: 1 }).toString('base64');
}

async function upsertLedger(connection: DuckDBConnection, ledger: LedgerSnapshot): Promise<void> {
  const {
    collector,
    timeMs,
    received,
    accepted,
    runtime,
    events,
    rejected,
    dropped,
    stored,
    spooled,
    inMemory,
    deadLettered,
    warnings,
    lastLineMs,
  } = ledger;
  await connection.run(
    `INSERT INTO collector_ledger (collector, time_ms, received, accepted, runtime, rejected, dropped, stored, spooled, in_memory, dead_lettered, last_line_ms, warnings, events)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
     ON CONFLICT (collector) DO UPDATE SET time_ms = excluded.time_ms, received = excluded.received, accepted = excluded.accepted, runtime = excluded.runtime,
       rejected = excluded.rejected, dropped = excluded.dropped, stored = excluded.stored, spooled = excluded.spooled, in_memory = excluded.in_memory,
       dead_lettered = excluded.dead_lettered, last_line_ms = excluded.last_line_ms, warnings = excluded.warnings, events = excluded.events
     WHERE excluded.time_ms >= collector_ledger.time_ms`,
    [
      collector,
      ...[timeMs, received, accepted, runtime].map(BigInt),
      JSON.stringify(rejected),
      JSON.stringify(dropped),
      ...[stored, spooled, inMemory, deadLettered].map(BigInt),
      lastLineMs === null ? null : BigInt(lastLineMs),
      JSON.stringify(warnings),
      BigInt(events),
    ],
    [
      VARCHAR,
      BIGINT,
      BIGINT,
      BIGINT,
      BIGINT,
      VARCHAR,
      VARCHAR,
      BIGINT,
      BIGINT,
      BIGINT,
      BIGINT,
      BIGINT,
      VARCHAR,
      BIGINT,
    ],
  );
}
