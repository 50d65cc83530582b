import { Counter, Gauge, Registry } from 'prom-client';
import type { Recorder } from '../shared/record/recorder.js';
import type { Ledger, Store } from '../shared/store/store.js';
import type { LineAccounts } from './ledger.js';
import type { LineSources } from './line-sources.js';

/** Where the values of the metrics are. */
export interface MetricsParts {
  readonly ledger: () => Ledger;
  readonly accounts: Pick<LineAccounts, 'timeOfArrival' | 'warnings'>;
  readonly connections: { readonly count: number };
  readonly sources: Pick<LineSources, 'skewMsMax'>;
  readonly recorder: Pick<Recorder, 'counts'>;
  /** Number of datagrams that the kernel has dropped since the start; `null` if unknown. */
  readonly lostDatagrams: () => Promise<number | null>;
  readonly store: Pick<Store, 'spool'>;
  /** Upper bound for the time that a socket was not read since the start, in milliseconds. */
  readonly unreadMsMax: () => number;
}

/** Creates the Prometheus metrics of the ledger and the sockets. Values are read at each scrape. */
export function createMetrics(parts: MetricsParts): Registry {
  const registry = new Registry();
  addLineMetrics(registry, parts);
  addSocketMetrics(registry, parts);
  addSpoolMetrics(registry, parts);
  addCounter(registry, {
    name: 'caddy_log_sink_udp_datagrams_lost_total',
    help: 'Datagrams dropped by the kernel because its receive buffer was full (Linux).',
    read: async () => (await parts.lostDatagrams()) ?? 0,
  });
  addCounter(registry, {
    name: 'caddy_log_sink_requests_over_hosts_max_total',
    help: 'Requests counted under the host _other.',
    read: () => parts.recorder.counts.hostsOverLimit,
  });
  return registry;
}

function addLineMetrics(registry: Registry, { ledger, accounts }: MetricsParts): void {
  addCounters(registry, {
    name: 'caddy_log_sink_lines_total',
    help: 'Log lines since the start, by outcome.',
    label: 'account',
    read: () => {
      const { received, accepted, runtime } = ledger();
      return { received, accepted, runtime };
    },
  });
  addCounters(registry, {
    name: 'caddy_log_sink_lines_rejected_total',
    help: 'Log lines rejected, by reason.',
    label: 'reason',
    read: () => ledger().rejected,
  });
  addCounters(registry, {
    name: 'caddy_log_sink_lines_dropped_total',
    help: 'Valid log lines dropped, by reason.',
    label: 'reason',
    read: () => ledger().dropped,
  });
  addCounters(registry, {
    name: 'caddy_log_sink_peers_refused_total',
    help: 'Connections and datagrams of refused peers, by reason.',
    label: 'reason',
    read: () => ({
      'not-allowed': accounts.warnings['peers-not-allowed'] ?? 0,
      'too-many-connections': accounts.warnings['peers-too-many-connections'] ?? 0,
    }),
  });
  addCounter(registry, {
    name: 'caddy_log_sink_connections_evicted_total',
    help: 'Connections closed before they sent a line, to make room for others.',
    read: () => accounts.warnings['connections-evicted'] ?? 0,
  });
  addGauges(registry, {
    name: 'caddy_log_sink_accepted_lines',
    help: 'Accepted log lines, by where they are now.',
    label: 'place',
    read: () => {
      const { stored, spooled, inMemory, deadLettered } = ledger();
      return { stored, spooled, in_memory: inMemory, dead_lettered: deadLettered };
    },
  });
  addCounter(registry, {
    name: 'caddy_log_sink_time_of_arrival_total',
    help: 'Requests without a readable time, counted at their arrival time.',
    read: () => accounts.timeOfArrival,
  });
}

function addSocketMetrics(registry: Registry, { connections, sources, unreadMsMax }: MetricsParts): void {
  addGauge(registry, {
    name: 'caddy_log_sink_connections',
    help: 'Open connections.',
    read: () => connections.count,
  });
  addGauge(registry, {
    name: 'caddy_log_sink_clock_skew_seconds_max',
    help: 'Largest difference between the clock of a connected Caddy and the clock of this machine.',
    read: () => sources.skewMsMax / 1000,
  });
  addGauge(registry, {
    name: 'caddy_log_sink_unread_seconds_max',
    help: 'Longest time that a socket was not read since the start.',
    read: () => unreadMsMax() / 1000,
  });
}

function addSpoolMetrics(registry: Registry, { store }: MetricsParts): void {
  if (store.spool === undefined) return;
  addGauge(registry, {
    name: 'caddy_log_sink_spool_bytes',
    help: 'Size of the spool files.',
    read: () => store.spool!.bytes,
  });
  addGauges(registry, {
    name: 'caddy_log_sink_spool_earlier_lines',
    help: 'Lines that earlier runs left in the spool, by where they are now.',
    label: 'place',
    read: () => {
      const { stored, spooled, deadLettered } = store.spool!.earlier;
      return { stored, spooled, dead_lettered: deadLettered };
    },
  });
  addCounter(registry, {
    name: 'caddy_log_sink_spool_damages_total',
    help: 'Damaged sections found in the spool and set aside.',
    read: () => store.spool!.damages,
  });
}

/** A metric whose value `read` returns at each scrape. */
interface Metric<Value> {
  readonly name: string;
  readonly help: string;
  readonly read: () => Value;
}

/** A metric with a value for each value of a label. */
interface LabelledMetric extends Metric<Readonly<Record<string, number>>> {
  readonly label: string;
}

function addCounter(registry: Registry, { name, help, read }: Metric<number | Promise<number>>): void {
  new Counter({
    name,
    help,
    registers: [registry],
    async collect() {
      const value = await read();
      this.reset(); // the count is held elsewhere
      this.inc(value);
    },
  });
}

function addCounters(registry: Registry, { name, help, label, read }: LabelledMetric): void {
  new Counter({
    name,
    help,
    registers: [registry],
    labelNames: [label],
    collect() {
      this.reset(); // the counts are held elsewhere
      for (const [key, value] of Object.entries(read())) this.inc({ [label]: key }, value);
    },
  });
}

function addGauge(registry: Registry, { name, help, read }: Metric<number>): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    collect() {
      this.set(read());
    },
  });
}

function addGauges(registry: Registry, { name, help, label, read }: LabelledMetric): void {
  new Gauge({
    name,
    help,
    registers: [registry],
    labelNames: [label],
    collect() {
      for (const [key, value] of Object.entries(read())) this.set({ [label]: key }, value);
    },
  });
}
