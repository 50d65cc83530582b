import {
  addEvent, addTally, copyTally, emptyTally, finestLevel, isClosing, latencyBucketOf, levels, randomRowIds, seriesKey, windowStart,
  type Level, type RollupRow, type RowIds, type Series, type Tally,
} from './rollup.js';
import type { RequestEvent } from './request-event.js';

/**
 * Turns requests into rollup rows of every level. A request touches one tally of the finest level; `drain` merges what
 * has gathered into the rows of all levels, which are cumulative while their window is open.
 */
export interface RollupLadder {
  /** Counts a request. `key` is its `seriesKey`, and `bucket` that of its latency, where they are known already; `isKept` as in `addEvent`. */
  add(event: RequestEvent, key?: string, bucket?: number, isKept?: boolean): void;
  /** Rows of the finest level that have gathered. */
  readonly gatheredRows: number;
  /** Every row that changed since the last call, as it stands now. */
  drain(nowMs: number): RollupRow[];
  /** Closes all rows: what is not drained yet, and what comes, goes into further ones. */
  closeRows(): void;
}

interface OpenRow {
  readonly row: RollupRow;
  writtenMs: number;
  changed: boolean;
}

/** How often open rows are looked through, in milliseconds. */
const lookEveryMs = 10_000;

/**
 * `openRowsMax` bounds the memory: beyond it the rows that were not written for longest are closed; a request that comes
 * for one of them later opens a further row, and the rows add up; see `isClosing`.
 */
export function createRollupLadder({ openRowsMax = 50_000, rowIds = randomRowIds() }: { openRowsMax?: number; rowIds?: RowIds } = {}): RollupLadder {
  /** By the key of its series, and by the window of the finest level. */
  const gathered = new Map<string, { readonly series: Series; readonly tallies: Map<number, Tally> }>();
  // In the order in which they were last written.
  const open = new Map<string, OpenRow>();
  let lookedMs = -Infinity;
  let gatheredRows = 0;

  return {
    get gatheredRows() { return gatheredRows; },

    add(event, key = seriesKey(event), bucket = latencyBucketOf(event), isKept = true) {
      const windowMs = windowStart(event.timeMs, finestLevel);
      let entry = gathered.get(key);
      if (entry === undefined) {
        const { source, host, method, status } = event;
        gathered.set(key, entry = { series: { source, host, method, status }, tallies: new Map() });
      }
      let tally = entry.tallies.get(windowMs);
      if (tally === undefined) {
        entry.tallies.set(windowMs, tally = emptyTally());
        gatheredRows += 1;
      }
      addEvent(tally, event, bucket, isKept);
    },

    drain(nowMs) {
      const changed: OpenRow[] = [];
      let oldestMs = gathered.size > 0 ? Infinity : -Infinity;
      for (const [key, { series, tallies }] of gathered) {
        for (const [windowMs, tally] of tallies) {
          oldestMs = Math.min(oldestMs, windowMs);
          for (const level of levels) {
            const entry = openRow(series, key, level, windowStart(windowMs, level));
            addTally(entry.row, tally);
            if (!entry.changed) changed.push(entry);
            entry.changed = true;
            entry.writtenMs = nowMs;
          }
        }
      }
      gathered.clear();
      gatheredRows = 0;
      for (const entry of changed) entry.changed = false;
      closeOld(nowMs, oldestMs);
      return changed.map(({ row }) => ({ ...row, ...copyTally(row) }));
    },

    closeRows() {
      open.clear();
      rowIds.onClosed();
    },
  };

  function openRow(series: Series, seriesText: string, level: Level, windowMs: number): OpenRow {
    const key = `${level}\n${windowMs}\n${seriesText}`;
    let entry = open.get(key);
    if (entry === undefined) {
      entry = { row: { level, windowMs, rowId: rowIds.draw(), series, ...emptyTally() }, writtenMs: 0, changed: false };
    } else {
      open.delete(key);
    }
    open.set(key, entry);
    return entry;
  }

  function closeOld(nowMs: number, oldestMs: number): void {
    // Time alone closes a row after minutes: there is no hurry.
    if (open.size <= openRowsMax / 10 && Math.abs(nowMs - lookedMs) < lookEveryMs) return;
    lookedMs = nowMs;
    const openBefore = open.size;
    for (const [key, { row, writtenMs }] of open) {
      if (isClosing(row, writtenMs, { open: open.size, openMax: openRowsMax, oldestMs, nowMs })) open.delete(key);
    }
    if (open.size < openBefore) rowIds.onClosed();
  }
}
