/**
 * What the fault tests share: the collector as a process of its own over the real InfluxDB, a sender of lines with numbers of their
 * own at a fixed rate, and a look at every number in the store.
 */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { flux, InfluxDB } from '@influxdata/influxdb-client';
import { levels } from '../shared/rollup.js';
import { openStore } from '../shared/store/open.js';
import type { LedgerJson } from '../shared/store/ledger-json.js';
import { quietLog, spoolOfTest, type Influxd } from './influxd.js';
import { freePorts } from './ports.js';
import { startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { until } from './until.js';

/** One collector whose store can be made to fail. */
export interface FaultRig {
  readonly port: number;
  readonly bucket: string;
  readonly cwd: string;
  /** The collector that runs now. */
  program: RunningProgram;
  /** Starts a collector, after the one before has ended. */
  restart(): Promise<void>;
  /** The ledger as `/ledger` has it; every look checks both of its equations. Throws when one does not hold. */
  ledger(): Promise<RigLedger>;
  /** Resolves when nothing of this or an earlier start waits any more. */
  settled(waitMsMax?: number): Promise<RigLedger>;
  stop(): Promise<void>;
}

/** A ledger with what `/ledger` adds to it. */
export type RigLedger = LedgerJson & { readonly earlier: { readonly stored: number; readonly spooled: number; readonly dead_lettered: number } };

/** Starts a collector over a bucket of its own. `url` is where it finds InfluxDB, a proxy perhaps. */
export async function startRig(influxd: Influxd, { url = influxd.url, settings = {}, args = [] }: { url?: string; settings?: Readonly<Record<string, string>>; args?: readonly string[] } = {}): Promise<FaultRig> {
  const [port, http] = await freePorts(2) as [number, number];
  const bucket = await influxd.createBucket();
  const cwd = await temporaryFolder();
  const all = {
    STORE: 'influxdb', INFLUXDB_URL: url, INFLUXDB_ORG: influxd.org, INFLUXDB_BUCKET: bucket, INFLUXDB_TOKEN: influxd.token,
    COLLECTOR_ID: 'tested', COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`, COLLECTOR_HTTP: `127.0.0.1:${http}`, ...settings,
  };
  const start = (): Promise<RunningProgram> => startProgram(['collector', ...args], all, [`http://127.0.0.1:${http}/health`], { cwd });
  const rig: FaultRig = {
    port, bucket, cwd,
    program: await start(),
    async restart() {
      await rig.program.ended;
      rig.program = await start();
    },
    async ledger() {
      const answer = await (await fetch(`http://127.0.0.1:${http}/ledger`)).json() as { collectors: Record<string, RigLedger> };
      const ledger = answer.collectors['tested']!;
      const { received, accepted, runtime, rejected, dropped, stored, spooled, in_memory: inMemory, dead_lettered: deadLettered } = ledger;
      const sum = (counts: Readonly<Record<string, number>>): number => Object.values(counts).reduce((total, count) => total + count, 0);
      const holds = received === accepted + runtime + sum(rejected) + sum(dropped) && accepted === stored + spooled + inMemory + deadLettered;
      if (!holds || [stored, spooled, inMemory, deadLettered].some((count) => count < 0)) throw new Error(`The ledger does not add up: ${JSON.stringify(ledger)}`);
      return ledger;
    },
    settled: (waitMsMax = 120_000) => until('everything is settled', async () => {
      const ledger = await rig.ledger();
      return ledger.spooled === 0 && ledger.in_memory === 0 && ledger.earlier.spooled === 0 && ledger;
    }, { waitMsMax }),
    stop: async () => { await rig.program.stop(); },
  };
  return rig;
}

/** Sends lines with the numbers 0, 1, 2, … */
export interface Sender {
  /** Numbers that were given to the kernel, with when, by `performance.now`. */
  readonly sentMs: readonly number[];
  /** How many connections there were so far. */
  readonly connections: () => number;
  /** Sends no more; resolves when all connections are closed. */
  stop(): Promise<void>;
}

/**
 * Sends `perSecond` lines a second over several connections, as Caddy does: each line in one write, the next connection at once when
 * one has ended, and nothing more on one whose other side has said that it ends.
 */
export function startSender(port: number, { perSecond, connections = 4, linesMax = Infinity, line = lineOf }: { perSecond: number; connections?: number; linesMax?: number; line?: (id: number) => string }): Sender {
  const sentMs: number[] = [];
  let stopping = false;
  let connected = 0;
  const open = new Set<Socket>();
  const running = Promise.all(Array.from({ length: connections }, async () => {
    while (!stopping) {
      const socket = connect({ host: '127.0.0.1', port });
      const isOpen = await once(socket, 'connect').then(() => true, () => false);
      if (!isOpen) {
        await sleep(10);
        continue;
      }
      connected += 1;
      open.add(socket);
      socket.on('error', () => undefined).resume();
      const closed = new Promise((resolve) => socket.once('close', resolve));
      const startMs = performance.now();
      for (let sent = 0; isWritable(socket) && !stopping;) {
        const due = Math.floor((performance.now() - startMs) * perSecond / connections / 1000);
        for (; sent < due && sentMs.length < linesMax; sent += 1) {
          socket.write(line(sentMs.length));
          sentMs.push(performance.now());
        }
        if (sentMs.length >= linesMax) stopping = true;
        await sleep(2);
      }
      socket.end();
      await closed;
      open.delete(socket);
    }
  }));
  return {
    sentMs,
    connections: () => connected,
    async stop() {
      stopping = true;
      await running;
    },
  };
}

/** Whether the other side still reads. */
function isWritable(socket: Socket): boolean {
  return !socket.destroyed && !socket.readableEnded;
}

/** A line of Caddy's access log whose path is the number; the requests are of a few hosts and statuses, and many have the same millisecond. */
export function lineOf(id: number): string {
  return lineAt(Date.now(), id);
}

function lineAt(timeMs: number, id: number): string {
  return `{"level":"info","ts":${(timeMs / 1000).toFixed(6)},"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"192.0.2.7","remote_port":"1","client_ip":"192.0.2.7","proto":"HTTP/2.0","method":"GET","host":"${id % 5}.example","uri":"/id/${id}","headers":{"User-Agent":["fault test"]}},"bytes_read":0,"user_id":"","duration":0.00${1 + id % 9},"size":${id % 1000},"status":${id % 50 === 0 ? 500 : 200},"resp_headers":{}}\n`;
}

/**
 * Lines whose times are a microsecond apart at least, as Caddy's clock tells them: however many a busy machine sends in one go. A worker that
 * follows a dead one does not know which times that one gave (decision 10).
 */
export function createLinesApart(): (id: number) => string {
  let lastMs = 0;
  return (id) => {
    lastMs = Math.max(Date.now(), lastMs + 0.001);
    return lineAt(lastMs, id);
  };
}

/** What is in the store. */
export interface Found {
  /** How often each number is there. */
  readonly times: ReadonlyMap<number, number>;
  readonly doubled: readonly number[];
}

/** Reads every number in the bucket, past the product's own queries. */
export async function findAll({ url, org, token }: Influxd, bucket: string): Promise<Found> {
  const times = new Map<number, number>();
  const query = flux`from(bucket: ${bucket}) |> range(start: -1d, stop: 1d) |> filter(fn: (r) => r._measurement == "request_metrics" and r._field == "uri") |> keep(columns: ["_value"])`;
  for await (const { values, tableMeta } of new InfluxDB({ url, token, timeout: 60_000 }).getQueryApi(org).iterateRows(query)) {
    const id = Number(/^\/id\/(\d+)/.exec(tableMeta.get(values, '_value') as string)?.[1]);
    times.set(id, (times.get(id) ?? 0) + 1);
  }
  return { times, doubled: [...times].flatMap(([id, count]) => count > 1 ? [id] : []) };
}

/** Asserts that no number is doubled, and that every level of the rollups counts exactly the requests that are there. Returns the numbers that are missing. */
export async function assertExact(t: ExecutionContext, influxd: Influxd, rig: Pick<FaultRig, 'bucket'>, sent: number): Promise<number[]> {
  const { times, doubled } = await findAll(influxd, rig.bucket);
  t.deepEqual(doubled, [], 'doubled');
  const store = await openStore({ kind: 'influxdb', url: influxd.url, org: influxd.org, bucket: rig.bucket, token: influxd.token, ...spoolOfTest() }, { log: quietLog });
  for (const level of levels) {
    const rows = await store.readRollups({ fromMs: Date.now() - 86_400_000, toMs: Date.now() + 86_400_000, level, filter: {} });
    t.is(rows.reduce((sum, { count }) => sum + count, 0), times.size, `requests in the rollups of ${level} s`);
    t.is(rows.reduce((sum, { histogram }) => sum + histogram.total, 0), times.size, `requests in the histograms of ${level} s`);
  }
  await store.close();
  return Array.from({ length: sent }, (_, id) => id).filter((id) => !times.has(id));
}

