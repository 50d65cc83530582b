/** From the start of the program until it answers, over an embedded store that holds a day of the demo's traffic; and what a request takes there. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { seedDay } from '../demo/seed.js';
import { createTraffic } from '../demo/traffic.js';
import { createLog } from '../shared/log.js';
import { createRecorder } from '../shared/recorder.js';
import { openStore } from '../shared/store/open.js';
import { freePorts } from '../test/ports.js';
import { startProgram, temporaryFolder } from '../test/program.js';
import { figureOf, inTurn, spreadText, type Result } from './compare.js';

const startMsMax = 1000;
const log = createLog('bench', { write: () => undefined });

/** Measures starts. */
export async function benchStart(say: (text: string) => void): Promise<Result[]> {
  const cwd = await temporaryFolder();
  const path = join(cwd, 'requests.duckdb');
  const store = await openStore({ kind: 'duckdb', path, retention: { requestsMs: 7 * 86_400_000, rollupsMs: 400 * 86_400_000 } }, { log });
  const recorder = createRecorder({ store, log, name: 'bench', hostsMax: 200, clientIp: 'truncated', memoryBytesMax: 2 ** 30 });
  const requests = await seedDay(createTraffic({ seed: 1, requestsPerDay: 200_000, startMs: Date.now() }), recorder);
  await recorder.close();
  await store.close();
  const { size } = await stat(path);
  const runs = await inTurn([{
    name: 'start',
    run: async () => {
      const [port, http, web] = await freePorts(3) as [number, number, number];
      const startMs = performance.now();
      const program = await startProgram(['start'], {
        STORE: `duckdb:${path}`, COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`, COLLECTOR_HTTP: `127.0.0.1:${http}`, WEB_LISTEN: `127.0.0.1:${web}`,
      }, [`http://127.0.0.1:${http}/health`, `http://127.0.0.1:${web}/health`], { cwd });
      const ms = performance.now() - startMs;
      await program.stop();
      return { ms };
    },
  }], { rounds: 7, onRun: (name, figures) => { say(`${name}: ${JSON.stringify(figures)}`); } });
  const ms = figureOf(runs, 'start', 'ms');
  return [
    { what: `start over a store with a day of ${requests.toLocaleString('en')} requests, until it answers`, measured: `${spreadText(ms)} ms`, against: '', wanted: `at most ${startMsMax} ms`, holds: ms.median <= startMsMax },
    { what: 'bytes of the embedded store for a request, totals and lists of the day included', measured: (size / requests).toFixed(1), against: '', wanted: '', holds: undefined },
  ];
}
