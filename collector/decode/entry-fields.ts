import type { JsonObject } from './json-object.js';

/**
 * Maximum number of keys that an encoder writes before the fields of a line: level, time, logger, caller, function,
 * message, and one to spare.
 */
export const leadingMax = 7;

/**
 * Numeric fields of an access line. If something has sorted the keys, they precede the request and must not be taken
 * for a time.
 */
const accessFields = new Set(['bytes_read', 'duration', 'size', 'status']);

/** The values that the encoder itself wrote. They precede the fields, and their keys are configurable. */
export function leadingValues(fields: JsonObject): unknown[] {
  const values = [];
  for (const key in fields) {
    if (key === 'request' || values.length === leadingMax) break;
    if (!accessFields.has(key)) values.push(fields[key]);
  }
  return values;
}

const timeNames = /^[@_]?(?:ts|time|timestamp|date|date_?time|event_?time|log_?time)$/i;

/** Values under common names for a time, except `ts`. */
export function timesByName(fields: JsonObject): unknown[] {
  const values = [];
  for (const key in fields) if (key !== 'ts' && timeNames.test(key)) values.push(fields[key]);
  return values;
}

/**
 * Number of positions at which zap may write the time: after the level, or first without a level. Smaller numbers than
 * `timeNumberMin` are counts or durations.
 */
const timePositions = 2;
const timeNumberMin = 1e9;

/**
 * Candidates for a time with an unknown key: strings, and numbers at the position of the time that are none of Caddy's
 * other numbers.
 */
export function valuesAtTimePosition(fields: JsonObject): unknown[] {
  const numbers = new Set(
    Object.keys(fields)
      .slice(0, timePositions)
      .filter((key) => !accessFields.has(key))
      .map((key) => fields[key]),
  );
  return leadingValues(fields).filter(
    (value) => typeof value === 'string' || (typeof value === 'number' && value >= timeNumberMin && numbers.has(value)),
  );
}

/**
 * Caddy's own value of a key that `log_append` repeated, since JSON.parse keeps the last one. Quotes within strings are
 * escaped, so a match is a key. `duration`, `size` and `status` match only as the sequence that Caddy writes.
 */
export function firstWritten(key: keyof typeof firstPatterns, line: string): string | number | undefined {
  const text = firstPatterns[key].exec(line)?.groups?.[key];
  if (text === undefined) return undefined;
  return text.startsWith('"') ? text.slice(1, -1) : Number(text);
}

const together =
  /"duration":(?<duration>"[^"\\]{1,40}"|[\d.]{1,30}),"size":(?<size>\d{1,16}),"status":(?<status>\d{1,3})[,}]/;
const firstPatterns = {
  ts: /"ts":(?<ts>"[^"\\]{1,40}"|[\d.]{1,30})[,}]/,
  logger: /"logger":(?<logger>"[^"\\]{1,300}")[,}]/,
  duration: together,
  size: together,
  status: together,
};

/** Accepts 0 to 999, also as a string. */
export function statusOf(value: unknown): number | undefined {
  const status = countOf(value);
  return status === undefined || status > 999 ? undefined : status;
}

/** Accepts a string. Returns `''` for any other value. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** Accepts an integer of at least 0, also as a string. */
export function countOf(value: unknown): number | undefined {
  const count = typeof value === 'string' && /^\d{1,15}$/.test(value) ? Number(value) : value;
  return Number.isSafeInteger(count) && (count as number) >= 0 ? (count as number) : undefined;
}

/** Returns a `Content-Type` without its parameters, in lower case. */
export function mediaType(contentType: string): string {
  const end = contentType.indexOf(';');
  return (end === -1 ? contentType : contentType.slice(0, end)).trim().toLowerCase();
}

/** The first value of a header: Caddy writes arrays of strings, but some of its filters a single string. */
export function firstOf(header: unknown): string {
  return Array.isArray(header) ? textOf(header[0]) : textOf(header);
}
