import { levelsOf, levelRetentionMs, type Level } from '../rollup/rollup.js';
import { topLevels, topRetentionMs } from '../top-list/top-row.js';

/** Retention of the rows of one level. */
export interface WindowRetention {
  /** DuckDB's table, and InfluxDB's measurement. */
  readonly table: 'request_rollup' | 'host_rollup' | 'request_top';
  readonly level: Level;
  /** Retention in milliseconds. */
  readonly retentionMs: number;
}

/**
 * Returns the time, in milliseconds since 1970, before which data with a retention of `retentionMs` has expired, if a
 * range starts more than one window before it. Returns `undefined` if the range is covered, except perhaps for part
 * of its first window, or if the retention is unknown.
 */
export function retainedFrom(
  retentionMs: number | undefined,
  fromMs: number,
  { windowMs, nowMs }: { windowMs: number; nowMs: number },
): number | undefined {
  return retentionMs !== undefined && fromMs < nowMs - retentionMs - windowMs ? nowMs - retentionMs : undefined;
}

/** Returns the retention of rows of all levels, if that of daily ones is `rollupsMs`. */
export function windowRetentions(rollupsMs: number): WindowRetention[] {
  return [
    ...levelsOf.all.map(
      (level) => ({ table: 'request_rollup', level, retentionMs: levelRetentionMs(level, rollupsMs) }) as const,
    ),
    ...levelsOf.host.map(
      (level) => ({ table: 'host_rollup', level, retentionMs: levelRetentionMs(level, rollupsMs, 'host') }) as const,
    ),
    ...topLevels.map(
      (level) => ({ table: 'request_top', level, retentionMs: topRetentionMs(level, rollupsMs) }) as const,
    ),
  ];
}

/** How far ahead of the clock a request may be, in milliseconds. Clocks rarely differ by more than hours. */
const aheadMsMax = 86_400_000;

/** Retention of rollups unless it is set, in milliseconds: the default of `RETENTION_ROLLUPS`. */
const rollupRetentionMsDefault = 400 * 86_400_000;

/**
 * Whether a time in milliseconds since 1970 is plausible for a request: at most a day ahead, and not so old that even
 * its rollups have expired.
 */
export function isPlausibleTime(
  timeMs: number,
  {
    nowMs,
    rollupRetentionMs: ageMsMax = rollupRetentionMsDefault,
  }: { nowMs: number; rollupRetentionMs?: number | undefined },
): boolean {
  return timeMs <= nowMs + aheadMsMax && timeMs >= nowMs - ageMsMax;
}
