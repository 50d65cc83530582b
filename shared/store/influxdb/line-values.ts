/**
 * Values in line protocol, and in InfluxDB's responses: the limits of line protocol, and how values are encoded.
 *
 * - A tag cannot be empty. It is omitted; a missing tag reads as `''`.
 * - In a tag, `\` escapes `,`, `=` and space, but not `\` itself. InfluxDB's parsers disagree on `\\,`: some such tags
 *   are accepted, others make it reject the whole batch (seen with 2.7.12). So a `\` never precedes one of the three,
 *   nor ends a tag: a dot is inserted after it, in addition to dots that are already there. `a\` is stored as `a\.`,
 *   `a\.` as `a\..`, `a\,b` as `a\.,b`; `a\b` and `a.` are unchanged. `textOfTag` reverses `tagText` for every value.
 * - A tag cannot contain a line break. None does: see the preconditions in `contract.ts`.
 * - Measurement and tags together are limited to 65,535 bytes. Five tags of 255 characters have at most 3,825 before
 *   escaping.
 * - A string field can contain every character. `"` and `\` are escaped by `\`.
 * - A string field can be empty, but Flux's `pivot` then gives its row the value of a later one (seen with 2.7.12). So
 *   no empty field of a request is written: optional ones are omitted, and an empty `uri` is stored as `-`. A `uri` of
 *   dashes only gets one more: `-` is stored as `--`. `textOfUri` reverses `uriText`.
 * - A float must be finite. All are: see `contract.ts`.
 */
import { nanosecondsText } from '../../request-event.js';
import type { Level } from '../../rollup/rollup.js';

/** Values of the tag `level`, by window length in seconds. */
export const levelTags: Readonly<Record<Level, string>> = { 10: '10s', 60: '1m', 600: '10m', 3600: '1h', 86_400: '1d' };

/** Encodes a tag value: see the top of this file. Also for comparisons in queries. */
export function tagText(value: string): string {
  return value.includes('\\') ? value.replaceAll(backslashBeforeEscape, '$&.') : value;
}

/** Decodes the output of `tagText`; `''` for a missing tag. */
export function textOfTag(stored: string | null | undefined): string {
  if (stored === undefined || stored === null) return '';
  return stored.includes('\\') ? stored.replaceAll(backslashBeforeEscape, (dotted) => dotted.slice(0, -1)) : stored;
}

/** Encodes a `uri`: see the top of this file. Also for comparisons in queries. */
export function uriText(uri: string): string {
  return dashesAlone.test(uri) ? `${uri}-` : uri;
}

/** Decodes the output of `uriText`. */
export function textOfUri(stored: string): string {
  return dashesAlone.test(stored) ? stored.slice(1) : stored;
}

/** Parses a time from InfluxDB, RFC 3339 in UTC with up to nine decimals: `2026-11-23T20:00:00.000000001Z`. */
export function parseTimestamp(text: string): { timeMs: number; timeNs: number } {
  const fraction = text.slice(20, -1).padEnd(9, '0');
  return {
    timeMs: Date.parse(`${text.slice(0, 19)}Z`) + Number(fraction.slice(0, 3)),
    timeNs: Number(fraction.slice(3)),
  };
}

/** The time of a row: the start of its window, plus its id in nanoseconds. */
export function rowTime(windowMs: number, rowId: number): string {
  return nanosecondsText({ timeMs: windowMs + Math.floor(rowId / 1e6), timeNs: rowId % 1e6 });
}

/** A tag value as it stands in a line. */
export function escapeTag(value: string): string {
  return specialInTag.test(value) ? tagText(value).replaceAll(/[,= ]/g, '\\$&') : value;
}

/** A string field as it stands in a line, between its quotes. */
export function escapeString(value: string): string {
  return specialInString.test(value) ? value.replaceAll(/["\\]/g, '\\$&') : value;
}

const dashesAlone = /^-*$/;
/** A backslash and dots before a character that must not follow a backslash. */
const backslashBeforeEscape = /\\\.*(?=[,= ]|$)/g;
/** A single test, since few values need escaping. */
const specialInTag = /[,= \\]/;
const specialInString = /["\\]/;
