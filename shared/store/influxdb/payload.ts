/**
 * A batch as the spool keeps it and InfluxDB takes it: line protocol in bodies of at most 5,000 lines, each compressed with gzip.
 *
 * A payload is its bodies one behind the other, each with a header of eight bytes in little-endian: how many lines it has, and how
 * many bytes it takes compressed. The lines of requests come first, then those of rollup rows and of top lists. Each body ends with a line break, so
 * that several compressed bodies one behind the other are one body again (RFC 1952, 2.2).
 */
import { promisify } from 'node:util';
import { gunzip as gunzipCallback, gzipSync } from 'node:zlib';
import { createMemo } from '../../memo.js';
import type { Batch } from '../store.js';
import { createRequestLines, rollupLine, topLine } from './line-protocol.js';

const gunzip = promisify(gunzipCallback);

/** Lines of line protocol, compressed. */
export interface Body {
  readonly lines: number;
  readonly gzip: Buffer;
}

/** What InfluxDB recommends for one write. */
export const linesMax = 5000;
/** A line of a top list can have 60 kB: so many characters are enough for one body. */
const textLengthMax = 8 * 2 ** 20;
const bodyHeaderBytes = 8;
/** Line protocol repeats itself: the quickest level saves nine tenths, and others little more. */
const gzipLevel = 1;
/** No body of ours is larger: 5,000 lines with texts of 64 KiB, which would be 16 KiB of each in the mean. */
const bodyBytesMax = 2 ** 30;

/** The lines of a batch's requests that are kept, rollup rows and top lists. The ledger is not among them. */
export function bodiesOf({ recorder, requests, kept = requests, rollups, tops }: Batch): Body[] {
  const bodies: Body[] = [];
  let text = '';
  let lines = 0;
  const requestLine = requestLinesOf(recorder);
  for (const event of kept) add(requestLine(event));
  for (const row of rollups) add(rollupLine(row));
  for (const row of tops) add(topLine(row));
  seal();
  return bodies;

  function add(line: string): void {
    text += line;
    text += '\n';
    lines += 1;
    if (lines === linesMax || text.length > textLengthMax) seal();
  }

  function seal(): void {
    if (lines > 0) bodies.push(compress(text, lines));
    text = '';
    lines = 0;
  }
}

/** A store has a few recorders: those of its collectors, and of imports. */
const requestLinesOf = createMemo(createRequestLines, { entriesMax: 10 });

/**
 * One body of lines that are joined, and ended, by line breaks. At once, and not on another thread: 5,000 lines take 5 ms, and lines are then never
 * read faster than they are compressed. What is read and waits for a thread that others keep busy would fill the memory.
 */
export function compress(text: string, lines: number): Body {
  return { lines, gzip: gzipSync(bytesOf(text), { level: gzipLevel }) };
}

/** Text of ASCII, which line protocol nearly always is, is copied in half the time that it takes to encode it. */
function bytesOf(text: string): Buffer {
  return Buffer.from(text, Buffer.byteLength(text) === text.length ? 'latin1' : 'utf8');
}

/** The lines of a body. */
export async function linesIn({ gzip: bytes }: Body): Promise<string[]> {
  const text = (await gunzip(bytes, { maxOutputLength: bodyBytesMax })).toString('utf8');
  return Array.from(text.matchAll(lineShape), ([, line]) => line!);
}

/** Measurement and tags up to a space that no backslash escapes, then fields and time; a text in quotes may hold line breaks. */
const lineShape = /((?:\\.|[^\\ \n])+ (?:[^"\n]|"(?:\\.|[^"\\])*")+)\n/gs;

/** Several bodies as one. */
export function joinBodies(bodies: readonly Body[]): Body {
  return { lines: bodies.reduce((sum, { lines }) => sum + lines, 0), gzip: Buffer.concat(bodies.map((body) => body.gzip)) };
}

/** The bodies as one payload. */
export function encodePayload(bodies: readonly Body[]): Buffer {
  return Buffer.concat(bodies.flatMap(({ lines, gzip: bytes }) => {
    const header = Buffer.alloc(bodyHeaderBytes);
    header.writeUInt32LE(lines, 0);
    header.writeUInt32LE(bytes.length, 4);
    return [header, bytes];
  }));
}

/** The bodies of a payload. Throws a `RangeError` when it is none. */
export function decodePayload(payload: Buffer): Body[] {
  const bodies: Body[] = [];
  for (let at = 0; at < payload.length;) {
    const lines = payload.readUInt32LE(at);
    const end = at + bodyHeaderBytes + payload.readUInt32LE(at + 4);
    if (end > payload.length) throw new RangeError(`A body of the payload ends at ${end}, behind its end at ${payload.length}.`);
    bodies.push({ lines, gzip: payload.subarray(at + bodyHeaderBytes, end) });
    at = end;
  }
  return bodies;
}
