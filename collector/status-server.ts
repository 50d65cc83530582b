import { createServer } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import Router from '@koa/router';
import Koa, { type Middleware } from 'koa';
import { crossSiteRefusal } from '../shared/net/cross-site.js';
import { messageOf } from '../shared/errors.js';
import { listenHttp, type HttpListener } from '../shared/net/http-listener.js';
import { rateLimitedWarn, type Log } from '../shared/log.js';
import { isLoopbackName } from '../shared/net/loopback-name.js';
import type { Recorder } from '../shared/record/recorder.js';
import { isLoopback, type Address } from '../shared/settings/settings.js';
import { ledgerJson } from '../shared/store/ledger-json.js';
import type { Store } from '../shared/store/store.js';
import type { LearnedDuration } from './decode/duration.js';
import { createImportEndpoint, type ImportEndpointParts } from './import/endpoint.js';
import type { LineAccounts } from './ledger.js';
import type { LineSources } from './line-sources.js';
import { createMetrics, type MetricsParts } from './metrics.js';

/** Dependencies of the status server. */
export interface StatusParts extends Omit<MetricsParts, 'unreadMsMax'> {
  readonly id: string;
  readonly accounts: Pick<LineAccounts, 'timeOfArrival' | 'examples' | 'warnings'>;
  /** Duration formats by logger. */
  readonly durationFormats: () => Readonly<Record<string, LearnedDuration>>;
  readonly recorder: Recorder;
  readonly store: Store;
  readonly log: Log;
  readonly sources: Pick<LineSources, 'json' | 'skewMsMax'>;
  /** Dependencies of `POST /import`. */
  readonly imports: Omit<ImportEndpointParts, 'recorder'>;
}

/** Maximum time for responses in flight when the collector stops, in milliseconds. */
const drainMsMax = 1000;

/** Sampling interval of the event loop delay, in milliseconds. */
const loopDelaySampleMs = 10;

/** The collector's HTTP server. */
export interface StatusServer extends HttpListener {
  /** Aborts the running import and rejects new ones. Other requests are still answered. */
  stopImports(): Promise<void>;
}

/** Serves `/health`, `/ready`, `/metrics`, `/ledger` and `POST /import`. Throws a `UsageError` if it cannot listen. */
export async function startStatusServer(address: Address, parts: StatusParts): Promise<StatusServer> {
  const loopDelay = monitorEventLoopDelay({ resolution: loopDelaySampleMs });
  loopDelay.enable();
  /** Upper bound: each turn of the event loop reads every socket, so none waited longer than the longest turn. */
  const unreadMsMax = (): number => Math.max(0, loopDelay.max / 1e6 - loopDelaySampleMs);
  const imports = createImportEndpoint({ ...parts.imports, recorder: parts.recorder });
  let runningImports = 0;
  const router = statusRouter(parts, unreadMsMax).post('/import', async (ctx) => {
    ctx.respond = false;
    runningImports += 1;
    server.requestTimeout = 0; // a large import exceeds Node's 5 minutes; the timeout for headers stays at 1 minute
    await imports.handle(ctx.req, ctx.res);
    runningImports -= 1;
    if (runningImports === 0) server.requestTimeout = requestMsMax; // not while another import is running
  });
  const app = new Koa().use(refuseOtherPages(address, parts.log)).use(router.routes()).use(router.allowedMethods());
  app.on('error', (error: unknown, ctx: { readonly path: string } | undefined) => {
    if (ctx?.path === '/import') return; // the import reports its own result
    parts.log.error(`A request to COLLECTOR_HTTP failed: ${messageOf(error)}`);
  });

  const handle = app.callback();
  const server = createServer((request, response) => {
    void handle(request, response);
  });
  const requestMsMax = server.requestTimeout;
  server.on('checkContinue', (request, response) => {
    void handle(request, response);
  });
  const listener = await listenHttp(server, address, { setting: 'COLLECTOR_HTTP', orElse: ', or to off', drainMsMax });
  return {
    url: listener.url,
    stopImports: () => imports.stop(),
    async stop() {
      loopDelay.disable();
      await imports.stop();
      await listener.stop();
    },
  };
}

/** The routes that only read. */
function statusRouter(parts: StatusParts, unreadMsMax: () => number): Router {
  const metrics = createMetrics({ ...parts, unreadMsMax });
  return new Router()
    .get('/health', (ctx) => {
      ctx.body = { status: 'ok' };
    })
    .get('/ready', async (ctx) => {
      const problem =
        parts.recorder.problem ??
        parts.store.spool?.problem ??
        (await parts.store.pingToWrite().then(() => undefined, messageOf));
      ctx.status = problem === undefined ? 200 : 503;
      ctx.body = problem === undefined ? { status: 'ok' } : { status: 'store-unavailable', message: problem };
    })
    .get('/metrics', async (ctx) => {
      ctx.type = metrics.contentType;
      ctx.body = await metrics.metrics();
    })
    .get('/ledger', async (ctx) => {
      const datagramsLost = await parts.lostDatagrams();
      ctx.body = {
        collectors: {
          [parts.id]: {
            ...ledgerJson(parts.ledger()),
            ...decodingJson(parts),
            ...spoolJson(parts.store),
            unread_ms_max: Math.round(unreadMsMax()),
            connections: parts.sources.json(),
          },
        },
        udp: { datagrams_lost: datagramsLost },
      };
    });
}

/**
 * Refuses requests from pages of other origins, and, on a loopback address, foreign `Host` names (DNS rebinding).
 * Allowed under any name: `/health`, `/ready`, and requests with `Via` (from a proxy; no page can set it). On other
 * addresses the valid names are unknown, such as the service name of a container.
 */
function refuseOtherPages({ host }: Address, log: Log): Middleware {
  const warn = rateLimitedWarn(log.warn);
  return async (ctx, next) => {
    const name = ctx.get('Host');
    const isNameAllowed =
      !isLoopback(host) ||
      isLoopbackName(name) ||
      ctx.get('Via') !== '' ||
      ctx.path === '/health' ||
      ctx.path === '/ready';
    const crossSite = crossSiteRefusal(ctx.req);
    if (crossSite === undefined && isNameAllowed) {
      await next();
      return;
    }
    const refusal =
      crossSite === undefined
        ? `Host is ${JSON.stringify(name.slice(0, 100))}, and COLLECTOR_HTTP is on loopback, where only localhost and IP addresses are accepted. Use 127.0.0.1, or set COLLECTOR_HTTP to an address of the network`
        : `a page of another site sent it: ${crossSite}`;
    warn('refused', `Refused a request to COLLECTOR_HTTP: ${refusal}.`, { path: ctx.url.slice(0, 100) });
    ctx.status = 403;
    ctx.set('Connection', 'close'); // the body of an import is not read
    ctx.body = { error: `Refused: ${refusal}.` };
  };
}

/** The parts of the ledger that describe decoding: the learned duration formats, and examples of rejected lines. */
function decodingJson({ accounts, durationFormats }: StatusParts): object {
  return {
    time_of_arrival: accounts.timeOfArrival,
    duration_formats: durationFormats(),
    rejected_examples: accounts.examples,
  };
}

/** The parts of the ledger that describe the spool: its size, and the lines that earlier runs left in it. */
function spoolJson({ spool }: Store): object {
  if (spool === undefined) return {};
  const { earlier, bytes, damages } = spool;
  return {
    earlier: { stored: earlier.stored, spooled: earlier.spooled, dead_lettered: earlier.deadLettered },
    spool: { bytes, damages },
  };
}
