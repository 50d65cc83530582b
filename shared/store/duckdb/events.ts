import { BIGINT, VARCHAR, type DuckDBConnection, type DuckDBPreparedStatement } from '@duckdb/node-api';
import type { CaddyEvent } from '../../caddy-event.js';
import type { EventRow } from '../../record/event-folder.js';
import { nanosecondsText, splitNanoseconds } from '../../request-event.js';
import type { EventsQuery } from '../store.js';
import { insertSql, joinColumn, texts, writeRows, type Column } from './columns.js';
import type { Query } from './read-pool.js';
import { BoundValues } from './queries/bound-values.js';
import { windowsIn } from './queries/conditions.js';
import { runCached } from './statements.js';

const textColumns = [
  ['level', 'level'],
  ['logger', 'logger'],
  ['message', 'message'],
  ['error', 'error'],
  ['reason', 'reason'],
  ['host', 'host'],
  ['method', 'method'],
  ['uri', 'uri'],
  ['errorId', 'error_id'],
  ['upstream', 'upstream'],
  ['fields', 'fields'],
] as const satisfies readonly (readonly [keyof CaddyEvent, string])[];

const eventColumns: readonly Column<EventRow>[] = [
  ['window_ms', 'BIGINT', ({ windowMs }) => windowMs],
  ['row_id', 'BIGINT', ({ rowId }) => rowId],
  ['"count"', 'BIGINT', ({ count }) => count],
  ['first_ns', 'BIGINT', ({ event }) => nanosecondsText(event)],
  ['last_ms', 'BIGINT', ({ lastMs }) => lastMs],
  ['status_code', 'SMALLINT', ({ event }) => event.status],
  ...textColumns.map(([property, name]): Column<EventRow> => [name, 'VARCHAR', ({ event }) => event[property]]),
];

/** Definition of the table `caddy_event`. It has no index: rows arrive in about the order of time. */
export const eventTableSql = `CREATE TABLE caddy_event (${eventColumns.map(([name, type]) => `${name} ${type} NOT NULL`).join(', ')})`;

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
    const firstMs = rows.reduce((least, { windowMs }) => Math.min(least, windowMs), Infinity);
    const lastMs = rows.reduce((greatest, { windowMs }) => Math.max(greatest, windowMs), 0);
    await runCached(
      this.#connection,
      `DELETE FROM caddy_event WHERE window_ms BETWEEN $1 AND $2
         AND row_id IN (SELECT unnest(string_split($3, chr(0)))::BIGINT)`,
      [BigInt(firstMs), BigInt(lastMs), joinColumn(rows.map(({ rowId }) => rowId))],
      [BIGINT, BIGINT, VARCHAR],
    );
    return await writeRows(this.#insert, eventColumns, rows, rowsPerStatement);
  }
}

/** See `StoreReader.readEvents`. */
export async function readEvents(query: Query, { levels, host, limit, ...range }: EventsQuery): Promise<EventRow[]> {
  const values = new BoundValues();
  const conditions = [
    ...windowsIn(range, values),
    ...(levels === undefined
      ? []
      : [`level IN (SELECT unnest(string_split(${values.add(levels.join(','), VARCHAR)}, ',')))`]),
    ...(host === undefined ? [] : [`host = ${values.add(host, VARCHAR)}`]),
  ];
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, row_id, "count", first_ns, last_ms, status_code, ${texts(...textColumns.map(([, name]) => name))}
     FROM caddy_event WHERE ${conditions.join(' AND ')}
     ORDER BY window_ms DESC, last_ms DESC, row_id LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  const [windows, ids, counts, firsts, lasts, statuses, ...found] = columns as [
    ...[bigint[], bigint[], bigint[], bigint[], bigint[], number[]],
    ...string[][],
  ];
  return windows.map((windowMs, at): EventRow => {
    const event = Object.fromEntries(textColumns.map(([property], index) => [property, found[index]![at]])) as Pick<
      CaddyEvent,
      (typeof textColumns)[number][0]
    >;
    return {
      windowMs: Number(windowMs),
      rowId: Number(ids[at]!),
      count: Number(counts[at]!),
      lastMs: Number(lasts[at]!),
      event: { ...splitNanoseconds(firsts[at]!), ...event, status: statuses[at]! },
    };
  });
}
