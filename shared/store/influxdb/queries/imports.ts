import { flux } from '@influxdata/influxdb-client';
import { importedBytes, type ImportedRow } from '../../../record/imported-requests.js';
import { wholeWindows } from '../../rollups-query.js';
import type { ImportSummary, TimeRange } from '../../store.js';
import { fluxText } from '../flux-text.js';
import { textOfTag } from '../line-values.js';
import { rowOfTime, timeMsMax, type ReadCells } from './read-cells.js';

/** See `Store.readImported`. */
export async function readImported(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs }: TimeRange,
): Promise<ImportedRow[]> {
  const range = wholeWindows({ fromMs, toMs }, 3600);
  if (range.fromMs >= range.toMs) return [];
  const columns = ['_time', '_value', 'source', 'import_id'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "imported_request" and r._field == "packed")
  |> keep(columns: ${columns})`;
  const rows: ImportedRow[] = [];
  await read(query, columns, ([time, packed, source, importId]) => {
    rows.push({ importId: Number(importId), ...rowOfTime(time!, 3600), source: textOfTag(source), packed: packed! });
  });
  return rows;
}

/** See `Store.listImports`. */
export async function listImports(read: ReadCells, bucket: string): Promise<ImportSummary[]> {
  const imports = new Map<number, ImportSummary>();
  const query = flux`import "strings"
from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)}, stop: ${new Date(timeMsMax)})
  |> filter(fn: (r) => r._measurement == "imported_request" and r._field == "packed")
  |> map(fn: (r) => ({_time: r._time, import_id: r.import_id, length: strings.strlen(v: strings.trimSuffix(v: strings.trimSuffix(v: r._value, suffix: "="), suffix: "="))}))`;
  await read(query, ['_time', 'import_id', 'length'], ([time, id, length]) => {
    const importId = Number(id);
    const { windowMs } = rowOfTime(time!, 3600);
    const known = imports.get(importId) ?? { importId, requests: 0, firstHourMs: Infinity, lastHourMs: -Infinity };
    const requests = Math.floor((Number(length) * 3) / 4) / importedBytes; // four Base64 digits are three bytes
    imports.set(importId, {
      importId,
      requests: known.requests + requests,
      firstHourMs: Math.min(known.firstHourMs, windowMs),
      lastHourMs: Math.max(known.lastHourMs, windowMs),
    });
  });
  return [...imports.values()].toSorted((one, other) => one.importId - other.importId);
}
