import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { createLog } from '../../shared/log.js';
import { until } from '../../test/until.js';
import { Delivery, type DeliveryOptions } from './deliver.js';
import type { AlertMessage } from './message.js';

const message: AlertMessage = {
  status: 'firing',
  kind: 'errors',
  source: 'caddy',
  value: 0.03,
  threshold: 0.02,
  unit: 'share',
  since: '2026-11-23T20:00:00.000Z',
  at: '2026-11-23T20:01:00.000Z',
  url: 'http://127.0.0.1:3000/',
  text: 'Firing.',
};

interface Received {
  readonly path: string;
  readonly authorization: string | undefined;
  readonly type: string | undefined;
  readonly body: unknown;
}

/** A real receiver that answers the nth request with `answer`, and a delivery to it. */
async function start(
  t: ExecutionContext,
  answer: (response: ServerResponse, nth: number, request: IncomingMessage) => void,
  options: Partial<DeliveryOptions> = {},
) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
    });
    request.on('end', () => {
      received.push({
        path: request.url!,
        authorization: request.headers.authorization,
        type: request.headers['content-type'],
        body: JSON.parse(text),
      });
      answer(response, received.length, request);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const logged: string[] = [];
  const note = (line: string): void => {
    t.false(line.includes('s3cret'), line);
    logged.push(line);
  };
  const delivery = new Delivery({
    webhook: new URL(`http://someone:s3cret%21@127.0.0.1:${port}/hooks/s3cret`),
    log: createLog('test', { write: note }),
    waitMs: () => 1,
    ...options,
  });
  t.teardown(() => {
    delivery.stop();
    server.closeAllConnections();
    server.close();
  });
  return { delivery, received, logged, server, port };
}

const ok = (response: ServerResponse): void => {
  response.end('ok');
};
const say =
  (status: number, headers = {}) =>
  (response: ServerResponse): void => {
    response.writeHead(status, headers).end();
  };

test('posts a message once as JSON, with the credentials of the URL as a header', async (t) => {
  const { delivery, received, logged } = await start(t, ok);
  delivery.send(message);
  delivery.send({ ...message, status: 'resolved' });
  await until('both are there', () => received.length === 2);
  t.deepEqual(received[0], {
    path: '/hooks/s3cret',
    authorization: `Basic ${Buffer.from('someone:s3cret!').toString('base64')}`,
    type: 'application/json',
    body: message,
  });
  t.like(received[1], { body: { status: 'resolved' } });
  t.deepEqual(logged, []);
});

test('retries a failed message before the next one', async (t) => {
  const { delivery, received, logged } = await start(t, (response, nth) => {
    say(nth === 1 ? 503 : nth === 2 ? 429 : 204)(response);
  });
  delivery.send(message);
  delivery.send({ ...message, status: 'resolved' });
  await until('both are there', () => received.length === 4);
  t.deepEqual(
    received.map(({ body }) => (body as AlertMessage).status),
    ['firing', 'firing', 'firing', 'resolved'],
  );
  t.is(logged.length, 1);
  t.regex(
    logged[0]!,
    /Cannot post an alert to http:\/\/127\.0\.0\.1:\d+, retrying: the receiver responded with status 503/,
  );
});

test('retries when a receiver hangs, hangs up or never ends its response', async (t) => {
  const { delivery, received } = await start(
    t,
    (response, nth, request) => {
      if (nth === 1) return;
      if (nth === 2) request.socket.destroy();
      else response.write('and so on'); // 200, and no end
    },
    { timeoutMs: 200 },
  );
  delivery.send(message);
  delivery.send(message);
  await until('the second one is there', () => received.length === 4);
});

test('neither follows redirects nor retries refusals', async (t) => {
  const { delivery, received, logged } = await start(t, (response, nth) => {
    (nth === 1 ? say(307, { location: '/elsewhere?s3cret' }) : nth === 2 ? say(404) : ok)(response);
  });
  for (let at = 0; at < 3; at += 1) delivery.send(message);
  await until('the last one is there', () => received.length === 3);
  t.deepEqual(
    received.map(({ path }) => path),
    ['/hooks/s3cret', '/hooks/s3cret', '/hooks/s3cret'],
  );
  t.regex(logged[0]!, /giving up: the receiver redirects \(status 307\).* tries=1/);
  t.regex(logged[1]!, /giving up: the receiver responded with status 404.* tries=1/);
});

test('gives up after the maximum number of attempts, and logs messages that do not fit in the queue', async (t) => {
  const { delivery, logged, server } = await start(t, ok, { triesMax: 3, waitingMax: 1 });
  server.close();
  delivery.send(message);
  delivery.send(message);
  await until('it is given up', () =>
    logged.some((line) => line.includes('giving up') && line.includes('ECONNREFUSED') && line.includes('tries=3')),
  );
  t.true(logged.some((line) => line.includes('Cannot queue an alert: 1 alerts')));
});

test('stops by aborting the current request and discarding the queue', async (t) => {
  let gone = false;
  const { delivery, received, logged } = await start(t, (response) => {
    response.on('close', () => {
      gone = true;
    });
  });
  delivery.send(message);
  delivery.send(message);
  await until('the first one hangs', () => received.length === 1);
  delivery.stop();
  delivery.send(message);
  await until('the connection is closed', () => gone);
  t.is(received.length, 1);
  t.deepEqual(logged, []);
});
