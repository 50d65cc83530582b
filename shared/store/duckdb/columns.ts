/** Writes many rows to DuckDB with one statement: each column is bound as a text, which DuckDB splits. */
import type { DuckDBPreparedStatement } from '@duckdb/node-api';

/** A column of a table: name, type, and its value in a row as text. */
export type Column<Row> = readonly [
  name: string,
  type: 'BIGINT' | 'INTEGER' | 'SMALLINT' | 'DOUBLE' | 'VARCHAR' | 'BLOB',
  text: (row: Row) => string | number,
];

/** Returns the INSERT statement for `writeRows`. */
export function insertSql<Row>(table: string, columns: readonly Column<Row>[]): string {
  const values = columns.map(([, type], index) => `unnest(${columnSql(index + 1, type)})`);
  return `INSERT INTO ${table} (${columns.map(([name]) => name).join(', ')}) SELECT ${values.join(', ')}`;
}

/** SQL of the values of a bound column. An unknown number is an empty text; bytes are in base64. */
function columnSql(parameter: number, type: string): string {
  const texts = `string_split($${parameter}, chr(0))`;
  if (type === 'BLOB') return `list_transform(${texts}, lambda value: from_base64(value))`;
  return type === 'VARCHAR' ? texts : `list_transform(${texts}, lambda value: nullif(value, ''))::${type}[]`;
}

/** Writes rows, at most `rowsMax` per statement. Resolves to the total length of their values as text. */
export async function writeRows<Row>(
  statement: DuckDBPreparedStatement,
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  rowsMax: number,
): Promise<number> {
  let length = 0;
  for (let from = 0; from < rows.length; from += rowsMax)
    length += await runWithColumns(statement, columns, rows.slice(from, from + rowsMax));
  return length;
}

async function runWithColumns<Row>(
  statement: DuckDBPreparedStatement,
  columns: readonly Column<Row>[],
  rows: readonly Row[],
): Promise<number> {
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
 * Joins values with NUL. A NUL within a text (the recorder lets none through) becomes U+FFFD: otherwise the column
 * would have an additional value.
 */
export function joinColumn(values: readonly (string | number)[]): string {
  const joined = values.join('\0');
  let separators = 0;
  for (let at = joined.indexOf('\0'); at >= 0; at = joined.indexOf('\0', at + 1)) separators += 1;
  if (separators === values.length - 1) return joined;
  return values.map((value) => String(value).replaceAll('\0', '\ufffd')).join('\0');
}

/**
 * Selects text columns. `@duckdb/node-api` 1.5.6 strips a leading byte order mark from each value, so values that begin
 * with one get a second.
 */
export function texts(...columns: string[]): string {
  return columns
    .map((name) => `CASE WHEN starts_with(${name}, chr(65279)) THEN chr(65279) || ${name} ELSE ${name} END`)
    .join(', ');
}
