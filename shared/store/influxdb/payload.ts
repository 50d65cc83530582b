/**
 * A batch as stored in the spool and sent to InfluxDB: line protocol in bodies of at most 5,000 lines, each
 * compressed with gzip.
 *
 * A payload is a sequence of bodies, each with an 8-byte little-endian header: number of lines and compressed size.
 * Lines of requests come first, then those of rollup rows and top lists. Each body ends with a line break, so that
 * concatenated compressed bodies are a valid body (RFC 1952, 2.2).
 */
import { promisify } from 'node:util';
import { gunzip as gunzipCallback, gunzipSync, gzipSync } from 'node:zlib';
import { createMemo } from '../../memo.js';
import type { RequestEvent } from '../../request-event.js';
import type { Batch, BatchEncoder, RequestList } from '../store.js';
import { eventLine } from './events.js';
import { importedLine, rollupLine, topLine } from './line-protocol.js';
import { createRequestLines, parseRequestLine } from './request-line.js';
import { TextBuffer } from './text-buffer.js';

const gunzip = promisify(gunzipCallback);

/** Lines of line protocol, compressed. */
export interface Body {
  readonly lines: number;
  readonly gzip: Buffer;
}

/** Maximum number of lines per write, as InfluxDB recommends. */
export const linesMax = 5000;
/** Size at which a body is sealed, in bytes: a line of a top list can have 60 kB. */
const bodyBytesWanted = 8 * 2 ** 20;
const bodyHeaderBytes = 8;
/** The fastest level saves 90 %, higher ones hardly more. */
const gzipLevel = 1;
/** Maximum decompressed size of a body. Ours are smaller: 5,000 lines with texts of 64 KiB. */
const bodyBytesMax = 2 ** 30;

/** Encodes a batch's sampled requests, rollup rows and top lists, without its ledger. */
export function bodiesOf({
  recorder,
  requests,
  kept: sampled = requests,
  rollups,
  topLists,
  events = [],
  imported = [],
}: Batch): Body[] {
  const bodies = createBodies();
  if (!(sampled instanceof RequestBodies)) {
    const addRequest = requestLinesOf(recorder);
    for (const event of sampled) {
      addRequest(event, bodies.text);
      bodies.endLine();
    }
  }
  for (const row of rollups) addLine(rollupLine(row));
  for (const row of topLists) addLine(topLine(row));
  for (const row of events) addLine(eventLine(row));
  for (const row of imported) addLine(importedLine(row));
  return sampled instanceof RequestBodies ? [...sampled.bodies, ...bodies.take()] : bodies.take();

  function addLine(line: string): void {
    bodies.text.add(line);
    bodies.endLine();
  }
}

/** A store has few recorders: those of its collectors, and of imports. */
const requestLinesOf = createMemo(createRequestLines, { entriesMax: 10 });

/** Encodes the requests of one recorder as bodies. */
export function createBatchEncoder(recorder: string): BatchEncoder {
  const addRequest = createRequestLines(recorder);
  const bodies = createBodies();
  let length = 0;
  return {
    add(event) {
      addRequest(event, bodies.text);
      bodies.endLine();
      length += 1;
    },
    get length() {
      return length;
    },
    get bytes() {
      return bodies.bytes;
    },
    take() {
      const requests = new RequestBodies(bodies.take(), length);
      length = 0;
      return { requests, bytes: requests.bodies.reduce((sum, { gzip }) => sum + gzip.length, 0) };
    },
  };
}

/** Requests as bodies of lines, from a `BatchEncoder`. */
class RequestBodies implements RequestList {
  readonly bodies: readonly Body[];
  readonly length: number;

  constructor(bodies: readonly Body[], length: number) {
    this.bodies = bodies;
    this.length = length;
  }

  *[Symbol.iterator](): Generator<RequestEvent> {
    for (const { gzip } of this.bodies) {
      for (const line of linesOfText(gunzipSync(gzip))) yield parseRequestLine(line)!;
    }
  }
}

/** Collects lines into bodies. */
interface Bodies {
  /** The line being built, without its line break. */
  readonly text: TextBuffer;
  /** Ends the line. */
  endLine(): void;
  /** Size in memory, in bytes. */
  readonly bytes: number;
  /** Returns the bodies of all lines since the last call. */
  take(): Body[];
}

function createBodies(): Bodies {
  let bodies: Body[] = [];
  let compressedBytes = 0;
  const text = new TextBuffer();
  let lines = 0;
  return {
    text,
    endLine() {
      text.add('\n');
      lines += 1;
      if (lines === linesMax || text.length > bodyBytesWanted) seal();
    },
    get bytes() {
      return compressedBytes + text.length;
    },
    take() {
      if (lines > 0) seal();
      const taken = bodies;
      bodies = [];
      compressedBytes = 0;
      return taken;
    },
  };

  function seal(): void {
    const body = compressBytes(text.bytes, lines);
    bodies.push(body);
    compressedBytes += body.gzip.length;
    text.clear();
    lines = 0;
  }
}

/**
 * Compresses lines, each with a line break, into a body. Synchronously: 5,000 lines take 5 ms, and lines are never
 * read faster than they are compressed. Lines waiting for a busy thread pool would fill the memory.
 */
export function compress(text: string, lines: number): Body {
  return compressBytes(Buffer.from(text), lines);
}

function compressBytes(bytes: Buffer, lines: number): Body {
  return { lines, gzip: gzipSync(bytes, { level: gzipLevel }) };
}

/** The lines of a body. */
export async function linesIn({ gzip: bytes }: Body): Promise<string[]> {
  return linesOfText(await gunzip(bytes, { maxOutputLength: bodyBytesMax }));
}

/** Splits text into lines. A single regular expression would exhaust the stack on megabytes of text. */
function linesOfText(bytes: Buffer): string[] {
  const text = bytes.toString('utf8');
  const lines: string[] = [];
  for (let start = 0; start < text.length; ) {
    tagsShape.lastIndex = start;
    const end = tagsShape.test(text) ? endOfFields(text, tagsShape.lastIndex) : undefined;
    if (end !== undefined) lines.push(text.slice(start, end));
    const lineBreak = end ?? text.indexOf('\n', start); // malformed lines are skipped
    if (lineBreak < 0) break;
    start = lineBreak + 1;
  }
  return lines;
}

/** Measurement and tags, up to a space that no backslash escapes. */
const tagsShape = /(?:\\.|[^\\ \n])+ /sy;

/**
 * The line break after the fields and the time. Line breaks within quotes do not count. `undefined` if there is none.
 */
function endOfFields(text: string, from: number): number | undefined {
  let lineBreak = text.indexOf('\n', from);
  for (let quote = text.indexOf('"', from); quote >= 0 && quote < lineBreak; quote = text.indexOf('"', quote + 1)) {
    quote = closingQuote(text, quote + 1);
    if (quote < 0) return undefined;
    if (quote > lineBreak) lineBreak = text.indexOf('\n', quote);
  }
  return lineBreak < 0 ? undefined : lineBreak;
}

/** The quote that ends a text: the first with an even number of backslashes before it. -1 if there is none. */
function closingQuote(text: string, from: number): number {
  for (let quote = text.indexOf('"', from); quote >= 0; quote = text.indexOf('"', quote + 1)) {
    let unescaped = quote;
    while (unescaped > from && text[unescaped - 1] === '\\') unescaped -= 1;
    if ((quote - unescaped) % 2 === 0) return quote;
  }
  return -1;
}

/** Joins bodies into one. */
export function joinBodies(bodies: readonly Body[]): Body {
  return {
    lines: bodies.reduce((sum, { lines }) => sum + lines, 0),
    gzip: Buffer.concat(bodies.map((body) => body.gzip)),
  };
}

/** Encodes bodies as a payload. */
export function encodePayload(bodies: readonly Body[]): Buffer {
  return Buffer.concat(
    bodies.flatMap(({ lines, gzip: bytes }) => {
      const header = Buffer.alloc(bodyHeaderBytes);
      header.writeUInt32LE(lines, 0);
      header.writeUInt32LE(bytes.length, 4);
      return [header, bytes];
    }),
  );
}

/** Decodes the bodies of a payload. Throws a `RangeError` if it is invalid. */
export function decodePayload(payload: Buffer): Body[] {
  const bodies: Body[] = [];
  for (let at = 0; at < payload.length; ) {
    const lines = payload.readUInt32LE(at);
    const end = at + bodyHeaderBytes + payload.readUInt32LE(at + 4);
    if (end > payload.length)
      throw new RangeError(`A body of the payload ends at ${end}, beyond its end at ${payload.length}.`);
    bodies.push({ lines, gzip: payload.subarray(at + bodyHeaderBytes, end) });
    at = end;
  }
  return bodies;
}
