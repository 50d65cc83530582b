/**
 * Bytes to requests, line splitter and decoder together, against what `split2` alone passes: both get the same chunks
 * in this process.
 */
import { readFile } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import split2 from 'split2';
import { createDecoder } from '../collector/decode/decode.js';
import { LineSplitter } from '../collector/lines.js';
import { figureOf, inTurn, ratioOf, ratioResult, spreadText, type Figures, type Result } from './compare.js';
import { makeLinesFile } from './lines-file.js';

const lines = 200_000;
/** What Node reads from a socket at once. */
const chunkBytes = 65_536;

/** Compares lines per CPU-second. */
export async function benchDecode(say: (text: string) => void): Promise<Result[]> {
  const bytes = await readFile((await makeLinesFile(lines)).path);
  const chunks = Array.from({ length: Math.ceil(bytes.length / chunkBytes) }, (_, at) =>
    bytes.subarray(at * chunkBytes, (at + 1) * chunkBytes),
  );
  const runs = await inTurn(
    [
      {
        name: 'decode',
        run: () =>
          measured(() => {
            decodeAll(chunks);
          }),
      },
      { name: 'split2', run: () => measured(() => splitAll(chunks)) },
    ],
    {
      rounds: 5,
      warmUp: true,
      onRun: (name, figures) => {
        say(`${name}: ${JSON.stringify(figures)}`);
      },
    },
  );
  return [
    ratioResult('lines per CPU-second, bytes to decoded requests', {
      measured: spreadText(figureOf(runs, 'decode', 'linesPerCpuSecond')),
      against: `split2 alone: ${spreadText(figureOf(runs, 'split2', 'linesPerCpuSecond'))}`,
      ratio: ratioOf(runs, 'linesPerCpuSecond', 'decode', 'split2'),
      atLeast: 0.6,
    }),
  ];
}

async function measured(run: () => void | Promise<void>): Promise<Figures> {
  const before = process.cpuUsage();
  await run();
  const { user, system } = process.cpuUsage(before);
  return { linesPerCpuSecond: Math.round(lines / ((user + system) / 1e6)) };
}

function decodeAll(chunks: readonly Buffer[]): void {
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  let requests = 0;
  const splitter = new LineSplitter(2 ** 20, {
    onLine(bytes, from, to) {
      if (decoder.decodeLine(bytes, from, to, undefined).kind === 'request') requests += 1;
    },
    onTooLong: () => undefined,
    onUnterminated: () => undefined,
  });
  for (const chunk of chunks) splitter.write(chunk);
  check(requests);
}

async function splitAll(chunks: readonly Buffer[]): Promise<void> {
  let found = 0;
  const splitter = split2().on('data', () => {
    found += 1;
  });
  await pipeline(Readable.from(chunks), splitter);
  check(found);
}

function check(count: number): void {
  if (count !== lines) throw new Error(`Of ${lines} lines ${count} came out.`);
}
