/** Takes an import back: see `Store.takeBack`. */
import { DistinctSketch } from '../../distinct.js';
import { emptyTally, importRowRange, levels } from '../../rollup.js';
import { TopSummary } from '../../top.js';
import { topKinds, topLevels } from '../../top-row.js';
import type { ImportSummary } from '../store.js';
import { rollupLine, topLine } from './line-protocol.js';
import { linesMax } from './payload.js';
import { readRollups, readTops, type ReadCells } from './queries.js';

/** What it works with. */
export interface TakeBackParts {
  readonly read: ReadCells;
  readonly bucket: string;
  readonly writeLines: (lines: readonly string[]) => Promise<unknown>;
  /** Deletes the points that a predicate names. */
  readonly deleteAll: (predicate: string) => Promise<unknown>;
}

/**
 * Takes an import back. Rows of rollups and top lists are replaced by empty ones: InfluxDB deletes single points slowly. What is remembered goes last, so
 * that it can be repeated. Throws a `StoreError`.
 */
export async function takeBack({ importId, firstHourMs, lastHourMs }: ImportSummary, { read, bucket, writeLines, deleteAll }: TakeBackParts): Promise<void> {
  await deleteAll(`_measurement="request_metrics" AND recorder="import-${importId}"`);
  const { from, to } = importRowRange(importId);
  const isOfImport = ({ rowId }: { readonly rowId: number }): boolean => rowId >= from && rowId < to;
  const range = { fromMs: Math.floor(firstHourMs / dayMs) * dayMs, toMs: lastHourMs + 3_600_000, filter: {} }; // windows of a day begin before its first hour
  const emptyList = new TopSummary().pack();
  const emptySketch = new DistinctSketch().pack();
  const lines: string[] = [];
  for (const level of levels) {
    const rows = await readRollups(read, bucket, { ...range, level });
    lines.push(...rows.filter(isOfImport).map((row) => rollupLine({ ...row, ...emptyTally() })));
  }
  for (const level of topLevels) {
    const rows = await readTops(read, bucket, { ...range, level, kinds: topKinds });
    lines.push(...rows.filter(isOfImport).map((row) => topLine({ ...row, packed: row.kind === 'unique_clients' ? emptySketch : emptyList })));
  }
  for (let at = 0; at < lines.length; at += linesMax) await writeLines(lines.slice(at, at + linesMax));
  await deleteAll(`_measurement="imported_request" AND import_id="${importId}"`);
}

const dayMs = 86_400_000;
