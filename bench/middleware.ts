/**
 * What the middleware and the recorder add to a request of a Koa app: the processor time of one process for requests to an app with it and to one
 * without, in turn. Three quarters of it are the kernel's, for writing to sockets, and differ from second to second: so the turns are short and
 * many, and each is compared with the one beside it.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { freePorts } from '../test/ports.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, spreadOf, spreadText, type Result } from './compare.js';
import { runningSecondsOf } from './process.js';

const autocannon = fileURLToPath(new URL('../../node_modules/autocannon/autocannon.js', import.meta.url));
/** Of one turn. */
const requests = 10_000;
const turns = 40;
const addedUsMax = 5;

/** Compares microseconds of processor time for a request. */
export async function benchMiddleware(say: (text: string) => void): Promise<Result[]> {
  const [port, plainPort] = await freePorts(2) as [number, number];
  const app = spawn(process.execPath, [fileURLToPath(new URL('koa-app.js', import.meta.url)), String(port), String(plainPort)], { stdio: ['ignore', 'ignore', 'inherit'] });
  const load = async (url: string, amount: number): Promise<void> => {
    const { stdout } = await promisify(execFile)(process.execPath, [autocannon, '--connections', '20', '--amount', String(amount), '--json', url]);
    const { non2xx, errors } = JSON.parse(stdout) as { non2xx: number; errors: number };
    if (non2xx + errors > 0) throw new Error(`${non2xx + errors} requests to the app failed.`);
  };
  try {
    const contenders = await Promise.all([['measured', port] as const, ['plain', plainPort] as const].map(async ([name, at]) => {
      const url = `http://127.0.0.1:${at}/`;
      await until('the app answers', () => fetch(url).then(({ ok }) => ok, () => false));
      await load(url, 5 * requests); // to warm up
      return {
        name,
        async run() {
          const before = runningSecondsOf(app.pid!);
          await load(url, requests);
          return { usPerRequest: (runningSecondsOf(app.pid!) - before) * 1e6 / requests };
        },
      };
    }));
    const runs = await inTurn(contenders, { rounds: turns, onRun: (name, figures) => { say(`${name}: ${JSON.stringify(figures)}`); } });
    const added = spreadOf(runs['measured']!.map(({ usPerRequest }, at) => usPerRequest! - runs['plain']![at]!['usPerRequest']!));
    return [{
      what: 'processor time that the middleware adds to a request', measured: `${spreadText(added, 1)} µs`, against: `the app alone: ${spreadText(figureOf(runs, 'plain', 'usPerRequest'), 1)} µs`,
      wanted: `at most ${addedUsMax} µs`, holds: added.median <= addedUsMax,
    }];
  } finally {
    const ended = once(app, 'exit');
    app.kill();
    await ended;
  }
}
