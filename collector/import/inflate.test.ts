import * as zlib from 'node:zlib';
import test from 'ava';
import fc from 'fast-check';
import { inflate } from './inflate.js';

const { gzipSync, zstdCompressSync } = zlib as typeof zlib & { zstdCompressSync?: (bytes: Buffer) => Buffer };
const content = Buffer.from(Array.from({ length: 20_000 }, (_, at) => `line ${at} ${(at * 2_654_435_761) % 4_294_967_296}\n`).join(''));

test('Any cutting of plain, packed and repeatedly packed bytes gives the same content.', async (t) => {
  const halves = [content.subarray(0, 100_000), content.subarray(100_000)];
  const forms = [content, gzipSync(content), Buffer.concat(halves.map((half) => gzipSync(half))), ...(zstdCompressSync ? [zstdCompressSync(content)] : [])];
  for (const bytes of forms) {
    await fc.assert(fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 5 }), async (sizes) => {
      t.true((await unpacked(bytes, sizes)).bytes.equals(content));
    }), { numRuns: 10 });
  }
});

test('A short file and an empty one are passed on.', async (t) => {
  for (const text of ['', 'a', 'abc']) t.is((await unpacked(Buffer.from(text), [1])).bytes.toString(), text);
});

test('All that stands before the end of a cut file is given out, and then the error.', async (t) => {
  const packed = gzipSync(content);
  const { bytes, error } = await unpacked(packed.subarray(0, packed.length - 4), [10_000]);
  t.true(bytes.equals(content), 'only the check sum is missing');
  t.regex(error!, /its end is missing/);
  const half = await unpacked(packed.subarray(0, packed.length / 2), [packed.length]);
  t.true(half.bytes.length > content.length / 3 && half.bytes.equals(content.subarray(0, half.bytes.length)));
  t.regex(half.error!, /its end is missing/);
});

(zstdCompressSync ? test.skip : test)('Where Node has no Zstandard, the message says what to do.', async (t) => {
  const { error } = await unpacked(Buffer.from('28b52ffd0400', 'hex'), [6]);
  t.regex(error!, /packed with Zstandard, which Node .* cannot read\. Use Node 22\.15 or later, or unpack it/);
});

async function unpacked(bytes: Buffer, sizes: readonly number[]): Promise<{ bytes: Buffer; error: string | undefined }> {
  const parts: Buffer[] = [];
  try {
    for await (const part of inflate(chunksOf(bytes, sizes))) parts.push(part);
    return { bytes: Buffer.concat(parts), error: undefined };
  } catch (error) {
    return { bytes: Buffer.concat(parts), error: String(error) };
  }
}

 
async function* chunksOf(bytes: Buffer, sizes: readonly number[]): AsyncGenerator<Buffer> {
  for (let from = 0, at = 0; from < bytes.length; at += 1) {
    const size = sizes[at % sizes.length]!;
    yield bytes.subarray(from, from + size);
    from += size;
  }
}
