import type {
  DuckDBConnection,
  DuckDBMaterializedResult,
  DuckDBPreparedStatement,
  DuckDBType,
  DuckDBValue,
} from '@duckdb/node-api';

/** So many statements of a connection are kept. */
const statementsMax = 64;

const kept = new WeakMap<DuckDBConnection, Map<string, DuckDBPreparedStatement>>();

/**
 * Runs a statement, which is kept: to read and plan it anew takes a millisecond and two turns of the event loop, which
 * are what a page waits for while lines come in. The connection must not be used for anything else meanwhile; it lets
 * go of its statements when it is closed. Throws what DuckDB throws.
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

/** The prepared statement of a text, the same one the next time. */
async function prepared(connection: DuckDBConnection, sql: string): Promise<DuckDBPreparedStatement> {
  let statements = kept.get(connection);
  if (statements === undefined) kept.set(connection, (statements = new Map<string, DuckDBPreparedStatement>()));
  const known = statements.get(sql);
  statements.delete(sql);
  const statement = known ?? (await connection.prepare(sql));
  statements.set(sql, statement); // in the order in which they were last used
  if (statements.size > statementsMax) {
    const [oldest, its] = statements.entries().next().value!;
    statements.delete(oldest);
    its.destroySync();
  }
  return statement;
}
