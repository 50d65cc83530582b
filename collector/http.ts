import { createServer } from 'node:http';
import Router from '@koa/router';
import Koa from 'koa';
import { Counter, Gauge, Registry } from 'prom-client';
import { messageOf, UsageError } from '../shared/errors.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/recorder.js';
import { formatAddress, type Address } from '../shared/settings.js';
import { ledgerJson } from '../shared/store/ledger-json.js';
import type { Ledger, Store } from '../shared/store/store.js';

/** What the collector's own pages tell about. */
export interface StatusParts {
  readonly id: string;
  readonly ledger: () => Ledger;
  readonly recorder: Recorder;
  readonly store: Store;
  readonly log: Log;
  readonly connections: { readonly count: number };
  /** Peers that were turned away, by reason. */
  readonly refused: ReadonlyMap<string, number>;
  /** Datagrams that the kernel dropped since the start; `null` where it does not say. */
  readonly lostDatagrams: () => Promise<number | null>;
}

/** Serves `/health`, `/ready`, `/metrics` and `/ledger`. Throws a `UsageError` when it cannot listen. */
export async function startStatusServer(address: Address, parts: StatusParts): Promise<{ url: string; stop(): Promise<void> }> {
  const metrics = createMetrics(parts);
  const router = new Router()
    .get('/health', (ctx) => { ctx.body = { status: 'ok' }; })
    .get('/ready', async (ctx) => {
      const problem = parts.recorder.problem ?? await parts.store.ping().then(() => undefined, messageOf);
      ctx.status = problem === undefined ? 200 : 503;
      ctx.body = problem === undefined ? { status: 'ok' } : { status: 'store-unavailable', message: problem };
    })
    .get('/metrics', async (ctx) => {
      ctx.type = metrics.contentType;
      ctx.body = await metrics.metrics();
    })
    .get('/ledger', async (ctx) => {
      const datagramsLost = await parts.lostDatagrams();
      ctx.body = { collectors: { [parts.id]: ledgerJson(parts.ledger()) }, udp: { datagrams_lost: datagramsLost } };
    });
  const app = new Koa().use(router.routes()).use(router.allowedMethods());
  app.on('error', (error) => { parts.log.error(`A request for the collector's status failed: ${messageOf(error)}`); });

  const handle = app.callback();
  const server = createServer((request, response) => { void handle(request, response); });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port: address.port, ...(address.host === '' ? {} : { host: address.host }) }, resolve);
  }).catch((error: unknown) => {
    throw new UsageError(`Cannot listen on ${formatAddress(address)}: ${messageOf(error)}. Set COLLECTOR_HTTP to a free port, or to off.`, { cause: error });
  });
  const bound = server.address();
  const port = bound !== null && typeof bound === 'object' ? bound.port : address.port;
  return {
    url: `http://${formatAddress({ host: address.host || 'localhost', port })}`,
    async stop() {
      const closed = new Promise<void>((resolve) => { server.close(() => { resolve(); }); });
      server.closeIdleConnections();
      await closed;
    },
  };
}

/** The ledger and the sockets as Prometheus metrics, read when they are asked for. */
function createMetrics({ ledger, connections, refused, recorder, lostDatagrams }: StatusParts): Registry {
  const registry = new Registry();
  const registers = [registry];
  // Counters that are kept elsewhere: set anew at each reading.
  const linesBy = (name: string, help: string, read: (current: Ledger) => Readonly<Record<string, number>>, labelName: string): void => {
    new Counter({
      name, help, registers, labelNames: [labelName],
      collect() {
        this.reset();
        for (const [label, value] of Object.entries(read(ledger()))) this.inc({ [labelName]: label }, value);
      },
    });
  };
  linesBy('caddy_log_sink_lines_total', 'Log lines since the start, by what became of them.', ({ received, accepted, runtime }) => ({ received, accepted, runtime }), 'account');
  linesBy('caddy_log_sink_lines_rejected_total', 'Log lines that were not understood, by reason.', ({ rejected }) => rejected, 'reason');
  linesBy('caddy_log_sink_lines_dropped_total', 'Log lines that were understood and not kept, by reason.', ({ dropped }) => dropped, 'reason');
  linesBy('caddy_log_sink_peers_refused_total', 'Peers that were turned away, by reason.', () => Object.fromEntries(refused), 'reason');
  new Gauge({
    name: 'caddy_log_sink_accepted_lines', help: 'Where the accepted log lines are.', registers, labelNames: ['place'],
    collect() {
      const { stored, spooled, inMemory, deadLettered } = ledger();
      for (const [place, value] of Object.entries({ stored, spooled, in_memory: inMemory, dead_lettered: deadLettered })) this.set({ place }, value);
    },
  });
  new Gauge({
    name: 'caddy_log_sink_connections', help: 'Connections that are open.', registers,
    collect() { this.set(connections.count); },
  });
  new Counter({
    name: 'caddy_log_sink_udp_datagrams_lost_total', help: 'Datagrams that the kernel dropped because its buffer was full (Linux).', registers,
    async collect() {
      const lost = await lostDatagrams();
      this.reset();
      if (lost !== null) this.inc(lost);
    },
  });
  new Counter({
    name: 'caddy_log_sink_requests_over_hosts_max_total', help: 'Requests counted under the host _other.', registers,
    collect() {
      this.reset();
      this.inc(recorder.counts.hostsOverLimit);
    },
  });
  return registry;
}
