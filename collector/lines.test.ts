import test from 'ava';
import fc from 'fast-check';
import { createLineSplitter } from './lines.js';

const lineBytesMax = 24;

const content = fc.string({ unit: 'binary', maxLength: 40 }).map((text) => text.replace(/[\r\n]/g, '').toWellFormed());
const lines = fc.array(fc.record({ text: content, ending: fc.constantFrom('\n', '\r\n') }), { maxLength: 12 });

test('any chunking of the same bytes gives the same lines', async (t) => {
  await fc.assert(fc.asyncProperty(lines, content, fc.infiniteStream(fc.integer({ min: 1, max: 9 })), async (given, tail, sizes) => {
    const bytes = Buffer.from(given.map(({ text, ending }) => text + ending).join('') + tail);
    const got = await split(chunksOf(bytes, sizes));
    const fits = ({ text }: { text: string }): boolean => Buffer.byteLength(text) <= lineBytesMax;
    const expected = given.filter((line) => line.text !== '' && fits(line)).map(({ text }) => text);
    if (JSON.stringify(got.lines) !== JSON.stringify(expected)) throw new Error(`${JSON.stringify(got.lines)} instead of ${JSON.stringify(expected)}`);
    const tooLong = given.filter((line) => !fits(line)).length;
    // A tail without an ending is either unterminated, or known to be too long already.
    if (got.tooLong + got.unterminated !== tooLong + (tail === '' ? 0 : 1) || got.tooLong < tooLong) {
      throw new Error(`${got.tooLong} too long and ${got.unterminated} unterminated instead of ${tooLong} and tail ${JSON.stringify(tail)}`);
    }
  }), { numRuns: 500 });
  t.pass();
});

test('a line much longer than the bound is skipped without being held, counted once, and the next one is read', async (t) => {
  const chunk = Buffer.alloc(65_536, 'x');
  const got = await split([...new Array<Buffer>(200).fill(chunk), Buffer.from('\nnext\n')]);
  t.deepEqual(got, { lines: ['next'], tooLong: 1, unterminated: 0 });
});

test('the bound counts bytes, not characters', async (t) => {
  const got = await split([Buffer.from(`${'ä'.repeat(12)}\n${'ä'.repeat(13)}\nok\n`)]);
  t.deepEqual(got, { lines: ['ä'.repeat(12), 'ok'], tooLong: 1, unterminated: 0 });
});

async function split(chunks: readonly Buffer[]): Promise<{ lines: string[]; tooLong: number; unterminated: number }> {
  const got = { lines: [] as string[], tooLong: 0, unterminated: 0 };
  const splitter = createLineSplitter(lineBytesMax, {
    onLine: (line) => { got.lines.push(line); },
    onTooLong: () => { got.tooLong += 1; },
    onUnterminated: () => { got.unterminated += 1; },
  });
  for (const chunk of chunks) splitter.write(chunk);
  await splitter.end();
  return got;
}

function chunksOf(bytes: Buffer, sizes: fc.Stream<number>): Buffer[] {
  const chunks: Buffer[] = [];
  for (let from = 0; from < bytes.length;) {
    const size = sizes.next().value as number;
    chunks.push(bytes.subarray(from, from + size));
    from += size;
  }
  return chunks;
}
