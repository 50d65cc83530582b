/**
 * Remembers imported requests, so that a repeated import is detected after their rows are deleted
 * (`RETENTION_REQUESTS`).
 *
 * An entry has 16 bytes: the time and a 48-bit key. Entries are packed by hour and source. See docs/decisions/0008.
 */
import { hash } from 'node:crypto';
import { clampBytes, boundDuration, boundMethod, truncateText, cleanName, uriLengthMax } from './bounds.js';
import { groupBy } from '../group-by.js';
import type { RequestEvent } from '../request-event.js';
import { rowIdEnd, windowStart } from '../rollup/rollup.js';

/** An imported request. */
export interface ImportedRequest {
  readonly source: string;
  /** Time in the log line. The stored row may have a later one: see `shiftNs`. */
  readonly timeMs: number;
  readonly timeNs: number;
  /** How much later the stored row is, in nanoseconds: the recorder makes times unique within a series. */
  readonly shiftNs: number;
  /** 48-bit hash of the time and the `dedupeKey`. */
  readonly key: number;
}

/** Imported requests of one hour and source, as stored. A row is never updated. */
export interface ImportedRow {
  /** Id of the import: its start, in milliseconds since 1970. */
  readonly importId: number;
  /** Start of the hour. */
  readonly windowMs: number;
  /** Distinguishes rows of the same hour, as in a rollup row. */
  readonly rowId: number;
  readonly source: string;
  /**
   * Base64 of one entry per request: nanoseconds since the start of the hour (6 bytes), key (6 bytes), shift (4
   * bytes).
   */
  readonly packed: string;
}

/** InfluxDB limits strings to 64 KiB. */
const entriesPerRow = 3000;
/** Size of an entry before Base64. */
export const importedBytes = 16;
const shiftNsMax = 2 ** 32 - 1;
const hour = 3600;

/**
 * Identifies duplicates by bounded fields, as the recorder bounds them. Host and client are left out: their bounds
 * depend on settings and on earlier requests.
 */
export function dedupeKey({ source, method, status, uri, durationMs, size, bytesRead }: RequestEvent): string {
  const text = `${status} ${digitsOf(boundDuration(durationMs))} ${clampBytes(size)} ${clampBytes(bytesRead)} ${boundMethod(method)} ${cleanName(source)}\n${truncateText(uri, uriLengthMax)}`;
  return hash('sha1', text, 'hex'); // a URI can have 8 KiB, and many keys are remembered
}

/**
 * Significant digits only: the decoder infers the unit (`ns` or `ms`) of integers, and may infer another the next
 * time.
 */
function digitsOf(durationMs: number | null): string {
  return durationMs === null ? '' : durationMs.toExponential().split('e', 1)[0]!;
}

/** Key of a request with the time of its log line. */
export function importKey(
  request: RequestEvent,
  { timeMs, timeNs }: Pick<RequestEvent, 'timeMs' | 'timeNs'> = request,
): number {
  return Number.parseInt(hash('sha1', `${dedupeKey(request)} ${timeMs} ${timeNs}`, 'hex').slice(0, 12), 16);
}

/** Packs requests of one import. `random` returns numbers from 0 to 1. */
export function packImported(
  importId: number,
  requests: readonly ImportedRequest[],
  random = Math.random,
): ImportedRow[] {
  const groups = groupBy(requests, ({ timeMs, source }) => `${windowStart(timeMs, hour)} ${source}`);
  const rows: ImportedRow[] = [];
  for (const group of groups.values()) {
    for (let from = 0; from < group.length; from += entriesPerRow) {
      const part = group.slice(from, from + entriesPerRow);
      const windowMs = windowStart(part[0]!.timeMs, hour);
      const bytes = Buffer.allocUnsafe(part.length * importedBytes);
      for (const [at, { timeMs, timeNs, key, shiftNs }] of part.entries()) {
        bytes.writeUIntBE((timeMs - windowMs) * 1e6 + timeNs, at * importedBytes, 6);
        bytes.writeUIntBE(key, at * importedBytes + 6, 6);
        bytes.writeUInt32BE(Math.min(shiftNs, shiftNsMax), at * importedBytes + 12);
      }
      rows.push({
        importId,
        windowMs,
        rowId: Math.floor(random() * rowIdEnd),
        source: part[0]!.source,
        packed: bytes.toString('base64'),
      });
    }
  }
  return rows;
}

/** Unpacks the requests of a row. */
export function unpackImported({ windowMs, source, packed }: ImportedRow): ImportedRequest[] {
  const bytes = Buffer.from(packed, 'base64');
  return Array.from({ length: Math.floor(bytes.length / importedBytes) }, (_, at) => {
    const offsetNs = bytes.readUIntBE(at * importedBytes, 6);
    return {
      source,
      timeMs: windowMs + Math.floor(offsetNs / 1e6),
      timeNs: offsetNs % 1e6,
      key: bytes.readUIntBE(at * importedBytes + 6, 6),
      shiftNs: bytes.readUInt32BE(at * importedBytes + 12),
    };
  });
}
