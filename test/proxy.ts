import { once } from 'node:events';
import { createServer, request as forward, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { gunzipSync } from 'node:zlib';

/** What a scripted proxy does with a write. */
export type ProxyAct =
  | 'pass'
  /** Hangs up before anything is read. */
  | 'reset'
  /** The server writes, and its answer breaks off. */
  | 'reset-after'
  /** Never answers. */
  | 'hang'
  | { readonly status: number; readonly headers?: Readonly<Record<string, string>>; readonly body?: string };

/** A proxy in front of a real server: only writes are interfered with. */
export interface Proxy {
  readonly url: string;
  /** What to do with the next writes; `lines` is how many a write has. May be replaced at any time. */
  act: (write: { readonly lines: number; readonly text: string }) => ProxyAct;
  /** Writes so far. */
  readonly writes: number;
  stop(): Promise<void>;
}

/** Starts a proxy that passes everything on, until `act` says otherwise. */
export async function startProxy(target: string): Promise<Proxy> {
  const proxy = { act: (): ProxyAct => 'pass', writes: 0 } as { act: Proxy['act']; writes: number };
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return Object.assign(proxy, {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  });

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await buffer(request);
    let act: ProxyAct = 'pass';
    if (request.url?.startsWith('/api/v2/write') === true) {
      proxy.writes += 1;
      const text =
        request.headers['content-encoding'] === 'gzip' ? gunzipSync(body).toString('utf8') : body.toString('utf8');
      act = proxy.act({ text, lines: text.split('\n').length - 1 });
    }
    if (act === 'hang') return;
    if (act === 'reset') {
      request.socket.resetAndDestroy();
    } else if (typeof act === 'object') {
      response.writeHead(act.status, act.headers).end(act.body);
    } else {
      const passed = forward(`${target}${request.url ?? '/'}`, {
        method: request.method,
        headers: { ...request.headers, host: new URL(target).host },
      });
      passed.on('error', () => request.socket.resetAndDestroy());
      passed.on('response', (answered) => {
        if (act === 'reset-after') {
          answered.resume().once('end', () => request.socket.resetAndDestroy());
          return;
        }
        response.writeHead(answered.statusCode!, answered.headers);
        answered.pipe(response);
      });
      passed.end(body);
    }
  }
}
