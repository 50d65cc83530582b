/**
 * Tells from when on a store holds nothing: what a file has of that time is missing for sure, and need not be looked
 * for. Where nobody else writes to the store, that is so until the import is over.
 */
import { levelRetentionMsMax, levels, windowStart, type Level } from '../../shared/rollup/rollup.js';
import type { Store } from '../../shared/store/store.js';

/** The times that a store can hold, in milliseconds since 1970: nanoseconds in 64 bits go from 1677 to 2262. */
const everMs = { fromMs: -9.2e12, toMs: 9.2e12 };

/** Requests that are moved on to a time of their own come out a little later. In milliseconds. */
const movedMsMax = 1000;

/**
 * Resolves to the time in milliseconds since 1970 from which on the store holds no request, and no window of requests
 * that it does not keep one by one; `-Infinity` for an empty one. `nowMs` is the clock. Throws the store's
 * `StoreError`.
 */
export async function newestStored(store: Pick<Store, 'readRequests' | 'readRollups'>, nowMs: number): Promise<number> {
  const [newest] = await store.readRequests({ ...everMs, filter: {}, limit: 1 });
  const day: Level = 86_400;
  const newestMs = newest?.timeMs ?? (await lastWindow(day, everMs.fromMs));
  if (newestMs === undefined) return -Infinity;
  let endMs = newestMs + movedMsMax;
  // Windows of the finest level that is still there. Of what is too old for its level, parts may be deleted already, in
  // no order.
  for (const level of levels) {
    const windowMs = await lastWindow(level, windowStart(newestMs, level));
    if (windowMs === undefined || nowMs - windowMs > levelRetentionMsMax(level)) continue;
    endMs = Math.max(endMs, windowMs + level * 1000);
    break;
  }
  return endMs;

  async function lastWindow(level: Level, fromMs: number): Promise<number | undefined> {
    const rows = await store.readRollups({ fromMs, toMs: everMs.toMs, level, scope: 'all', filter: {} });
    return rows.length === 0 ? undefined : rows.reduce((last, { windowMs }) => Math.max(last, windowMs), -Infinity);
  }
}
