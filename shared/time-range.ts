import { levelRetentionMsMax, levelsOf, windowStart, type Level, type Scope } from './rollup/rollup.js';
import type { TimeRange } from './store/store.js';

/** A page reads at most about this many windows, so that its cost does not depend on the range. */
export const windowsMax = 180;

/**
 * Returns the finest level that covers a range with at most `windowsMax` windows and still retains its start; the
 * coarsest level if there is none.
 */
export function levelFor({ fromMs, toMs }: TimeRange, nowMs: number, scope: Scope = 'all'): Level {
  const fits = (level: Level): boolean => (toMs - fromMs) / (level * 1000) <= windowsMax;
  const isRetained = (level: Level): boolean => nowMs - fromMs <= retentionShare * levelRetentionMsMax(level, scope);
  return levelsOf[scope].find((level) => fits(level) && isRetained(level)) ?? 86_400;
}

/** Share of a level's retention that is read. Older rows may be deleted, or were never written. */
const retentionShare = 0.75;

/** The range widened to whole windows: what rollups can answer exactly. */
export function alignRange({ fromMs, toMs }: TimeRange, level: Level): TimeRange {
  return { fromMs: windowStart(fromMs, level), toMs: windowStart(toMs - 1, level) + level * 1000 };
}

/**
 * Covers a range with the fewest windows of these levels, finest first: a day takes one row instead of 1,440. The range
 * consists of whole windows of the finest level. Coarser windows end by `settledMs`, in milliseconds since 1970: rows
 * of open windows may be stale.
 */
export function coverRange<Of extends Level>(
  { fromMs, toMs }: TimeRange,
  levels: readonly Of[],
  settledMs = Infinity,
): (TimeRange & { readonly level: Of })[] {
  const coarsest = levels.at(-1);
  if (coarsest === undefined || fromMs >= toMs) return [];
  if (levels.length === 1) return [{ level: coarsest, fromMs, toMs }];
  const finer = levels.slice(0, -1);
  const lengthMs = coarsest * 1000;
  const first = Math.ceil(fromMs / lengthMs) * lengthMs;
  const end = Math.floor(Math.min(toMs, settledMs) / lengthMs) * lengthMs;
  if (first >= end) return coverRange({ fromMs, toMs }, finer, settledMs);
  return [
    ...coverRange({ fromMs, toMs: first }, finer, settledMs),
    { level: coarsest, fromMs: first, toMs: end },
    ...coverRange({ fromMs: end, toMs }, finer, settledMs),
  ];
}

const relativeUnitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Syntax of `parseTime`, for messages. */
export const timeSyntax = 'now, now-15m (s, m, h or d), or RFC 3339 such as 2026-11-23T19:00:00Z';

/** Parses `now`, `now-1h` or RFC 3339 into milliseconds since 1970; returns `undefined` for any other text. */
export function parseTime(text: string, nowMs: number): number | undefined {
  const relative = /^now(?:-(\d{1,9})([smhd]))?$/.exec(text);
  if (relative) {
    const [, amount, unit] = relative;
    return amount === undefined ? nowMs : nowMs - Number(amount) * relativeUnitsMs[unit!]!;
  }
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)$/.test(text)) return undefined;
  const [year, month, day] = text.slice(0, 10).split('-').map(Number) as [number, number, number];
  if (!isCalendarDate(year, month, day)) return undefined;
  const timeMs = Date.parse(text);
  return Number.isNaN(timeMs) ? undefined : timeMs;
}

/** Whether a date exists. `Date` turns 31 February into 3 March. */
export function isCalendarDate(year: number, month: number, day: number): boolean {
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

/** RFC 3339 in UTC, without empty fractions: `2026-11-23T20:00:00Z`. */
export function isoTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace('.000Z', 'Z');
}
