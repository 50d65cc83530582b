/**
 * A log file into the embedded store, percentiles, filters and history included, against goaccess's report of the same
 * file.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { programCommand, temporaryFolder } from '../test/program.js';
import { figureOf, inTurn, ratioOf, ratioResult, spreadText, type Figures, type Result } from './compare.js';
import { makeLinesFile, type LinesFile } from './lines-file.js';
import { residentBytesOf } from '../test/process.js';

/** Compares lines per second. */
export async function benchImport(say: (text: string) => void): Promise<Result[]> {
  const file = await makeLinesFile(Number(process.env['BENCH_LINES'] ?? 1_500_000), { minutesAgo: 1 });
  const runs = await inTurn(
    [
      { name: 'import', run: async () => measure(file, process.execPath, [...programCommand, 'import', file.path]) },
      {
        name: 'goaccess',
        run: async () =>
          measure(file, 'goaccess', [
            file.path,
            '--log-format=CADDY',
            '--no-progress',
            '-o',
            join(await temporaryFolder(), 'report.json'),
          ]),
      },
    ],
    {
      rounds: Number(process.env['BENCH_ROUNDS'] ?? 3),
      onRun: (name, figures) => {
        say(`${name}: ${JSON.stringify(figures)}`);
      },
    },
  );
  const memory = figureOf(runs, 'import', 'residentMb');
  return [
    ratioResult('lines per second, a file into the embedded store', {
      measured: spreadText(figureOf(runs, 'import', 'linesPerSecond')),
      against: `goaccess: ${spreadText(figureOf(runs, 'goaccess', 'linesPerSecond'))}`,
      ratio: ratioOf(runs, 'linesPerSecond', 'import', 'goaccess'),
      atLeast: 2.5,
    }),
    {
      what: 'memory of an import',
      measured: `${spreadText(memory)} MB`,
      against: `goaccess: ${spreadText(figureOf(runs, 'goaccess', 'residentMb'))} MB`,
      wanted: 'under 400 MB',
      holds: memory.max < 400,
    },
  ];
}

async function measure(file: LinesFile, command: string, args: readonly string[]): Promise<Figures> {
  const startMs = performance.now();
  const program = spawn(command, args, {
    cwd: await temporaryFolder(),
    env: { PATH: process.env['PATH'] },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  let residentBytes = 0;
  const look = setInterval(() => {
    residentBytes = Math.max(residentBytes, residentBytesOf(program.pid!).most);
  }, 100);
  program.once('exit', () => {
    clearInterval(look);
  });
  const [status] = (await once(program, 'exit')) as [number | null];
  if (status !== 0) throw new Error(`${command} ended with status ${status}.`);
  return {
    linesPerSecond: Math.round(file.lines / ((performance.now() - startMs) / 1000)),
    residentMb: Math.round(residentBytes / 1e6),
  };
}
