import * as zlib from 'node:zlib';
import test from 'ava';
import fc from 'fast-check';
import { inflate } from './inflate.js';

const { gzipSync, zstdCompressSync } = zlib as typeof zlib & { zstdCompressSync?: (bytes: Buffer) => Buffer };
const content = Buffer.from(
  Array.from({ length: 20_000 }, (_, at) => `line ${at} ${(at * 2_654_435_761) % 4_294_967_296}\n`).join(''),
);

test('yields the same content for any chunking of plain, compressed and concatenated data', async (t) => {
  const halves = [content.subarray(0, 100_000), content.subarray(100_000)];
  const forms = [
    content,
    gzipSync(content),
    Buffer.concat(halves.map((half) => gzipSync(half))),
    ...(zstdCompressSync ? [zstdCompressSync(content)] : []),
  ];
  for (const bytes of forms) {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60_000 }), { minLength: 1, maxLength: 5 }), async (sizes) => {
        t.true((await unpacked(bytes, sizes)).bytes.equals(content));
      }),
      { numRuns: 10 },
    );
  }
});

test('yields everything before damaged data, at any position and for any chunking, and then throws', async (t) => {
  const packed = gzipSync(content);
  const rubbish = Buffer.from('this is not gzip\n');
  for (const size of [1000, 16 * 1024, packed.length + rubbish.length]) {
    const { bytes, error } = await unpacked(Buffer.concat([packed, rubbish]), [size]);
    t.true(bytes.equals(content), `cut at ${size}`);
    t.regex(
      error!,
      new RegExp(`damaged at byte ${(packed.length + 1).toLocaleString('en')} \\(incorrect header check\\)`),
    );
  }
  const twice = await unpacked(Buffer.concat([packed, packed, rubbish]), [30_000]);
  t.true(twice.bytes.equals(Buffer.concat([content, content])));

  const open = gzipSync(content, { finishFlush: zlib.constants.Z_SYNC_FLUSH }); // without an end; an invalid block of type 3 follows
  const inside = await unpacked(Buffer.concat([open, Buffer.alloc(3000, 0x07)]), [open.length + 3000]);
  t.true(inside.bytes.equals(content));
  t.regex(inside.error!, new RegExp(`damaged at byte ${open.length.toLocaleString('en')} \\(invalid block type\\)`));
});

test('skips zeros that pad compressed content', async (t) => {
  const packed = gzipSync(content);
  for (const [parts, times] of [
    [[packed, Buffer.alloc(512)], 1],
    [[packed, Buffer.alloc(40_000), packed], 2],
  ] as const) {
    const padded = Buffer.concat(parts);
    for (const size of [packed.length, 1000, padded.length]) {
      const { bytes, error } = await unpacked(padded, [size]);
      t.is(error, undefined);
      t.true(bytes.equals(Buffer.concat(Array.from({ length: times }, () => content))), `cut at ${size}`);
    }
  }
});

test('passes on a short file and an empty one', async (t) => {
  for (const text of ['', 'a', 'abc']) t.is((await unpacked(Buffer.from(text), [1])).bytes.toString(), text);
});

test('yields everything before the end of a truncated file, and then throws', async (t) => {
  const packed = gzipSync(content);
  const { bytes, error } = await unpacked(packed.subarray(0, packed.length - 4), [10_000]);
  t.true(bytes.equals(content), 'only the checksum is missing');
  t.regex(error!, /its end is missing/);
  const half = await unpacked(packed.subarray(0, packed.length / 2), [packed.length]);
  t.true(half.bytes.length > content.length / 3 && half.bytes.equals(content.subarray(0, half.bytes.length)));
  t.regex(half.error!, /its end is missing/);
});

(zstdCompressSync ? test.skip : test)('names Zstandard and a command if Node does not support it', async (t) => {
  const { error } = await unpacked(Buffer.from('28b52ffd0400', 'hex'), [6]);
  t.regex(error!, /compressed with Zstandard, which Node .* cannot read\. Use Node 22\.15 or later, or decompress it/);
});

async function unpacked(
  bytes: Buffer,
  sizes: readonly number[],
): Promise<{ bytes: Buffer; error: string | undefined }> {
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
