import { once } from 'node:events';
import { createServer, request, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { promisify } from 'node:util';
import Koa from 'koa';
import test, { type ExecutionContext } from 'ava';
import { until } from '../../test/until.js';
import { admission } from './admission.js';

interface Waiting {
  readonly path: string;
  readonly answer: () => void;
  readonly signal: AbortSignal;
}

/** An app whose answers the test completes. */
async function start(
  t: ExecutionContext,
): Promise<{ port: number; waiting: Waiting[]; connections: () => Promise<number> }> {
  const waiting: Waiting[] = [];
  const app = new Koa();
  app.silent = true;
  app.use(admission());
  app.use(async (ctx) => {
    await new Promise<void>((resolve) => {
      waiting.push({ path: ctx.path, answer: resolve, signal: ctx.state['signal'] as AbortSignal });
    });
    ctx.body = 'answer';
  });
  const answer = app.callback();
  const server = createServer((...exchange) => {
    void answer(...exchange);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const { answer } of waiting) answer();
    server.closeAllConnections();
    server.close();
  });
  return {
    port: (server.address() as AddressInfo).port,
    waiting,
    connections: promisify(server.getConnections.bind(server)),
  };
}

test('runs eight answers concurrently and the others in order, and does not limit assets', async (t) => {
  const { port, waiting } = await start(t);
  const statuses = Array.from({ length: 12 }, (_, at) => ask(port, `/api/series?${at}`));
  await until('eight are in progress', () => waiting.length === 8);
  for (const path of ['/assets/main.css', '/api/ping', '/health']) {
    const before = waiting.length;
    const free = ask(port, path);
    await until(`${path} does not wait`, () => waiting.length > before);
    waiting.pop()!.answer();
    t.is(await free, 200);
  }
  t.is(waiting.length, 8);
  for (let at = 0; at < 12; at += 1) {
    await until('the next one is in progress', () => waiting.length > at);
    waiting[at]!.answer();
  }
  t.deepEqual(new Set(await Promise.all(statuses)), new Set([200]));
  t.is(waiting.length, 12);
});

test('removes a disconnected client from the queue and cancels its answer', async (t) => {
  const { port, waiting, connections } = await start(t);
  const made = Array.from({ length: 8 }, () => ask(port, '/'));
  await until('eight are in progress', () => waiting.length === 8);
  const leaving = Array.from({ length: 20 }, () =>
    request({ port, path: '/', agent: false })
      .on('error', () => undefined)
      .end(),
  );
  const stays = ask(port, '/api/summary');
  await until('they have connected', async () => (await connections()) === 29);
  for (const client of leaving) client.destroy();
  await until('they have disconnected', async () => (await connections()) === 9);
  waiting[0]!.answer();
  t.is(await made[0], 200);
  await until('the one that stayed is in progress', () => waiting.some(({ path }) => path === '/api/summary'));
  t.false(waiting[8]!.signal.aborted);
  waiting.find(({ path }) => path === '/api/summary')!.answer();
  t.is(await stays, 200);
  t.true(waiting[0]!.signal.aborted, 'the signal of a sent answer is aborted');
  for (const { answer } of waiting) answer();
  await Promise.all(made);
});

/** Sends a request, reads the whole answer and returns its status. */
async function ask(port: number, path: string): Promise<number> {
  const [answer] = (await once(request({ port, path, agent: false }).end(), 'response')) as [IncomingMessage];
  answer.resume();
  await once(answer, 'end');
  return answer.statusCode!;
}
