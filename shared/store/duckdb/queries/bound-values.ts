import type { DuckDBType, DuckDBValue } from '@duckdb/node-api';
import type { Query } from '../read-pool.js';

/** The bound values of one statement. */
export class BoundValues {
  readonly #values: DuckDBValue[] = [];
  readonly #types: DuckDBType[] = [];

  /** Binds a value and returns its placeholder, such as `$1`. */
  add(value: DuckDBValue, type: DuckDBType): string {
    this.#types.push(type);
    return `$${this.#values.push(value)}`;
  }

  /** Runs the statement and yields the columns of up to 2,048 rows at a time. */
  chunksOf(query: Query, sql: string): ReturnType<Query> {
    return query(sql, this.#values, this.#types);
  }

  /** Runs the statement and returns the columns of all rows. */
  async columnsOf(query: Query, sql: string): Promise<DuckDBValue[][]> {
    let columns: DuckDBValue[][] | undefined;
    for await (const chunk of this.chunksOf(query, sql)) {
      if (columns === undefined) columns = chunk;
      else for (const [at, column] of columns.entries()) for (const value of chunk[at]!) column.push(value);
    }
    return columns ?? [];
  }
}
