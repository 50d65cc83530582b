import { fineLevelKeptMs, levels, windowStart, type Level } from './rollup.js';
import type { TimeRange } from './store/store.js';

/** A page reads at most about this many windows, so that its cost does not depend on the range. */
export const windowsMax = 180;

/**
 * The finest level that covers a range with at most `windowsMax` windows and is still kept at its beginning; the coarsest
 * when there is none.
 */
export function levelFor({ fromMs, toMs }: TimeRange, nowMs: number): Level {
  const fits = (level: Level): boolean => (toMs - fromMs) / (level * 1000) <= windowsMax;
  const isKept = (level: Level): boolean => nowMs - fromMs <= (fineLevelKeptMs[level] ?? Infinity);
  return levels.find((level) => fits(level) && isKept(level)) ?? 86_400;
}

/** The range widened to whole windows: what rollups can answer exactly. */
export function alignRange({ fromMs, toMs }: TimeRange, level: Level): TimeRange {
  return { fromMs: windowStart(fromMs, level), toMs: windowStart(toMs - 1, level) + level * 1000 };
}

const relativeUnitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** What `parseTime` takes, for messages. */
export const timeSyntax = 'now, now-15m (s, m, h or d), or RFC 3339 such as 2026-11-23T19:00:00Z';

/** Reads `now`, `now-1h` or RFC 3339 into milliseconds since 1970; `undefined` when the text is none of these. */
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

/** Whether a date exists. `Date` takes 31 February for 3 March. */
export function isCalendarDate(year: number, month: number, day: number): boolean {
  const date = new Date(Date.UTC(year, month - 1, day));
  return date.getUTCMonth() === month - 1 && date.getUTCDate() === day;
}

/** RFC 3339 in UTC, without empty fractions: `2026-11-23T20:00:00Z`. */
export function isoTime(timeMs: number): string {
  return new Date(timeMs).toISOString().replace('.000Z', 'Z');
}
