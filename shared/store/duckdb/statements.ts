import type {
  DuckDBConnection,
  DuckDBMaterializedResult,
  DuckDBPreparedStatement,
  DuckDBType,
  DuckDBValue,
} from '@duckdb/node-api';

/** Maximum number of cached statements per connection. */
const statementsMax = 64;

const caches = new WeakMap<DuckDBConnection, Map<string, DuckDBPreparedStatement>>();

/**
 * Runs a statement and caches it: preparing it again would take a millisecond and two turns of the event loop. The
 * connection must not be used concurrently; closing it frees its statements. Throws DuckDB's errors.
 */
export async function runCached(
  connection: DuckDBConnection,
  sql: string,
  values: DuckDBValue[],
  types: DuckDBType[],
): Promise<DuckDBMaterializedResult> {
  const statement = await prepared(connection, sql);
  statement.bind(values, types);
  return await statement.run();
}

/** Returns the prepared statement of a text from the cache, or prepares it. */
async function prepared(connection: DuckDBConnection, sql: string): Promise<DuckDBPreparedStatement> {
  let statements = caches.get(connection);
  if (statements === undefined) caches.set(connection, (statements = new Map<string, DuckDBPreparedStatement>()));
  const known = statements.get(sql);
  statements.delete(sql);
  const statement = known ?? (await connection.prepare(sql));
  statements.set(sql, statement); // least recently used first
  if (statements.size > statementsMax) {
    const [oldest, evicted] = statements.entries().next().value!;
    statements.delete(oldest);
    evicted.destroySync();
  }
  return statement;
}
