/** Undoes an import: see `Store.takeBack`. */
import { HyperLogLog } from '../../sketch/hyperloglog.js';
import { importRowRange, levels } from '../../rollup/rollup.js';
import { SpaceSaving } from '../../sketch/space-saving.js';
import { isOfClients, topKinds, topLevels } from '../../top-list/top-row.js';
import type { ImportSummary } from '../store.js';
import { emptiedRollupLine, topLine } from './line-protocol.js';
import { linesMax } from './payload.js';
import type { ReadCells } from './queries/read-cells.js';
import { readRollupPoints } from './queries/rollups.js';
import { readTopLists } from './queries/top-lists.js';

/** Dependencies. */
export interface TakeBackParts {
  readonly read: ReadCells;
  readonly bucket: string;
  readonly writeLines: (lines: readonly string[]) => Promise<unknown>;
  /** Deletes the points that match a predicate. */
  readonly deleteAll: (predicate: string) => Promise<unknown>;
}

/**
 * Undoes an import. Replaces its rows of rollups and top lists by empty ones, since InfluxDB is slow at deleting
 * single points. Deletes the record of the import last, so that a failed attempt can be retried. Throws a
 * `StoreError`.
 */
export async function takeBack(
  { importId, firstHourMs, lastHourMs }: ImportSummary,
  { read, bucket, writeLines, deleteAll }: TakeBackParts,
): Promise<void> {
  await deleteAll(`_measurement="request_metrics" AND recorder="import-${importId}"`);
  const { from, to } = importRowRange(importId);
  const isOfImport = ({ rowId }: { readonly rowId: number }): boolean => rowId >= from && rowId < to;
  const range = { fromMs: Math.floor(firstHourMs / dayMs) * dayMs, toMs: lastHourMs + 3_600_000 }; // windows of a day begin before its first hour
  const emptyList = new SpaceSaving().pack();
  const emptySketch = new HyperLogLog().pack();
  const lines: string[] = [];
  for (const level of levels) {
    for (const point of await readRollupPoints(read, bucket, { ...range, level }))
      if (isOfImport(point)) lines.push(emptiedRollupLine(point));
  }
  for (const level of topLevels) {
    for (const row of await readTopLists(read, bucket, { ...range, level, kinds: topKinds, filter: {} })) {
      if (isOfImport(row)) lines.push(topLine({ ...row, packed: isOfClients(row.kind) ? emptySketch : emptyList }));
    }
  }
  for (let at = 0; at < lines.length; at += linesMax) await writeLines(lines.slice(at, at + linesMax));
  await deleteAll(`_measurement="imported_request" AND import_id="${importId}"`);
}

const dayMs = 86_400_000;
