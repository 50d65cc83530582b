import type { WallClock } from './time.js';

/** Zones change their offset at a quarter of an hour of local time, so offsets are cached per quarter. */
const quarterMs = 900_000;
const quartersMax = 1000;
const dayMs = 86_400_000;

/**
 * Creates a converter from local time in an IANA time zone (`UTC`, `Europe/Berlin`). Throws a `RangeError` if there
 * is no such zone. For the repeated hour at the end of daylight saving time, returns the time nearer to `nearMs`, or
 * the first if that is unknown. For the skipped hour at its start, uses the offset before it.
 */
export function createWallClock(timeZone: string): WallClock {
  if (timeZone === 'UTC') return (wallMs) => wallMs;
  const format = formatOf(timeZone);
  const offsets = new Map<number, readonly number[]>();
  return (wallMs, nearMs) => {
    const [first, second] = offsetsOf(Math.floor(wallMs / quarterMs));
    if (second === undefined || nearMs === undefined) return wallMs - first!;
    return Math.abs(wallMs - first! - nearMs) <= Math.abs(wallMs - second - nearMs) ? wallMs - first! : wallMs - second;
  };

  /** The offsets that the zone can have at this quarter of local time, the earlier first. */
  function offsetsOf(quarter: number): readonly number[] {
    let found = offsets.get(quarter);
    if (found === undefined) {
      const wallMs = quarter * quarterMs;
      const around = [...new Set([offsetAt(wallMs - dayMs), offsetAt(wallMs + dayMs)])];
      const valid = around.filter((offsetMs) => offsetAt(wallMs - offsetMs) === offsetMs);
      found = valid.length > 0 ? valid : around.slice(0, 1);
      if (offsets.size >= quartersMax) offsets.clear();
      offsets.set(quarter, found);
    }
    return found;
  }

  function offsetAt(timeMs: number): number {
    return offsetOf(format, timeMs);
  }
}

/**
 * Offset of an IANA time zone from UTC at a time, in milliseconds. Throws a `RangeError` if there is no such zone.
 */
export function zoneOffsetMs(timeZone: string, timeMs: number): number {
  return offsetOf(formatOf(timeZone), timeMs);
}

function formatOf(timeZone: string): Intl.DateTimeFormat {
  return new Intl.DateTimeFormat('en', {
    timeZone,
    hourCycle: 'h23',
    era: 'short',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
}

function offsetOf(format: Intl.DateTimeFormat, timeMs: number): number {
  const wholeMs = Math.floor(timeMs / 1000) * 1000;
  const parts = Object.fromEntries(format.formatToParts(wholeMs).map(({ type, value }) => [type, Number(value)]));
  const { year, month, day, hour, minute, second } = parts as Record<
    'year' | 'month' | 'day' | 'hour' | 'minute' | 'second',
    number
  >;
  return Date.UTC(year, month - 1, day, hour, minute, second) - wholeMs;
}
