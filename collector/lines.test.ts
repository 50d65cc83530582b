import test from 'ava';
import fc from 'fast-check';
import { LineSplitter, splitLines } from './lines.js';

const lineBytesMax = 24;

const content = fc.string({ unit: 'binary', maxLength: 40 }).map((text) => text.replace(/[\r\n]/g, '').toWellFormed());
const lines = fc.array(fc.record({ text: content, ending: fc.constantFrom('\n', '\r\n') }), { maxLength: 12 });

test('emits the same lines for any chunking of the same bytes', (t) => {
  fc.assert(
    fc.property(lines, content, fc.infiniteStream(fc.integer({ min: 1, max: 90 })), (input, tail, sizes) => {
      const bytes = Buffer.from(input.map(({ text, ending }) => text + ending).join('') + tail);
      const got = split(chunksOf(bytes, sizes));
      const fits = ({ text }: { text: string }): boolean => Buffer.byteLength(text) <= lineBytesMax;
      const expected = input.filter((line) => line.text !== '' && fits(line)).map(({ text }) => text);
      if (JSON.stringify(got.lines) !== JSON.stringify(expected))
        throw new Error(`${JSON.stringify(got.lines)} instead of ${JSON.stringify(expected)}`);
      const tooLong = input.filter((line) => !fits(line)).length;
      // A tail without an ending is unterminated, or already too long.
      if (got.tooLong + got.unterminated !== tooLong + (tail === '' ? 0 : 1) || got.tooLong < tooLong) {
        throw new Error(
          `${got.tooLong} too long and ${got.unterminated} unterminated instead of ${tooLong} and tail ${JSON.stringify(tail)}`,
        );
      }
    }),
    { numRuns: 500 },
  );
  t.pass();
});

test('splits a part of a buffer whose last line has no ending', (t) => {
  fc.assert(
    fc.property(lines, content, (input, tail) => {
      const part = Buffer.from(input.map(({ text, ending }) => text + ending).join('') + tail);
      const around = Buffer.from('around\n');
      const got = { lines: [] as string[], tooLong: 0 };
      splitLines(
        Buffer.concat([around, part, around]),
        { from: around.length, to: around.length + part.length, lineBytesMax },
        {
          onLine: (bytes, from, to) => got.lines.push(bytes.toString('utf8', from, to)),
          onTooLong: () => (got.tooLong += 1),
        },
      );
      const all = [...input.map(({ text }) => text), tail];
      const fits = (text: string): boolean => Buffer.byteLength(text) <= lineBytesMax;
      const expected = {
        lines: all.filter((text) => text !== '' && fits(text)),
        tooLong: all.filter((text) => !fits(text)).length,
      };
      if (JSON.stringify(got) !== JSON.stringify(expected))
        throw new Error(`${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`);
    }),
    { numRuns: 500 },
  );
  t.pass();
});

test('skips a line over the limit without buffering it, counts it once, and reads the next line', (t) => {
  const chunk = Buffer.alloc(65_536, 'x');
  const got = split([...new Array<Buffer>(200).fill(chunk), Buffer.from('\nnext\n')]);
  t.deepEqual(got, { lines: ['next'], tooLong: 1, unterminated: 0 });
});

test('measures the length of a line in bytes, not in characters', (t) => {
  const got = split([Buffer.from(`${'ä'.repeat(12)}\n${'ä'.repeat(13)}\nok\n`)]);
  t.deepEqual(got, { lines: ['ä'.repeat(12), 'ok'], tooLong: 1, unterminated: 0 });
});

test('counts each of many consecutive long lines, for any chunk size', (t) => {
  const bytes = Buffer.from(`${'x'.repeat(5000)}\n`.repeat(100));
  for (const size of [1, 1500, 5001, 65_536]) {
    const chunks = Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
      bytes.subarray(at * size, (at + 1) * size),
    );
    t.deepEqual(split(chunks), { lines: [], tooLong: 100, unterminated: 0 }, `chunks of ${size} bytes`);
  }
});

/** Returns all lines in order. */
function split(chunks: readonly Buffer[]): { lines: string[]; tooLong: number; unterminated: number } {
  const got = { lines: [] as string[], tooLong: 0, unterminated: 0 };
  const splitter = new LineSplitter(lineBytesMax, {
    onLine: (bytes, from, to) => {
      got.lines.push(bytes.toString('utf8', from, to));
    },
    onTooLong: () => {
      got.tooLong += 1;
    },
    onUnterminated: () => {
      got.unterminated += 1;
    },
  });
  for (const chunk of chunks) splitter.write(chunk);
  splitter.end();
  return got;
}

function chunksOf(bytes: Buffer, sizes: fc.Stream<number>): Buffer[] {
  const chunks: Buffer[] = [];
  for (let from = 0; from < bytes.length; ) {
    const size = sizes.next().value as number;
    chunks.push(bytes.subarray(from, from + size));
    from += size;
  }
  return chunks;
}
