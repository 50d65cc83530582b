/** Formats values as text, in British English and UTC. */
import { boundClientIp, type ClientIpPolicy } from '../shared/record/bounds.js';
import { statusClassOf } from '../shared/status.js';
import type { TimeRange } from '../shared/store/store.js';

/** Placeholder for a missing value. */
const missing = '–';
/** A non-breaking space. */
export const nbsp = '\u00a0';

/** A whole number: `50,000`. */
export function count(value: number): string {
  return number(value, 0);
}

/** A number with at most `digits` fraction digits. */
export function number(value: number, digits: number): string {
  // Fast path for small numbers, which have no separators: `Intl` is ten times as slow.
  if (digits === 0 && value >= 0 && value < 999.5) return String(Math.round(value));
  return (formats[digits] ??= new Intl.NumberFormat('en-GB', { maximumFractionDigits: digits })).format(value);
}

const formats: Intl.NumberFormat[] = [];

/** `0.03 ms`, `3.2 ms`, `38 ms`, `1.24 s`. */
export function duration(valueMs: number | null): string {
  if (valueMs === null) return missing;
  if (valueMs >= 1000) return `${number(valueMs / 1000, valueMs >= 100_000 ? 0 : 2)}${nbsp}s`;
  if (valueMs > 0 && valueMs < 0.01) return `${number(valueMs * 1000, valueMs < 0.001 ? 2 : 0)}${nbsp}µs`;
  return `${number(valueMs, valueMs < 1 ? 2 : valueMs < 10 ? 1 : 0)}${nbsp}ms`;
}

/** A difference of durations: `−3 ms`. */
export function signed(valueMs: number | null): string {
  return valueMs !== null && valueMs < 0 ? `−${duration(-valueMs)}` : duration(valueMs);
}

/** A share from 0 to 1: `0.2 %`; a dash for `null`. */
export function percent(share: number | null): string {
  if (share === null) return missing;
  if (share > 0 && share < 0.0005) return `<${nbsp}0.1${nbsp}%`;
  if (share < 1 && share > 0.9995) return `>${nbsp}99.9${nbsp}%`;
  return `${share === 0 || share === 1 ? share * 100 : (share * 100).toFixed(1)}${nbsp}%`;
}

/** Decimal units: `1.2 MB`. */
export function bytes(value: number | null): string {
  if (value === null) return missing;
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];
  let rest = value;
  let unit = 0;
  while (rest >= 999.5 && unit < units.length - 1) {
    rest /= 1000;
    unit += 1;
  }
  return `${number(rest, unit === 0 || rest >= 100 ? 0 : 1)}${nbsp}${units[unit]}`;
}

/** The part of a range between the store's first data and now. */
export function covered(
  { fromMs, toMs }: TimeRange,
  { firstMs = -Infinity, nowMs }: { firstMs?: number | undefined; nowMs: number },
): TimeRange {
  const endMs = Math.max(fromMs, Math.min(toMs, nowMs));
  return { fromMs: Math.min(Math.max(fromMs, firstMs), endMs), toMs: endMs };
}

/**
 * Requests per second, minute, hour or day, in the unit that suits the value: `3.8/s`, or with a unit, `3.8 req/s`. A
 * dash for an empty range.
 */
export function rate(requests: number, { fromMs, toMs }: TimeRange, unit = ''): string {
  if (toMs <= fromMs) return missing;
  const perSecond = requests / ((toMs - fromMs) / 1000);
  const { seconds, label } = rateUnit(perSecond);
  return `${number(perSecond * seconds, perSecond < 10 ? 1 : 0)}${unit}/${label}`;
}

/** Returns a format for rates up to `perSecondMax` that uses the same unit for all of them: `0.25/s`, `1.2/min`. */
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

/** A past time, to the second, with its day unless that is today. (`3 s ago` would change the ETag of every answer.) */
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

/** `23 Nov`, or `23 Nov 2025` in another year than the current one. */
export function dayOf(timeMs: number, nowMs: number): string {
  const year = new Date(timeMs).getUTCFullYear();
  return year === new Date(nowMs).getUTCFullYear() ? day(timeMs) : `${day(timeMs)}${nbsp}${year}`;
}

/**
 * Labels of the ticks of a time axis: the day at midnight, otherwise the time of day. Labels are unique, and the first
 * one of each year other than the current one includes the year.
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
 * Untrusted text, safe to display: control and direction characters are escaped as `\u{…}`, and text longer than
 * `lengthMax` is truncated. (Pug escapes markup.)
 */
export function printable(text: string, lengthMax: number): string {
  const cut = text.length > lengthMax ? `${text.slice(0, lengthMax).replace(/[\ud800-\udbff]$/, '')}…` : text;
  return cut.replace(
    /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`,
  );
}

/** A stored client address; a truncated one with its prefix length. */
export function clientText(address: string, policy: ClientIpPolicy | undefined): string {
  if (policy !== 'truncated' || boundClientIp(address, policy) !== address || address === '') return address;
  return `${address}/${address.includes(':') ? 48 : 24}`;
}

/** The CSS class of a status. */
export function statusClass(status: number): string {
  const ofStatus = statusClassOf(status);
  return ofStatus === undefined ? 'status-none' : `status-${ofStatus}xx`;
}

/** Width of a bar for a share from 0 to 1, in percent. At least 0.5, to be visible. */
export function barOf(share: number | null): number {
  return Math.max(0.5, Math.round((share ?? 0) * 1000) / 10);
}

/** Counts by reason: `memory-full 1,234`. */
export function reasonsText(counts: Readonly<Record<string, number>>): string {
  return Object.entries(counts)
    .filter(([, lines]) => lines > 0)
    .map(([reason, lines]) => `${printable(reason, 40)} ${count(lines)}`)
    .join(', ');
}
