/** From the start of the program until it answers, over an embedded store that holds a day of the demo's traffic */
import { join } from 'node:path';
import { startOverDuckdb, temporaryFolder } from '../test/program.js';
import { figureOf, inTurn, spreadText, type Result } from './compare.js';
import { makeDay } from './day.js';

const startMsMax = 1000;

/** Measures starts. */
export async function benchStart(say: (text: string) => void): Promise<Result[]> {
  const cwd = await temporaryFolder();
  const path = join(cwd, 'requests.duckdb');
  const requests = await makeDay(path);
  const runs = await inTurn(
    [
      {
        name: 'start',
        run: async () => {
          const startMs = performance.now();
          const program = await startOverDuckdb(path, { cwd });
          const ms = performance.now() - startMs;
          await program.stop();
          return { ms };
        },
      },
    ],
    {
      rounds: 7,
      onRun: (name, figures) => {
        say(`${name}: ${JSON.stringify(figures)}`);
      },
    },
  );
  const ms = figureOf(runs, 'start', 'ms');
  return [
    {
      what: `start over a store with a day of ${requests.toLocaleString('en')} requests, until it answers`,
      measured: `${spreadText(ms)} ms`,
      against: '',
      wanted: `at most ${startMsMax} ms`,
      holds: ms.median <= startMsMax,
    },
  ];
}
