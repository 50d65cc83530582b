import { createServer } from 'node:http';
import { listenHttp, type HttpListener } from '../shared/net/http-listener.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/record/recorder.js';
import type { Store } from '../shared/store/store.js';
import { startAlerts, type EvaluatedTraffic } from './alerts/alerts.js';
import { createWebApp } from './app.js';
import type { WebConfig } from './config.js';
import { readCurrentTraffic } from './query/read-traffic.js';
import { createReads } from './query/reads.js';
import { loadAssets } from './render.js';

/** Maximum time to drain answers in progress on shutdown, in milliseconds. */
const drainMsMax = 5000;

/**
 * Starts the web app. For `now` and `monotonicMs` see `WebAppOptions`. Stopping it does not close the store. Throws a
 * `UsageError` if it cannot listen.
 */
export async function startWeb(
  config: WebConfig,
  {
    store,
    ...others
  }: { store: Store; recorder: Pick<Recorder, 'record'>; log: Log; now?: () => number; monotonicMs?: () => number },
): Promise<HttpListener> {
  const reads = createReads(store);
  const app = createWebApp({ config, assets: await loadAssets(), reads, ...others });
  const handle = app.callback();
  const server = createServer((request, response) => void handle(request, response));
  const listener = await listenHttp(server, config, { setting: 'WEB_LISTEN', drainMsMax });
  const { alertWebhook: webhook, publicUrl: dashboardUrl = listener.url } = config;
  const readTraffic = (nowMs: number): Promise<EvaluatedTraffic> => readCurrentTraffic(reads, nowMs);
  const alerts = webhook === undefined ? undefined : startAlerts({ webhook, dashboardUrl, readTraffic, ...others });
  return {
    url: listener.url,
    async stop() {
      alerts?.stop();
      await listener.stop();
    },
  };
}
