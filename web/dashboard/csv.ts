/** A value of a CSV row. */
export type CsvValue = string | number | null | Readonly<Record<string, number | null>>;

/**
 * Rows as CSV after RFC 4180, with a header and CRLF. The column `duration_ms.mean` is the `mean` of the row's
 * `duration_ms`; an object that is named whole becomes one cell of `key:value` pairs. Text that a spreadsheet would run as a
 * formula gets a leading apostrophe, since much of it comes from strangers.
 */
export function csv(columns: readonly string[], rows: readonly Readonly<Record<string, CsvValue>>[]): string {
  const lines = rows.map((row) => columns.map((column) => cell(valueAt(row, column))).join(','));
  return [columns.map(cell).join(','), ...lines, ''].join('\r\n');
}

function valueAt(row: Readonly<Record<string, CsvValue>>, column: string): CsvValue {
  const [name = '', key] = column.split('.', 2);
  const value = row[name] ?? null;
  return key !== undefined && typeof value === 'object' ? value?.[key] ?? null : value;
}

function cell(value: CsvValue): string {
  if (value === null) return '';
  if (typeof value === 'number') return String(value);
  const text = typeof value === 'string' ? value : Object.entries(value).map(([key, entry]) => `${key}:${entry}`).join(' ');
  const inert = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(inert) ? `"${inert.replaceAll('"', '""')}"` : inert;
}
