import test from 'ava';
import { readSample } from '../../test/sample.js';
import { noCounts } from './counts.js';
import { FileLines } from './file-lines.js';

const line = readSample().lines[0]!;
const nowMs = Date.now(); // the sample is recent

test('decodes requests, and rejects other lines by reason', (t) => {
  t.deepEqual(read(`${line}\r\n\n<6>${line}\n{"a":1}\nplain\n${line}`), {
    requests: 3,
    runtime: 0,
    rejected: { 'not-caddy': 1, 'not-json': 1 },
  });
});

test('ends the last line of a whole file only', (t) => {
  t.deepEqual(read(line), { requests: 1, runtime: 0, rejected: {} });
  t.deepEqual(read(line, { isWhole: false }), { requests: 0, runtime: 0, rejected: { unterminated: 1 } });
  t.deepEqual(read('{\n  "a": 1\n'), { requests: 0, runtime: 0, rejected: { unterminated: 1 } });
});

test('reads no request from a dead letter that quotes a line of Caddy', (t) => {
  t.deepEqual(read(`# 2026-11-24T00:00:00Z refused: ${line}\n`), { requests: 0, runtime: 1, rejected: {} });
});

test('rejects the lines of an object that is never closed, and reads the next one', (t) => {
  t.deepEqual(read(`{\n  "a": 1,\n${line}\n`), { requests: 1, runtime: 0, rejected: { 'not-json': 2 } });
  t.deepEqual(read(`{ \n  "a": 1\n}\n${line}\n`), { requests: 1, runtime: 0, rejected: { 'not-caddy': 1 } });
});

test('rejects parts of lines of too many interleaved streams as memory-full, not as too long', (t) => {
  const part = (stream: number, log: string): string => `${JSON.stringify({ log, stream: String(stream) })}\n`;
  const streams = Array.from({ length: 17 }, (_, stream) => stream);
  const beginnings = streams.map((stream) => part(stream, line.slice(0, 100)));
  const ends = streams.slice(0, 16).map((stream) => part(stream, `${line.slice(100)}\n`));
  t.deepEqual(read([...beginnings, ...ends].join('')), { requests: 16, runtime: 0, rejected: { 'memory-full': 1 } });
});

/** Reads a file in small chunks. */
function read(text: string, { isWhole = true } = {}): { requests: number; runtime: number; rejected: object } {
  const counts = noCounts();
  let requests = 0;
  const lines = new FileLines({
    decoder: { timeZone: 'UTC', durationFormat: 'auto' },
    lineBytesMax: 10_000,
    rollupRetentionMs: undefined,
    counts,
    onRequest: () => {
      requests += 1;
    },
  });
  const bytes = Buffer.from(text);
  for (let from = 0; from < bytes.length; from += 100) lines.write(bytes.subarray(from, from + 100), nowMs);
  if (isWhole) lines.endLine();
  lines.end();
  return { requests, runtime: counts.runtime, rejected: counts.rejected };
}
