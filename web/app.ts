/** The web app, assembled from its parts. Opens no sockets. */
import Router from '@koa/router';
import Koa, { type Middleware } from 'koa';
import compress from 'koa-compress';
import { messageOf } from '../shared/errors.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/record/recorder.js';
import { dashboardSource } from '../shared/request-event.js';
import { probes, refuseOtherNames, refuseOtherSites, requirePassword } from './auth/guard.js';
import type { WebConfig } from './config.js';
import { createWebMetrics, type WebMetrics } from './metrics.js';
import { admission } from './middleware/admission.js';
import { measureRequests } from './middleware/request-metrics.js';
import { revalidation } from './middleware/revalidation.js';
import { securityHeaders } from './middleware/security-headers.js';
import { answerErrors } from './problem.js';
import type { Reads } from './query/reads.js';
import { renderViews, type Assets } from './render.js';
import { addApiRoutes } from './routes/api.js';
import { addChartRoutes } from './routes/charts.js';
import { addOpsRoutes } from './routes/ops.js';
import { addPageRoutes } from './routes/pages.js';

/** Dependencies of the web app. */
export interface WebAppOptions {
  readonly config: Pick<WebConfig, 'password' | 'loopbackNamesOnly' | 'clientIp' | 'connectHint'>;
  /** Cached reads of the store. */
  readonly reads: Reads;
  /** Records the app's own requests. */
  readonly recorder: Pick<Recorder, 'record'>;
  readonly log: Log;
  readonly assets: Assets;
  /** The clock, in milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
  /** A monotonic clock, in milliseconds. Default: `performance.now`. */
  readonly monotonicMs?: (() => number) | undefined;
}

/** Creates the Koa app. */
export function createWebApp({
  config,
  reads,
  recorder,
  log,
  assets,
  now = Date.now,
  monotonicMs,
}: WebAppOptions): Koa {
  const isStoreUp = (): Promise<boolean> =>
    reads.ping().then(
      () => true,
      () => false,
    );
  const metrics = createWebMetrics({ storeUp: isStoreUp });
  const app = new Koa();
  app.on('error', (error: NodeJS.ErrnoException) => {
    if (!isClientGone(error)) log.error(`Cannot finish an answer: ${messageOf(error)}`);
  });
  app.use(securityHeaders());
  app.use(refuseOtherSites({ log })); // before the recorder: requests from other sites are not recorded
  app.use(measureAll({ metrics, recorder }));
  app.use(compress({ zstd: false }));
  app.use(revalidation());
  app.use(renderViews());
  app.use(answerErrors({ log, assets }));
  if (config.loopbackNamesOnly === true) app.use(refuseOtherNames({ log }));
  if (config.password !== undefined) app.use(requirePassword(config.password, { log, monotonicMs }));
  app.use(admission());
  const router = new Router();
  const parts = { reads, assets, metrics, connectHint: config.connectHint, clientIp: config.clientIp, now };
  addPageRoutes(router, parts);
  addApiRoutes(router, parts);
  addChartRoutes(router, parts);
  addOpsRoutes(router, parts);
  app.use(router.routes());
  app.use(router.allowedMethods());
  return app;
}

/** Measures all requests, and records those of users: neither probes nor the polls of an open page. */
function measureAll({ metrics, recorder }: { metrics: WebMetrics; recorder: Pick<Recorder, 'record'> }): Middleware {
  const measure = (isRecorded: (endpoint: string) => boolean): Middleware =>
    measureRequests({
      source: dashboardSource,
      recorder: {
        record(event) {
          metrics.observe(event);
          return !isRecorded(event.endpoint) || recorder.record(event);
        },
      },
    });
  // Probes arrive at regular intervals, and would be most of a quiet site's traffic.
  const every = measure((endpoint) => !probes.has(endpoint));
  // A recorded poll would be a new request to show, so that no poll could ever answer 304.
  const poll = measure(() => false);
  return async (ctx, next) => {
    await (ctx.get('X-Poll') === '' ? every : poll)(ctx, next);
  };
}

function isClientGone({ code }: NodeJS.ErrnoException): boolean {
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'ECONNABORTED' || code === 'ERR_STREAM_PREMATURE_CLOSE';
}
