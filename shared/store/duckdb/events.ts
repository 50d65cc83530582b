import { BIGINT, VARCHAR, type DuckDBConnection, type DuckDBPreparedStatement } from '@duckdb/node-api';
import type { CaddyLevel } from '../../caddy-event.js';
import type { EventRow } from '../../record/event-folder.js';
import { splitNanoseconds } from '../../request-event.js';
import type { EventsQuery } from '../store.js';
import { insertSql, joinColumn, texts, writeRows, type Column } from './columns.js';
import type { Query } from './read-pool.js';
import { BoundValues } from './queries/bound-values.js';
import { runCached } from './statements.js';

const eventColumns: readonly Column<EventRow>[] = [
  ['window_ms', 'BIGINT', ({ windowMs }) => windowMs],
  ['row_id', 'BIGINT', ({ rowId }) => rowId],
  ['"count"', 'BIGINT', ({ count }) => count],
  ['first_ns', 'BIGINT', ({ event: { timeMs, timeNs } }) => `${timeMs}${String(timeNs).padStart(6, '0')}`],
  ['last_ms', 'BIGINT', ({ lastMs }) => lastMs],
  ['level', 'VARCHAR', ({ event }) => event.level],
  ['logger', 'VARCHAR', ({ event }) => event.logger],
  ['message', 'VARCHAR', ({ event }) => event.message],
  ['error', 'VARCHAR', ({ event }) => event.error],
  ['reason', 'VARCHAR', ({ event }) => event.reason],
  ['host', 'VARCHAR', ({ event }) => event.host],
  ['method', 'VARCHAR', ({ event }) => event.method],
  ['uri', 'VARCHAR', ({ event }) => event.uri],
  ['status_code', 'SMALLINT', ({ event }) => event.status],
  ['error_id', 'VARCHAR', ({ event }) => event.errorId],
  ['upstream', 'VARCHAR', ({ event }) => event.upstream],
  ['fields', 'VARCHAR', ({ event }) => event.fields],
];

/** Definition of the table `caddy_event`. It has no index: rows arrive in about the order of time. */
export const createEventTable = `CREATE TABLE caddy_event (${eventColumns.map(([name, type]) => `${name} ${type} NOT NULL`).join(', ')})`;

/** Maximum number of rows per statement. A row has up to 3 kB. */
const rowsPerStatement = 200;

/** Writes rows of events in the current transaction. */
export class EventWriter {
  readonly #connection: DuckDBConnection;
  readonly #insert: DuckDBPreparedStatement;

  private constructor(connection: DuckDBConnection, insert: DuckDBPreparedStatement) {
    this.#connection = connection;
    this.#insert = insert;
  }

  static async prepare(connection: DuckDBConnection): Promise<EventWriter> {
    return new EventWriter(connection, await connection.prepare(insertSql('caddy_event', eventColumns)));
  }

  /** Replaces the rows with the same windows and ids. Resolves to the number of bytes bound. */
  async write(rows: readonly EventRow[]): Promise<number> {
    if (rows.length === 0) return 0;
    const windows = rows.map(({ windowMs }) => windowMs);
    await runCached(
      this.#connection,
      `DELETE FROM caddy_event WHERE window_ms BETWEEN $1 AND $2
         AND row_id IN (SELECT unnest(string_split($3, chr(0)))::BIGINT)`,
      [BigInt(Math.min(...windows)), BigInt(Math.max(...windows)), joinColumn(rows.map(({ rowId }) => rowId))],
      [BIGINT, BIGINT, VARCHAR],
    );
    return await writeRows(this.#insert, eventColumns, rows, rowsPerStatement);
  }
}

/** See `StoreReader.readEvents`. */
export async function readEvents(
  query: Query,
  { fromMs, toMs, levels, host, limit }: EventsQuery,
): Promise<EventRow[]> {
  const values = new BoundValues();
  const conditions = [
    `window_ms >= ${values.add(BigInt(Math.ceil(fromMs)), BIGINT)}`,
    `window_ms < ${values.add(BigInt(Math.ceil(toMs)), BIGINT)}`,
    ...(levels === undefined
      ? []
      : [`level IN (SELECT unnest(string_split(${values.add(levels.join(','), VARCHAR)}, ',')))`]),
    ...(host === undefined ? [] : [`host = ${values.add(host, VARCHAR)}`]),
  ];
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, row_id, "count", first_ns, last_ms, status_code,
       ${texts('level', 'logger', 'message', 'error', 'reason', 'host', 'method', 'uri', 'error_id', 'upstream', 'fields')}
     FROM caddy_event WHERE ${conditions.join(' AND ')}
     ORDER BY window_ms DESC, last_ms DESC, row_id LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  const [windows, ids, counts, firsts, lasts, statuses, ...textColumns] = columns as [
    bigint[],
    bigint[],
    bigint[],
    bigint[],
    bigint[],
    number[],
    ...string[][],
  ];
  return (windows ?? []).map((windowMs, at): EventRow => {
    const [level, logger, message, error, reason, hostText, method, uri, errorId, upstream, fields] = textColumns.map(
      (column) => column[at]!,
    ) as [CaddyLevel, ...string[]] as [
      CaddyLevel,
      string,
      string,
      string,
      string,
      string,
      string,
      string,
      string,
      string,
      string,
    ];
    return {
      windowMs: Number(windowMs),
      rowId: Number(ids[at]!),
      count: Number(counts[at]!),
      lastMs: Number(lasts[at]!),
      event: {
        ...splitNanoseconds(firsts[at]!),
        level,
        logger,
        message,
        error,
        reason,
        host: hostText,
        method,
        uri,
        status: statuses[at]!,
        errorId,
        upstream,
        fields,
      },
    };
  });
}
