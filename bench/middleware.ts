/** What the middleware and the recorder add to a request of a Koa app: the processor time of two processes of one app, with it and without. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePort } from '../test/ports.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, spreadOf, spreadText, type Figures, type Result } from './compare.js';
import { cpuSecondsOf } from './process.js';

const autocannon = fileURLToPath(new URL('../../node_modules/autocannon/autocannon.js', import.meta.url));
const requests = 60_000;
const addedUsMax = 5;

/** Compares microseconds of processor time for a request. */
export async function benchMiddleware(say: (text: string) => void): Promise<Result[]> {
  const runs = await inTurn(['measured', 'plain'].map((name) => ({ name, run: () => measure(name) })), { rounds: 9, onRun: (name, figures) => { say(`${name}: ${JSON.stringify(figures)}`); } });
  const added = spreadOf(runs['measured']!.map(({ usPerRequest }, at) => usPerRequest! - runs['plain']![at]!['usPerRequest']!));
  return [{
    what: 'processor time that the middleware adds to a request', measured: `${spreadText(added, 1)} µs`, against: `the app alone: ${spreadText(figureOf(runs, 'plain', 'usPerRequest'), 1)} µs`,
    wanted: `at most ${addedUsMax} µs`, holds: added.median <= addedUsMax,
  }];
}

async function measure(kind: string): Promise<Figures> {
  const port = await freePort();
  const app = spawn(process.execPath, [fileURLToPath(new URL('koa-app.js', import.meta.url)), String(port), kind], { stdio: ['ignore', 'ignore', 'inherit'] });
  const url = `http://127.0.0.1:${port}/`;
  const load = async (): Promise<void> => {
    const { stdout } = await promisify(execFile)(process.execPath, [autocannon, '--connections', '20', '--amount', String(requests), '--json', url]);
    const { non2xx, errors } = JSON.parse(stdout) as { non2xx: number; errors: number };
    if (non2xx + errors > 0) throw new Error(`${non2xx + errors} requests to the app failed.`);
  };
  try {
    await until('the app answers', () => fetch(url).then(({ ok }) => ok, () => false));
    await load(); // to warm up
    const before = cpuSecondsOf(app.pid!);
    await load();
    return { usPerRequest: (cpuSecondsOf(app.pid!) - before) * 1e6 / requests };
  } finally {
    const ended = once(app, 'exit');
    app.kill();
    await ended;
  }
}
