import { BIGINT, INTEGER, VARCHAR, type DuckDBConnection } from '@duckdb/node-api';
import { windowRetentions, type WindowRetention } from '../retention.js';
import { coarserLevel, eventsRetentionMsDefault, scopes, type Level, type Retention } from '../../rollup/rollup.js';
import type { RetentionState, StoredSpan } from '../retention-guard.js';
import { rollupTables } from './rollup-tables.js';

/** Deletes some expired rows. Resolves to their number. */
export type DeleteStep = (connection: DuckDBConnection) => Promise<number>;

/**
 * Returns the steps that delete rows that are expired at `nowMs`. Run each step until it deletes no more rows. A step
 * deletes at most `rowsMax` rows of rollups or top lists, so that batches can be written in between: deleting a top
 * list takes about 25 µs, because of its index.
 */
export function deleteSteps(
  { requestsMs, rollupsMs, eventsMs = eventsRetentionMsDefault }: Retention,
  nowMs: number,
  rowsMax = 10_000,
): DeleteStep[] {
  const requestsBefore = BigInt(Math.floor(nowMs - requestsMs)) * 1_000_000n;
  return [
    // These rows have no index and are stored in time order, so deleting all of them at once is fast.
    async (connection) =>
      await deletedRows(connection, 'DELETE FROM request_metrics WHERE time_ns < $1', [requestsBefore], [BIGINT]),
    ...windowRetentions(rollupsMs).map(
      ({ table, level, retentionMs }): DeleteStep =>
        async (connection) =>
          await deletedRows(
            connection,
            `DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} WHERE level = $1 AND window_ms < $2${isFolded(table, level)} LIMIT $3)`,
            [level, BigInt(Math.floor(nowMs - retentionMs)), BigInt(rowsMax)],
            [INTEGER, BIGINT, BIGINT],
          ),
    ),
    async (connection) =>
      await deletedRows(
        connection,
        'DELETE FROM caddy_event WHERE window_ms < $1',
        [BigInt(Math.floor(nowMs - eventsMs))],
        [BIGINT],
      ),
    async (connection) =>
      await deletedRows(
        connection,
        'DELETE FROM collector_ledger WHERE time_ms < $1',
        [BigInt(Math.floor(nowMs - rollupsMs))],
        [BIGINT],
      ),
    async (connection) =>
      await deletedRows(
        connection,
        'DELETE FROM imported_request WHERE window_ms < $1',
        [BigInt(Math.floor(nowMs - rollupsMs))],
        [BIGINT],
      ),
    async (connection) =>
      await deletedRows(
        connection,
        'DELETE FROM applied_batch WHERE applied_ms < $1',
        [BigInt(Math.floor(nowMs - rollupsMs))],
        [BIGINT],
      ),
  ];
}

/** A condition that spares rows which are not folded into the next coarser level yet. */
function isFolded(table: WindowRetention['table'], level: Level): string {
  const scope = scopes.find((each) => rollupTables[each] === table);
  const coarser = scope && coarserLevel(level, scope);
  return coarser === undefined
    ? ''
    : ` AND closed <= coalesce((SELECT max(closed) FROM rollup_fold WHERE scope = '${scope}' AND level = ${coarser}), 0)`;
}

/** Returns what `saveRetentionState` last wrote; `undefined` if it has not written yet. */
export async function loadRetentionState(connection: DuckDBConnection): Promise<unknown> {
  const [row] = await (await connection.run('SELECT state FROM retention_state')).getRows();
  return row === undefined ? undefined : JSON.parse(row[0] as string);
}

/** Replaces the saved state. */
export async function saveRetentionState(connection: DuckDBConnection, state: RetentionState): Promise<void> {
  await connection.run('BEGIN TRANSACTION');
  await connection.run('DELETE FROM retention_state');
  await connection.run('INSERT INTO retention_state VALUES ($1)', [JSON.stringify(state)], [VARCHAR]);
  await connection.run('COMMIT');
}

/** Returns the oldest and newest times in the store. */
export async function readStoredSpan(connection: DuckDBConnection): Promise<StoredSpan> {
  const [row] = await (
    await connection.run(`
    SELECT (SELECT min(time_ns) FROM request_metrics) // 1000000, (SELECT min(window_ms) FROM request_rollup),
      greatest((SELECT max(time_ns) FROM request_metrics) // 1000000, (SELECT max(window_ms) FROM request_rollup), (SELECT max(time_ms) FROM collector_ledger))
  `)
  ).getRows();
  const [oldestRequestMs, oldestRollupMs, newestMs] = (row as (bigint | null)[]).map((timeMs) =>
    timeMs === null ? undefined : Number(timeMs),
  );
  return { oldestRequestMs, oldestRollupMs, newestMs };
}

async function deletedRows(
  connection: DuckDBConnection,
  ...statement: Parameters<DuckDBConnection['run']>
): Promise<number> {
  return (await connection.run(...statement)).rowsChanged;
}
