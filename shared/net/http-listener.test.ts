import { createServer, type RequestListener, type Server } from 'node:http';
import { connect } from 'node:net';
import { once } from 'node:events';
import test, { type ExecutionContext } from 'ava';
import { UsageError } from '../errors.js';
import { listenHttp } from './http-listener.js';
import type { Address } from '../settings/settings.js';

const free: Address = { host: '127.0.0.1', port: 0 };

test('returns an address that is reachable from this machine, for any listen address', async (t) => {
  for (const [host, reached] of [
    ['127.0.0.1', '127.0.0.1'],
    ['0.0.0.0', '127.0.0.1'],
    ['', '127.0.0.1|\\[::1\\]'],
    ['localhost', '127.0.0.1|\\[::1\\]'],
  ] as const) {
    const { url } = await listening(t, { host, port: 0 });
    t.regex(url, new RegExp(`^http://(${reached}):\\d+$`), host);
    t.is(await (await fetch(url)).text(), 'answered');
  }
});

test('rejects a port in use and an address of another machine, and names the setting', async (t) => {
  const { url } = await listening(t, free);
  const port = Number(new URL(url).port);
  await t.throwsAsync(listening(t, { host: '127.0.0.1', port }), {
    instanceOf: UsageError,
    message: `Cannot listen on http://127.0.0.1:${port}: the port is in use. Stop the other process, or set THE_SETTING to a free port, or to off.`,
  });
  await t.throwsAsync(listening(t, { host: '192.0.2.1', port: 0 }), {
    instanceOf: UsageError,
    message: /^Cannot listen on http:\/\/192\.0\.2\.1:0: this machine does not have that address\. Set THE_SETTING/,
  });
});

test('waits for pending responses when it stops, up to a limit', async (t) => {
  let answer: (() => void) | undefined;
  const listener = await listening(
    t,
    free,
    (_, response) => {
      answer = () => response.end('late');
    },
    { drainMsMax: 60_000 },
  );
  const response = fetch(listener.url);
  while (answer === undefined) await once(listener.server, 'request');
  const stopped = listener.stop();
  answer();
  t.is(await (await response).text(), 'late');
  await stopped;

  const silent = await listening(t, free, () => undefined, { drainMsMax: 50 });
  const socket = connect(Number(new URL(silent.url).port), '127.0.0.1');
  socket.on('error', () => undefined).write('GET / HTTP/1.1\r\n');
  await once(silent.server, 'connection');
  await silent.stop();
  t.pass('it is closed with the connection still open');
});

async function listening(
  t: ExecutionContext,
  address: Address,
  answer: RequestListener = (_, response) => void response.end('answered'),
  { drainMsMax = 1000 } = {},
): Promise<{ readonly server: Server; readonly url: string; stop(): Promise<void> }> {
  const server = createServer(answer);
  const listener = await listenHttp(server, address, { setting: 'THE_SETTING', orElse: ', or to off', drainMsMax });
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return { server, ...listener };
}
