/** Values as text for people, in British English and UTC. */
import { boundClientIp, type ClientIpPolicy } from '../shared/record/bounds.js';
import type { TimeRange } from '../shared/store/store.js';

/** What stands for a value that is not there. */
const none = '–';
/** A space at which no line is broken. */
export const nbsp = '\u00a0';

/** A whole number: `50,000`. */
export function count(value: number): string {
  return number(value, 0);
}

/** At most `digits` digits after the point. */
export function number(value: number, digits: number): string {
  // Most are small: nothing of theirs depends on the language, and `Intl` takes ten times as long.
  if (digits === 0 && value >= 0 && value < 999.5) return String(Math.round(value));
  return (formats[digits] ??= new Intl.NumberFormat('en-GB', { maximumFractionDigits: digits })).format(value);
}

const formats: Intl.NumberFormat[] = [];

/** `0.03 ms`, `3.2 ms`, `38 ms`, `1.24 s`. */
export function duration(valueMs: number | null): string {
  if (valueMs === null) return none;
  if (valueMs >= 1000) return `${number(valueMs / 1000, valueMs >= 100_000 ? 0 : 2)}${nbsp}s`;
  if (valueMs > 0 && valueMs < 0.01) return `${number(valueMs * 1000, valueMs < 0.001 ? 2 : 0)}${nbsp}µs`;
  return `${number(valueMs, valueMs < 1 ? 2 : valueMs < 10 ? 1 : 0)}${nbsp}ms`;
}

/** A difference of durations: `−3 ms`. */
export function signed(valueMs: number | null): string {
  return valueMs !== null && valueMs < 0 ? `−${duration(-valueMs)}` : duration(valueMs);
}

/** A share of 1: `0.2 %`; a dash where it is a share of nothing. */
export function percent(share: number | null): string {
  if (share === null) return none;
  if (share > 0 && share < 0.0005) return `<${nbsp}0.1${nbsp}%`;
  if (share < 1 && share > 0.9995) return `>${nbsp}99.9${nbsp}%`;
  return `${share === 0 || share === 1 ? share * 100 : (share * 100).toFixed(1)}${nbsp}%`;
}

/** Decimal units: `1.2 MB`. */
export function bytes(value: number | null): string {
  if (value === null) return none;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let rest = value;
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${number(rest, unit === 0 || rest >= 100 ? 0 : 1)}${nbsp}${units[unit]}`;
}

/**
 * The part of a range of which anything can be known: from the store's first data, if that is later than its beginning,
 * to now, if that is before its end.
 */
export function covered(
  { fromMs, toMs }: TimeRange,
  { firstMs = -Infinity, nowMs }: { firstMs?: number | undefined; nowMs: number },
): TimeRange {
  const endMs = Math.max(fromMs, Math.min(toMs, nowMs));
  return { fromMs: Math.min(Math.max(fromMs, firstMs), endMs), toMs: endMs };
}

/**
 * Requests per second, minute, hour or day, whichever says most: `3.8/s`, or with a unit, `3.8 req/s`. A dash where no
 * time has passed.
 */
export function rate(requests: number, { fromMs, toMs }: TimeRange, unit = ''): string {
  if (toMs <= fromMs) return none;
  const perSecond = requests / ((toMs - fromMs) / 1000);
  const { seconds, label } = rateUnit(perSecond);
  return `${number(perSecond * seconds, perSecond < 10 ? 1 : 0)}${unit}/${label}`;
}

/** A format for rates per second of which the greatest is known, so that all have one unit: `0.25/s`, `1.2/min`. */
export function rateFormat(perSecondMax: number): (perSecond: number) => string {
  const { seconds, label } = rateUnit(perSecondMax);
  return (perSecond) => `${number(perSecond * seconds, perSecond * seconds < 10 ? 2 : 0)}/${label}`;
}

const rateUnits = [
  { label: 's', seconds: 1 },
  { label: 'min', seconds: 60 },
  { label: 'h', seconds: 3600 },
  { label: 'd', seconds: 86_400 },
] as const;

function rateUnit(perSecond: number): (typeof rateUnits)[number] {
  if (perSecond === 0) return rateUnits[0];
  return rateUnits.find(({ seconds }) => perSecond * seconds >= 0.1) ?? rateUnits[3];
}

/**
 * A time that has passed, to the second, with its day where that is not today. (`3 s ago` would make every answer a new
 * one.)
 */
export function moment(timeMs: number, nowMs: number): string {
  return `${dayOf(timeMs, nowMs) === day(nowMs) ? '' : `${dayOf(timeMs, nowMs)}${nbsp}`}${new Date(timeMs).toISOString().slice(11, 19)}`;
}

/** `10-second`, `1-minute`, … */
export function windowLength(stepMs: number): string {
  const seconds = stepMs / 1000;
  if (seconds < 60) return `${seconds}-second`;
  if (seconds < 3600) return `${seconds / 60}-minute`;
  return seconds < 86_400 ? `${seconds / 3600}-hour` : `${seconds / 86_400}-day`;
}

/** `20:00` in UTC. */
export function clock(timeMs: number): string {
  return new Date(timeMs).toISOString().slice(11, 16);
}

/** `23 Nov` in UTC. */
export function day(timeMs: number): string {
  const time = new Date(timeMs);
  return `${time.getUTCDate()}${nbsp}${['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'][time.getUTCMonth()]}`;
}

/** `23 Nov`, or `23 Nov 2025` where that is another year than now. */
export function dayOf(timeMs: number, nowMs: number): string {
  const year = new Date(timeMs).getUTCFullYear();
  return year === new Date(nowMs).getUTCFullYear() ? day(timeMs) : `${day(timeMs)}${nbsp}${year}`;
}

/**
 * The ticks of an axis of time: the day at midnight, else the time of day, as exactly as they are apart. No two are the
 * same, and the first one of another year than now says which.
 */
export function timeTicks(timesMs: readonly number[], nowMs: number): string[] {
  const yearOf = (timeMs: number): number => new Date(timeMs).getUTCFullYear();
  const hasSeconds = timesMs.some((timeMs) => timeMs % 60_000 !== 0);
  return timesMs.map((timeMs, at) => {
    const isMidnight = timeMs % 86_400_000 === 0;
    const time = isMidnight ? '' : new Date(timeMs).toISOString().slice(11, hasSeconds ? 19 : 16);
    const hasNewYear = yearOf(timeMs) !== (at === 0 ? yearOf(nowMs) : yearOf(timesMs[at - 1]!));
    const date = hasNewYear ? `${day(timeMs)}${nbsp}${yearOf(timeMs)}` : isMidnight ? day(timeMs) : '';
    return [date, time].filter((part) => part !== '').join(nbsp);
  });
}

/**
 * Text from strangers, made safe to look at: control and direction characters as `\u{…}`, and cut at `lengthMax`
 * characters. (Pug escapes markup.)
 */
export function printable(text: string, lengthMax: number): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax).replace(/[\ud800-\udbff]$/, '')}…` : text;
  return cut.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** A stored client address: with the prefix that it stands for, where addresses are truncated. */
export function clientText(address: string, policy: ClientIpPolicy | undefined): string {
  if (policy !== 'truncated' || boundClientIp(address, policy) !== address || address === '') return address;
  return `${address}/${address.includes(':') ? 48 : 24}`;
}

/** The class that gives a status its colour. */
export function statusClass(status: number): string {
  return status >= 100 && status <= 599 ? `status-${Math.floor(status / 100)}xx` : 'status-none';
}

/** A share of 1 as a part of 100 for a bar, which is never too short to be seen. */
export function barOf(share: number | null): number {
  return Math.max(0.5, Math.round((share ?? 0) * 1000) / 10);
}

/** Counts by reason as text: `memory-full 1,234`. */
export function reasonsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, lines]) => lines > 0)
    .map(([reason, lines]) => `${printable(reason, 40)} ${count(lines)}`)
    .join(', ');
}
