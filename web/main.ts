import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { messageOf, UsageError } from '../shared/errors.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/recorder.js';
import type { Store } from '../shared/store/store.js';
import { startAlerts } from './alerts/alerts.js';
import { createWebApp } from './app.js';
import type { WebConfig } from './config.js';
import { createReads } from './dashboard/read.js';
import { loadAssets } from './render.js';

/** A web app that listens. */
export interface RunningWeb {
  /** Where people of this machine find it: `http://127.0.0.1:3000`. */
  readonly url: string;
  /** Takes no more connections, lets answers finish for `drainMsMax`, then closes what is left. The store stays open. */
  stop(): Promise<void>;
}

/** How long answers in flight may take when the web app stops, in milliseconds. */
const drainMsMax = 5000;

/** Starts the web app; `now` is its clock in milliseconds since 1970, by default `Date.now`. Throws a `UsageError` when it cannot listen. */
export async function startWeb(config: WebConfig, { store, ...others }: { store: Store; recorder: Pick<Recorder, 'record'>; log: Log; now?: () => number }): Promise<RunningWeb> {
  const parts = { ...others, reads: createReads(store) };
  const app = createWebApp({ config, assets: await loadAssets(), ...parts });
  const handle = app.callback();
  const server = createServer((request, response) => void handle(request, response));
  await listen(server, config);
  const url = urlOf(server);
  const { alertWebhook: webhook, publicUrl: dashboardUrl = url } = config;
  const alerts = webhook === undefined ? undefined : startAlerts({ webhook, dashboardUrl, ...parts });
  return {
    url,
    async stop() {
      alerts?.stop();
      await stop(server);
    },
  };
}

function listen(server: Server, { host, port }: WebConfig): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'the port is in use. Stop the other process, or set WEB_LISTEN to a free port' : messageOf(cause);
      reject(new UsageError(`Cannot listen on http://${host || '*'}:${port}: ${why}.`, { cause }));
    });
    server.listen({ port, ...(host !== '' && { host }) }, resolve);
  });
}

function urlOf(server: Server): string {
  const { address, family, port } = server.address() as AddressInfo;
  const host = { '0.0.0.0': '127.0.0.1', '::': '[::1]' }[address] ?? (family === 'IPv6' ? `[${address}]` : address);
  return `http://${host}:${port}`;
}

async function stop(server: Server): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  const timer = setTimeout(() => server.closeAllConnections(), drainMsMax);
  await closed;
  clearTimeout(timer);
}
