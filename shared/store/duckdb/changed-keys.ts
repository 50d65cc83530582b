import { levelsOf, windowStart, type RowKey, type SeriesAggregate } from '../../rollup/rollup.js';

/**
 * Returns the keys of rows of whole sources that aggregates change, at all levels. Rows of their hosts change in the
 * same windows.
 */
export function changedKeys(aggregates: readonly SeriesAggregate[]): RowKey[] {
  const keys = new Map<string, RowKey>();
  for (const {
    series: { source },
    level,
    windowMs,
  } of aggregates) {
    const text = `${source}\n${level}\n${windowMs}`;
    if (!keys.has(text)) keys.set(text, { level, windowMs, source, host: undefined });
  }
  return coarserKeys([...keys.values()]);
}

/** Returns the distinct keys at the given levels and all coarser ones. */
export function coarserKeys(keys: readonly RowKey[]): RowKey[] {
  const all = new Map<string, RowKey>();
  for (const { source, level: finest, windowMs } of keys) {
    for (const level of levelsOf.all) {
      if (level < finest) continue;
      const key = { level, windowMs: windowStart(windowMs, level), source, host: undefined };
      all.set(`${source}\n${level}\n${key.windowMs}`, key);
    }
  }
  return [...all.values()];
}
