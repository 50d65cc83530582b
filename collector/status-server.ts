import { createServer } from 'node:http';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import Router from '@koa/router';
import Koa, { type Middleware } from 'koa';
import { Counter, Gauge, Registry } from 'prom-client';
import { crossSiteRefusal } from '../shared/net/cross-site.js';
import { messageOf } from '../shared/errors.js';
import { listenHttp, type HttpListener } from '../shared/net/http-listener.js';
import { rateLimitedWarn, type Log } from '../shared/log.js';
import { isLoopbackName } from '../shared/net/loopback-name.js';
import type { Recorder } from '../shared/record/recorder.js';
import { isLoopback, type Address } from '../shared/settings/settings.js';
import { ledgerJson } from '../shared/store/ledger-json.js';
import type { Ledger, Store } from '../shared/store/store.js';
import type { LearnedDuration } from './decode/duration.js';
import { createImportEndpoint, type ImportEndpointParts } from './import/endpoint.js';
import type { LineAccounts } from './ledger.js';
import type { LineSources } from './line-sources.js';

/** Dependencies of the status server. */
export interface StatusParts {
  readonly id: string;
  readonly ledger: () => Ledger;
  readonly accounts: Pick<LineAccounts, 'timeOfArrival' | 'examples' | 'warnings'>;
  /** Duration formats by logger. */
  readonly durationFormats: () => Readonly<Record<string, LearnedDuration>>;
  readonly recorder: Recorder;
  readonly store: Store;
  readonly log: Log;
  readonly connections: { readonly count: number };
  readonly sources: Pick<LineSources, 'json' | 'skewMsMax'>;
  /** Number of datagrams that the kernel has dropped since the start; `null` if unknown. */
  readonly lostDatagrams: () => Promise<number | null>;
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
  const metrics = createMetrics(parts, unreadMsMax);
  const imports = createImportEndpoint({ ...parts.imports, recorder: parts.recorder });
  let runningImports = 0;
  const router = new Router()
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
    })
    .post('/import', async (ctx) => {
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

/** Creates the Prometheus metrics of the ledger and the sockets. Values are read at each scrape. */
function createMetrics(
  { ledger, accounts, connections, sources, recorder, lostDatagrams, store }: StatusParts,
  unreadMsMax: () => number,
): Registry {
  const registry = new Registry();
  const registers = [registry];
  // The counts are held elsewhere, so each scrape resets and sets the counter.
  const linesBy = (
    name: string,
    help: string,
    read: (current: Ledger) => Readonly<Record<string, number>>,
    labelName: string,
  ): void => {
    new Counter({
      name,
      help,
      registers,
      labelNames: [labelName],
      collect() {
        this.reset();
        for (const [label, value] of Object.entries(read(ledger()))) this.inc({ [labelName]: label }, value);
      },
    });
  };
  linesBy(
    'caddy_log_sink_lines_total',
    'Log lines since the start, by outcome.',
    ({ received, accepted, runtime }) => ({ received, accepted, runtime }),
    'account',
  );
  linesBy(
    'caddy_log_sink_lines_rejected_total',
    'Log lines rejected, by reason.',
    ({ rejected }) => rejected,
    'reason',
  );
  linesBy(
    'caddy_log_sink_lines_dropped_total',
    'Valid log lines dropped, by reason.',
    ({ dropped }) => dropped,
    'reason',
  );
  linesBy(
    'caddy_log_sink_peers_refused_total',
    'Connections and datagrams of refused peers, by reason.',
    () => ({
      'not-allowed': accounts.warnings['peers-not-allowed'] ?? 0,
      'too-many-connections': accounts.warnings['peers-too-many-connections'] ?? 0,
    }),
    'reason',
  );
  new Counter({
    name: 'caddy_log_sink_connections_evicted_total',
    help: 'Connections closed before they sent a line, to make room for others.',
    registers,
    collect() {
      this.reset();
      this.inc(accounts.warnings['connections-evicted'] ?? 0);
    },
  });
  new Gauge({
    name: 'caddy_log_sink_accepted_lines',
    help: 'Accepted log lines, by where they are now.',
    registers,
    labelNames: ['place'],
    collect() {
      const { stored, spooled, inMemory, deadLettered } = ledger();
      for (const [place, value] of Object.entries({
        stored,
        spooled,
        in_memory: inMemory,
        dead_lettered: deadLettered,
      }))
        this.set({ place }, value);
    },
  });
  new Counter({
    name: 'caddy_log_sink_time_of_arrival_total',
    help: 'Requests without a readable time, counted at their arrival time.',
    registers,
    collect() {
      this.reset();
      this.inc(accounts.timeOfArrival);
    },
  });
  new Gauge({
    name: 'caddy_log_sink_connections',
    help: 'Open connections.',
    registers,
    collect() {
      this.set(connections.count);
    },
  });
  new Gauge({
    name: 'caddy_log_sink_clock_skew_seconds_max',
    help: 'Largest difference between the clock of a connected Caddy and the clock of this machine.',
    registers,
    collect() {
      this.set(sources.skewMsMax / 1000);
    },
  });
  new Gauge({
    name: 'caddy_log_sink_unread_seconds_max',
    help: 'Longest time that a socket was not read since the start.',
    registers,
    collect() {
      this.set(unreadMsMax() / 1000);
    },
  });
  if (store.spool !== undefined) {
    new Gauge({
      name: 'caddy_log_sink_spool_bytes',
      help: 'Size of the spool files.',
      registers,
      collect() {
        this.set(store.spool!.bytes);
      },
    });
    new Gauge({
      name: 'caddy_log_sink_spool_earlier_lines',
      help: 'Lines that earlier runs left in the spool, by where they are now.',
      registers,
      labelNames: ['place'],
      collect() {
        const { stored, spooled, deadLettered } = store.spool!.earlier;
        for (const [place, value] of Object.entries({ stored, spooled, dead_lettered: deadLettered }))
          this.set({ place }, value);
      },
    });
    new Counter({
      name: 'caddy_log_sink_spool_damages_total',
      help: 'Damaged sections found in the spool and set aside.',
      registers,
      collect() {
        this.reset();
        this.inc(store.spool!.damages);
      },
    });
  }
  new Counter({
    name: 'caddy_log_sink_udp_datagrams_lost_total',
    help: 'Datagrams dropped by the kernel because its receive buffer was full (Linux).',
    registers,
    async collect() {
      const lost = await lostDatagrams();
      this.reset();
      if (lost !== null) this.inc(lost);
    },
  });
  new Counter({
    name: 'caddy_log_sink_requests_over_hosts_max_total',
    help: 'Requests counted under the host _other.',
    registers,
    collect() {
      this.reset();
      this.inc(recorder.counts.hostsOverLimit);
    },
  });
  return registry;
}
