/**
 * Splits packed cells that are too long for one string field into the fields `cells`, `cells_2`, `cells_3`, ….
 * InfluxDB's documentation allows 64 KiB; 2.7.12 accepts 1 MiB. A row has at most 18,000 cells (18 methods, 1,000
 * statuses) of at most 15 kB.
 *
 * `cells` then starts with `FIELDS:CRC:`: the number of fields, and the CRC-32 of the packed cells in hexadecimal.
 * Packed cells never start like this. The fields of a point become visible one after another, so a read may find those of
 * two versions of a row, which the CRC detects. Fields beyond that number belong to an earlier version and are
 * ignored.
 */
import { crc32 } from 'node:zlib';

/** Maximum length of one part, without the header, in bytes. */
const partLengthMax = 60_000;

/** The values of the fields, in order: one unless the packed cells are too long. */
export function splitCells(packed: string): string[] {
  if (packed.length <= partLengthMax) return [packed];
  const parts = Array.from({ length: Math.ceil(packed.length / partLengthMax) }, (_, at) =>
    packed.slice(at * partLengthMax, (at + 1) * partLengthMax),
  );
  parts[0] = `${parts.length}:${checksumOf(packed)}:${parts[0]!}`;
  return parts;
}

/** Whether the field `cells` holds only the first part. */
export function isSplit(cells: string): boolean {
  return header.test(cells);
}

/**
 * The packed cells whose parts `splitCells` made, by their number from 1 on. `undefined` if parts are missing or of
 * another version of the row.
 */
export function joinCells(parts: ReadonlyMap<number, string>): string | undefined {
  const first = parts.get(1) ?? '';
  const [found, length, checksum] = header.exec(first) ?? [];
  if (found === undefined) return first;
  let packed = first.slice(found.length);
  for (let part = 2; part <= Number(length); part += 1) packed += parts.get(part) ?? '';
  return checksumOf(packed) === checksum ? packed : undefined;
}

const header = /^(\d{1,6}):([\da-f]{1,8}):/;

function checksumOf(text: string): string {
  return crc32(text).toString(16);
}
