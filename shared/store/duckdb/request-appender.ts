/**
 * Appends requests to the table `request_metrics` as DuckDB data chunks: columns of up to 2,048 values in DuckDB's
 * memory.
 *
 * A text is a `duckdb_string_t` of 16 bytes (duckdb.h): its length, and either up to 12 bytes of it or a pointer
 * valid as long as the chunk. Hosts, user agents and the like repeat, so each distinct text is passed to DuckDB once
 * per chunk, and its 16 bytes are copied. This takes a third of the CPU time of an `INSERT` of joined texts, and a
 * fifth of that of a call per value.
 */
import { setImmediate as othersTurn } from 'node:timers/promises';
import {
  BIGINT,
  DOUBLE,
  DuckDBBlobVector,
  DuckDBDataChunk,
  SMALLINT,
  VARCHAR,
  type DuckDBConnection,
  type DuckDBType,
  type DuckDBValue,
} from '@duckdb/node-api';
import bindings, { type Vector } from '@duckdb/node-bindings';
import { heldBytes, splitNanoseconds, type RequestEvent } from '../../request-event.js';
import type { BatchEncoder, RequestList } from '../store.js';

/** Appends requests in the current transaction. Throws DuckDB's errors. */
export type AppendRequests = (requests: RequestList) => Promise<void>;

/** Fills a column's vector with the values of requests. */
type Fill = (vector: Vector, requests: readonly RequestEvent[]) => void;

const rowsMax = bindings.vector_size();

/**
 * Rows of a row group. DuckDB compresses a full group within one transaction and writes it in place; smaller ones are
 * logged, copied into the table, and compressed at a checkpoint: see
 * https://duckdb.org/docs/stable/internals/storage.
 */
export const rowGroupRows = 60 * rowsMax;

/** Chunks that DuckDB's appender buffers before it flushes them to the table. */
const chunksPerFlush = 4;

/** Creates an appender. The connection must not be used concurrently. */
export function createRequestAppender(connection: DuckDBConnection): AppendRequests {
  return async (requests) => {
    if (requests.length === 0) return;
    const appender = await connection.createAppender('request_metrics');
    try {
      let appended = 0;
      for (const chunk of requests instanceof RequestChunks ? requests.chunks : chunksOf([...requests])) {
        appender.appendDataChunk(chunk);
        appended += 1;
        if (appended % chunksPerFlush === 0) appender.flushSync();
        await othersTurn(); // each chunk occupies this thread for milliseconds
      }
      appender.flushSync();
    } catch (error) {
      appender.clear(); // or closing would retry
      throw error;
    } finally {
      appender.closeSync();
    }
  };
}

/**
 * Encodes requests as data chunks, outside the heap of the garbage collector. At most one chunk of requests waits as
 * objects.
 */
export function createBatchEncoder(): BatchEncoder {
  let waiting: RequestEvent[] = [];
  let chunks: DuckDBDataChunk[] = [];
  let length = 0;
  let bytes = 0;
  const fill = (): void => {
    if (waiting.length > 0) chunks.push(chunkOf(waiting));
    waiting = [];
  };
  return {
    add(event) {
      waiting.push(event);
      length += 1;
      bytes += heldBytes(event);
      if (waiting.length === rowsMax) fill();
    },
    get length() {
      return length;
    },
    get bytes() {
      return bytes;
    },
    take() {
      fill();
      const taken = { requests: new RequestChunks(chunks, length), bytes };
      chunks = [];
      length = 0;
      bytes = 0;
      return taken;
    },
  };
}

/** Requests as data chunks. */
class RequestChunks implements RequestList {
  readonly chunks: readonly DuckDBDataChunk[];
  readonly length: number;

  constructor(chunks: readonly DuckDBDataChunk[], length: number) {
    this.chunks = chunks;
    this.length = length;
  }

  *[Symbol.iterator](): Generator<RequestEvent> {
    for (const chunk of this.chunks) {
      const values = columns.map(([type], index) =>
        type === VARCHAR ? textsOf(chunk, index) : chunk.getColumnValues(index),
      );
      for (let row = 0; row < chunk.rowCount; row += 1) yield requestOf(values.map((column) => column[row]!));
    }
  }
}

function* chunksOf(requests: readonly RequestEvent[]): Generator<DuckDBDataChunk> {
  for (let from = 0; from < requests.length; from += rowsMax) yield chunkOf(requests.slice(from, from + rowsMax));
}

/** Creates a new chunk: DuckDB frees the texts of a chunk with it. */
function chunkOf(requests: readonly RequestEvent[]): DuckDBDataChunk {
  const chunk = DuckDBDataChunk.create(
    columns.map(([type]) => type),
    requests.length,
  );
  for (const [index, [, fill]] of columns.entries()) fill(bindings.data_chunk_get_vector(chunk.chunk, index), requests);
  return chunk;
}

/** Reads texts as bytes: `@duckdb/node-api` 1.5.6 strips a leading byte order mark. */
function textsOf(chunk: DuckDBDataChunk, index: number): string[] {
  const vector = DuckDBBlobVector.fromRawVector(bindings.data_chunk_get_vector(chunk.chunk, index), chunk.rowCount);
  return Array.from({ length: chunk.rowCount }, (_, row) => Buffer.from(vector.getItem(row)!.bytes).toString());
}

/** Returns the request of a row, from its values in the order of the table's columns. */
export function requestOf([
  time,
  source,
  host,
  method,
  status,
  endpoint,
  durationMs,
  size,
  bytesRead,
  uri,
  clientIp,
  userAgent,
  referrer,
  protocol,
  tls,
  upstreamMs,
  requestId,
  error,
  errorId,
  upstream,
  retries,
  contentType,
]: readonly DuckDBValue[]): RequestEvent {
  return {
    source,
    ...splitNanoseconds(time as bigint),
    host,
    method,
    status,
    durationMs,
    size: Number(size),
    bytesRead: Number(bytesRead),
    uri,
    endpoint,
    clientIp,
    userAgent,
    referrer,
    protocol,
    tls,
    upstreamMs,
    requestId,
    error,
    errorId,
    upstream,
    retries,
    contentType,
  } as RequestEvent;
}

/** In the order of the table's columns. */
const columns = [
  [BIGINT, times],
  [VARCHAR, texts(({ source }) => source)],
  [VARCHAR, texts(({ host }) => host)],
  [VARCHAR, texts(({ method }) => method)],
  [SMALLINT, statuses],
  [VARCHAR, texts(({ endpoint }) => endpoint)],
  [DOUBLE, doubles(({ durationMs }) => durationMs)],
  [BIGINT, counts(({ size }) => size)],
  [BIGINT, counts(({ bytesRead }) => bytesRead)],
  [VARCHAR, texts(({ uri }) => uri)],
  [VARCHAR, texts(({ clientIp }) => clientIp)],
  [VARCHAR, texts(({ userAgent }) => userAgent)],
  [VARCHAR, texts(({ referrer }) => referrer)],
  [VARCHAR, texts(({ protocol }) => protocol)],
  [VARCHAR, texts(({ tls }) => tls)],
  [DOUBLE, doubles(({ upstreamMs }) => upstreamMs)],
  [VARCHAR, texts(({ requestId }) => requestId)],
  [VARCHAR, texts(({ error }) => error)],
  [VARCHAR, texts(({ errorId }) => errorId)],
  [VARCHAR, texts(({ upstream }) => upstream)],
  [DOUBLE, doubles(({ retries }) => retries)],
  [VARCHAR, texts(({ contentType }) => contentType)],
] as const satisfies readonly (readonly [DuckDBType, Fill])[];

/** Writes 64-bit integers as halves, little-endian like DuckDB's memory on all supported processors. */
function times(vector: Vector, requests: readonly RequestEvent[]): void {
  const halves = new Uint32Array(2 * requests.length);
  for (let row = 0; row < requests.length; row += 1) {
    const { timeMs, timeNs } = requests[row]!;
    // timeMs × 10^6 + timeNs exceeds 2^53, so compute exact parts.
    const rest = (timeMs % 65_536) * 1e6 + timeNs;
    const high = Math.floor(timeMs / 65_536) * 1e6 + Math.floor(rest / 65_536);
    halves[2 * row] = (high % 65_536) * 65_536 + (rest % 65_536);
    halves[2 * row + 1] = Math.floor(high / 65_536);
  }
  copyTo(vector, halves);
}

function statuses(vector: Vector, requests: readonly RequestEvent[]): void {
  copyTo(
    vector,
    Int16Array.from(requests, ({ status }) => status),
  );
}

function counts(valueOf: (event: RequestEvent) => number): Fill {
  return (vector, requests) => {
    const halves = new Uint32Array(2 * requests.length);
    for (let row = 0; row < requests.length; row += 1) {
      const value = valueOf(requests[row]!);
      halves[2 * row] = value % 2 ** 32;
      halves[2 * row + 1] = Math.floor(value / 2 ** 32);
    }
    copyTo(vector, halves);
  };
}

function doubles(valueOf: (event: RequestEvent) => number | null): Fill {
  return (vector, requests) => {
    const values = new Float64Array(requests.length);
    const valid = new Uint8Array(rowsMax / 8).fill(0xff);
    let known = 0;
    for (let row = 0; row < requests.length; row += 1) {
      const value = valueOf(requests[row]!);
      values[row] = value ?? 0;
      if (value === null) valid[row >> 3]! &= ~(1 << (row & 7));
      else known += 1;
    }
    copyTo(vector, values);
    if (known === requests.length) return;
    bindings.vector_ensure_validity_writable(vector);
    bindings.copy_data_to_vector_validity(vector, 0, valid.buffer, 0, valid.byteLength);
  };
}

function texts(valueOf: (event: RequestEvent) => string): Fill {
  return (vector, requests) => {
    const firstRows = new Map<string, number>();
    const firstRowOf = new Uint16Array(requests.length);
    for (let row = 0; row < requests.length; row += 1) {
      const text = valueOf(requests[row]!);
      const firstRow = firstRows.get(text);
      firstRowOf[row] = firstRow ?? row;
      if (firstRow !== undefined) continue;
      firstRows.set(text, row);
      // DuckDB would treat a NUL as the end. The recorder lets none through.
      bindings.vector_assign_string_element(vector, row, text.includes('\0') ? text.replaceAll('\0', '\uFFFD') : text);
    }
    if (firstRows.size === requests.length) return;
    const { buffer, byteOffset } = bindings.vector_get_data(vector, textBytes * requests.length); // a copy
    const words = new Uint32Array(buffer, byteOffset, textWords * requests.length);
    for (let row = 0; row < requests.length; row += 1) {
      const from = textWords * firstRowOf[row]!;
      for (let word = 0; word < textWords; word += 1) words[textWords * row + word] = words[from + word]!;
    }
    copyTo(vector, words);
  };
}

/** Size of a `duckdb_string_t`. */
const textBytes = 16;
const textWords = textBytes / Uint32Array.BYTES_PER_ELEMENT;

function copyTo(
  vector: Vector,
  { buffer, byteOffset, byteLength }: Uint8Array | Uint32Array | Int16Array | Float64Array,
): void {
  bindings.copy_data_to_vector(vector, 0, buffer as ArrayBuffer, byteOffset, byteLength);
}
