/** A value of a CSV row. `undefined`, `null` and numbers that are not finite become empty fields. */
export type CsvValue = string | number | null | undefined | Readonly<Record<string, number | null>>;

/**
 * Writes rows as CSV (RFC 4180) with a header, CRLF, and quotes around every field that is not empty. The column
 * `duration_ms.mean` is the `mean` of the row's `duration_ms`; an object that is named whole becomes one field of
 * `key:value` pairs. Numbers stay numbers. Text that a spreadsheet would run as a formula gets an apostrophe in front:
 * see `inert`.
 */
export function csv(columns: readonly string[], rows: readonly Readonly<Record<string, CsvValue>>[]): string {
  const lines = rows.map((row) => columns.map((column) => field(valueAt(row, column))).join(','));
  return [columns.map(field).join(','), ...lines, ''].join('\r\n');
}

function valueAt(row: Readonly<Record<string, CsvValue>>, column: string): CsvValue {
  const [name = '', key] = column.split('.', 2);
  const value = row[name];
  return key !== undefined && typeof value === 'object' ? value?.[key] : value;
}

function field(value: CsvValue): string {
  if (value === null || value === undefined) return '';
  if (typeof value === 'number') return Number.isFinite(value) ? `"${value}"` : '';
  const text =
    typeof value === 'string'
      ? value
      : Object.entries(value)
          .map(([key, entry]) => `${key}:${entry ?? ''}`)
          .join(' ');
  return `"${inert(text).replaceAll('"', '""')}"`;
}

/**
 * Disarms formulas, in the full-width forms too. A spreadsheet that expects `;` or tabs between fields ignores all
 * quotes but a line's first, and splits a text at these characters and at line breaks: what follows them is disarmed as
 * well.
 */
function inert(text: string): string {
  return text.replace(/^(?=[\t\r\n])|(?<=^|[;\t\r\n]["']?)(?=[=+\-@＝＋－＠])/g, "'");
}
