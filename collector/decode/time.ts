/**
 * Times as Caddy writes them, to the nanosecond where the text has it. A double holds neither the nanoseconds since
 * 1970 nor the digits that Caddy wrote, so everything is read from text.
 */
import { isCalendarDate } from '../../shared/time-range.js';

/** Whole milliseconds since 1970 in UTC, and the rest in nanoseconds. */
export interface Time {
  readonly timeMs: number;
  readonly timeNs: number;
}

/** Turns a clock on the wall into milliseconds since 1970, given as if the clock showed UTC. */
export type WallClock = (wallMs: number, nearMs: number | undefined) => number;

/** Times that a stored row can have: 1970 to 2200, inside what 64 bits of nanoseconds hold. */
const timeMaxMs = Date.UTC(2200, 0, 1);

/**
 * A time from JSON: `unix_seconds_float`, `unix_milli_float` and `unix_nano` are told apart by their size. `line` is
 * where an integer of nanoseconds is read again: above 2^53 JSON.parse has rounded it.
 */
export function readTimeNumber(value: number, line: string): Time | undefined {
  if (value < 1e15) return readDecimal(String(value), 0);
  // Only a key stands before a colon outside of strings; inside them nobody can foresee the nanosecond.
  for (const [, digits] of line.matchAll(/:\s?(\d{16,19})\s?[,}]/g)) {
    if (Number(digits) === value) return timeOfNanoseconds(digits!);
  }
  return undefined;
}

/**
 * A time from text: `iso8601`, `rfc3339`, `rfc3339_nano`, `wall`, `wall_milli`, `wall_nano`, `common_log`, or, from the
 * console encoder, a number. `wallClock` reads those without a zone; `nearMs` is about when it was written, if known.
 */
export function readTimeText(text: string, wallClock: WallClock, nearMs: number | undefined): Time | undefined {
  if (text.length < 10 || text.length > 40) return undefined;
  return (
    readCalendar(text, wallClock, nearMs) ??
    readCommonLog(text) ??
    (/^\d{19}$/.test(text) ? timeOfNanoseconds(text) : readDecimal(withoutExponent(text), 10))
  );
}

/** The console encoder writes seconds as `1.7954768928295252e+09`, and milliseconds likewise. */
function withoutExponent(text: string): string {
  const match = /^(\d)(?:\.(\d{1,17}))?e\+(09|12)$/.exec(text);
  if (match === null) return text;
  const [, first, rest = '', exponent] = match;
  const digits = rest.padEnd(18, '0');
  return `${first}${digits.slice(0, Number(exponent))}.${digits.slice(Number(exponent))}`;
}

/** Seconds of up to ten digits or milliseconds of up to thirteen. */
function readDecimal(text: string, digitsMin: number): Time | undefined {
  const match = /^(\d{1,13})(?:\.(\d{1,9})\d*)?$/.exec(text);
  if (match === null) return undefined;
  const [, whole = '', fraction = ''] = match;
  if (whole.length < digitsMin) return undefined;
  if (whole.length > 10) return timeWithin(Number(whole), Number(fraction.slice(0, 6).padEnd(6, '0')));
  const digits = fraction.padEnd(9, '0');
  return timeWithin(Number(whole) * 1000 + Number(digits.slice(0, 3)), Number(digits.slice(3)));
}

function timeOfNanoseconds(digits: string): Time | undefined {
  return timeWithin(Number(digits.slice(0, -6)), Number(digits.slice(-6)));
}

/**
 * `2026-11-23T20:04:57.626Z`, `2026-11-23T20:04:57+01:00`, `2026/11/23 20:04:57.626`: the fraction and the zone may be
 * missing.
 */
function readCalendar(text: string, wallClock: WallClock, nearMs: number | undefined): Time | undefined {
  const match = /^(\d{4})([-/])(\d\d)\2(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?: ?(Z|[+-]\d\d:?\d\d))?$/.exec(
    text,
  );
  if (match === null) return undefined;
  const [, year, , month, day, hour, minute, second, fraction = '', zone] = match;
  if (!isCalendarDate(Number(year), Number(month), Number(day))) return undefined;
  const wallMs = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second));
  const digits = fraction.padEnd(9, '0');
  const timeMs = zone === undefined ? wallClock(wallMs, nearMs) : wallMs - zoneMs(zone);
  return timeWithin(timeMs + Number(digits.slice(0, 3)), Number(digits.slice(3)));
}

const months = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'];

/** `23/Nov/2026:20:04:57 +0000` */
function readCommonLog(text: string): Time | undefined {
  const match = /^(\d\d)\/([A-Z][a-z]{2})\/(\d{4}):(\d\d):(\d\d):(\d\d) ([+-]\d{4})$/.exec(text);
  if (match === null) return undefined;
  const [, day, month, year, hour, minute, second, zone] = match;
  const monthIndex = months.indexOf(month!);
  if (!isCalendarDate(Number(year), monthIndex + 1, Number(day))) return undefined;
  return timeWithin(
    Date.UTC(Number(year), monthIndex, Number(day), Number(hour), Number(minute), Number(second)) - zoneMs(zone!),
    0,
  );
}

/** `Z`, `+0100` or `+01:00`. */
function zoneMs(zone: string): number {
  if (zone === 'Z') return 0;
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(-2));
  return (zone.startsWith('-') ? -minutes : minutes) * 60_000;
}

function timeWithin(timeMs: number, timeNs: number): Time | undefined {
  return timeMs >= 0 && timeMs < timeMaxMs ? { timeMs, timeNs } : undefined;
}
