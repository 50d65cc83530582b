/**
 * Finds the store's high-water mark. Newer requests of a file cannot be duplicates and skip the lookup, as long as
 * nobody else writes to the store.
 */
import { levelRetentionMsMax, levels, windowStart, type Level } from '../../shared/rollup/rollup.js';
import type { Store } from '../../shared/store/store.js';

/** The range of times that a store can have, in milliseconds since 1970: 64 bits of nanoseconds, 1677 to 2262. */
const allTimesMs = { fromMs: -9.2e12, toMs: 9.2e12 };

/** Maximum shift of a request to a unique time, in milliseconds. */
const shiftMsMax = 1000;

/**
 * Resolves to the time from which on the store has neither rows nor rollups, in milliseconds since 1970; `-Infinity` if
 * it is empty. `nowMs`: current time. Throws the store's `StoreError`.
 */
export async function newestStored(store: Pick<Store, 'readRequests' | 'readRollups'>, nowMs: number): Promise<number> {
  const [newest] = await store.readRequests({ ...allTimesMs, filter: {}, limit: 1 });
  const day: Level = 86_400;
  const newestMs = newest?.timeMs ?? (await lastWindow(day, allTimesMs.fromMs));
  if (newestMs === undefined) return -Infinity;
  let endMs = newestMs + shiftMsMax;
  // Uses the finest level that is still complete: windows beyond the retention of their level may be partly deleted.
  for (const level of levels) {
    const windowMs = await lastWindow(level, windowStart(newestMs, level));
    if (windowMs === undefined || nowMs - windowMs > levelRetentionMsMax(level)) continue;
    endMs = Math.max(endMs, windowMs + level * 1000);
    break;
  }
  return endMs;

  async function lastWindow(level: Level, fromMs: number): Promise<number | undefined> {
    const rows = await store.readRollups({ fromMs, toMs: allTimesMs.toMs, level, scope: 'all', filter: {} });
    return rows.length === 0 ? undefined : rows.reduce((last, { windowMs }) => Math.max(last, windowMs), -Infinity);
  }
}
