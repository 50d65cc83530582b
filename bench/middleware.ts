/**
 * What the middleware and the recorder add to a request of a Koa app: the processor time of one process for requests to
 * an app with it and to one without, in turn. Three quarters of it are the kernel's, for writing to sockets, and differ
 * from second to second: so the turns take some ten milliseconds and are many, and each is compared with the one beside
 * it. The app is saturated: with idle time in between, a slower request would find more requests queued,
 * and the kernel's part shrinks.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { freePorts } from '../test/ports.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, spreadText, type Result } from './compare.js';
import { runningSecondsOf } from '../test/process.js';

const connections = 20;
/** Of one turn. */
const requests = 400;
const turns = 500;
const addedUsMax = 5;

/** Compares microseconds of processor time for a request. */
export async function benchMiddleware(say: (text: string) => void): Promise<Result[]> {
  const [port, plainPort] = (await freePorts(2)) as [number, number];
  const app = spawn(
    process.execPath,
    [fileURLToPath(new URL('koa-app.js', import.meta.url)), String(port), String(plainPort)],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const open: Socket[] = [];
  try {
    const contenders = await Promise.all(
      [['measured', port] as const, ['plain', plainPort] as const].map(async ([name, at]) => {
        await until('the app answers', () =>
          fetch(`http://127.0.0.1:${at}/`).then(
            ({ ok }) => ok,
            () => false,
          ),
        );
        const sockets = Array.from({ length: connections }, () => connect(at, '127.0.0.1').setNoDelay());
        open.push(...sockets);
        for (let turn = 0; turn < 100; turn += 1) await ask(sockets); // to warm up
        return {
          name,
          async run() {
            const before = runningSecondsOf(app.pid!);
            await ask(sockets);
            return { usPerRequest: ((runningSecondsOf(app.pid!) - before) * 1e6) / requests };
          },
        };
      }),
    );
    say(`${turns} turns of ${requests} requests each`);
    const runs = await inTurn(contenders, { rounds: turns });
    const added = runs['measured']!.map(
      ({ usPerRequest }, at) => usPerRequest! - runs['plain']![at]!['usPerRequest']!,
    ).toSorted((a, b) => a - b);
    // The middle half of the turns: in others, something else on the machine had its turn too.
    const [low, median, high] = [0.25, 0.5, 0.75].map((part) => added[Math.floor(added.length * part)]!) as [
      number,
      number,
      number,
    ];
    return [
      {
        what: 'processor time that the middleware adds to a request',
        measured: `${spreadText({ median, min: low, max: high }, 1)} µs, quartiles`,
        against: `the app alone: ${spreadText(figureOf(runs, 'plain', 'usPerRequest'), 1)} µs`,
        wanted: `at most ${addedUsMax} µs`,
        holds: median <= addedUsMax,
      },
    ];
  } finally {
    for (const socket of open) socket.destroy();
    const ended = once(app, 'exit');
    app.kill();
    await ended;
  }
}

/**
 * Sends the requests of one turn, one over each connection at a time, as bytes: a client of Node's takes longer than
 * the app, which would wait.
 */
async function ask(sockets: readonly Socket[]): Promise<void> {
  let left = requests;
  await Promise.all(
    sockets.map(
      (socket) =>
        new Promise<void>((resolve, reject) => {
          const next = (): void => {
            if (left > 0) {
              left -= 1;
              socket.write(request);
              return;
            }
            socket.off('data', onData).off('close', onClose);
            resolve();
          };
          // The app's whole answer comes at once: it is that short.
          const onData = (bytes: Buffer): void => {
            if (
              bytes.subarray(0, answerBegins.length).equals(answerBegins) &&
              bytes.subarray(-answerEnds.length).equals(answerEnds)
            )
              next();
            else reject(new Error(`The app answered ${JSON.stringify(bytes.toString())}.`));
          };
          const onClose = (): void => {
            reject(new Error('The app closed a connection.'));
          };
          socket.on('data', onData).on('close', onClose);
          next();
        }),
    ),
  );
}

const request = 'GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n';
const answerBegins = Buffer.from('HTTP/1.1 200 OK\r\n');
const answerEnds = Buffer.from('\r\n\r\nhello');
