/**
 * Shared by the fault tests: the program in its own process over the real InfluxDB or DuckDB, a sender of numbered
 * lines at a fixed rate, and a check of every number in the store.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { DuckDBInstance } from '@duckdb/node-api';
import { flux, InfluxDB } from '@influxdata/influxdb-client';
import { levels, levelsOf, scopes, type Level, type RollupRow, type Scope } from '../shared/rollup/rollup.js';
import { openStore } from '../shared/store/open.js';
import type { LedgerJson } from '../shared/store/ledger-json.js';
import type { Store, TimeRange } from '../shared/store/store.js';
import { quietLog, spoolOfTest, type Influxd } from './influxd-server.js';
import { freePorts } from './ports.js';
import { startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { until } from './until.js';
import { aggregateOf } from './rollup-rows.js';

/** A running program whose store can be made to fail. */
interface Rig {
  readonly port: number;
  readonly cwd: string;
  /** The current process. */
  program: RunningProgram;
  /** Waits until the program has ended and starts it again. */
  restart(): Promise<void>;
  /** Reads `/ledger` and checks its two equations. Throws if one does not hold or the program has died. */
  ledger(): Promise<RigLedger>;
  /** Resolves when no request of this or an earlier start is still waiting. */
  settled(waitMsMax?: number): Promise<RigLedger>;
  stop(): Promise<void>;
}

/** A collector over InfluxDB. */
export interface FaultRig extends Rig {
  readonly bucket: string;
}

/** The collector and the web app in one process over DuckDB. */
export interface EmbeddedRig extends Rig {
  /** The web app, without a trailing slash. */
  readonly url: string;
  /** The collector's status server. */
  readonly statusUrl: string;
  /** The DuckDB file. */
  readonly path: string;
}

/** A ledger with the fields that `/ledger` adds over InfluxDB. */
export type RigLedger = LedgerJson & {
  readonly earlier?: { readonly stored: number; readonly spooled: number; readonly dead_lettered: number };
};

/** Starts a collector over its own bucket. `url` is the InfluxDB that it uses, perhaps a proxy. */
export async function startRig(
  influxd: Influxd,
  {
    url = influxd.url,
    settings = {},
    args = [],
  }: { url?: string; settings?: Readonly<Record<string, string>>; args?: readonly string[] } = {},
): Promise<FaultRig> {
  const [port, http] = (await freePorts(2)) as [number, number];
  const bucket = await influxd.createBucket();
  const cwd = await temporaryFolder();
  const all = {
    STORE: 'influxdb',
    INFLUXDB_URL: url,
    INFLUXDB_ORG: influxd.org,
    INFLUXDB_BUCKET: bucket,
    INFLUXDB_TOKEN: influxd.token,
    COLLECTOR_ID: 'tested',
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    ...settings,
  };
  const rig = await createRig({ port, http, cwd }, () =>
    startProgram(['collector', ...args], all, [`http://127.0.0.1:${http}/health`], { cwd }),
  );
  return Object.assign(rig, { bucket });
}

/**
 * Runs the command `start` over a DuckDB file in `folder`. Default: an empty folder that is removed when the rig is
 * stopped. All settings of the store have their defaults unless given.
 */
export async function startEmbeddedRig({
  settings = {},
  folder,
}: {
  settings?: Readonly<Record<string, string>>;
  folder?: string;
} = {}): Promise<EmbeddedRig> {
  const [port, http, web] = (await freePorts(3)) as [number, number, number];
  const cwd = await temporaryFolder();
  const path = join(folder ?? cwd, 'data', 'requests.duckdb');
  const url = `http://127.0.0.1:${web}`;
  const statusUrl = `http://127.0.0.1:${http}`;
  const all = {
    STORE: `duckdb:${path}`,
    COLLECTOR_ID: 'tested',
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
    ...settings,
  };
  const rig = await createRig({ port, http, cwd }, () =>
    startProgram(['start'], all, [`${statusUrl}/health`, `${url}/health`], { cwd }),
  );
  return Object.assign(rig, {
    url,
    statusUrl,
    path,
    async stop() {
      await rig.program.stop();
      await rm(cwd, { recursive: true, force: true });
    },
  });
}

function isConnectionLost(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
  return code === 'ECONNRESET' || code === 'UND_ERR_SOCKET';
}

async function createRig(
  { port, http, cwd }: { port: number; http: number; cwd: string },
  start: () => Promise<RunningProgram>,
): Promise<Rig> {
  const rig: Rig = {
    port,
    cwd,
    program: await start(),
    async restart() {
      await rig.program.ended;
      rig.program = await start();
    },
    async ledger() {
      const { program } = rig;
      const url = `http://127.0.0.1:${http}/ledger`;
      const response = await fetch(url)
        .catch(async (error: unknown) => {
          // A server that was busy for seconds can close an idle connection just as the next request arrives.
          if (isConnectionLost(error)) return await fetch(url);
          throw error;
        })
        .catch(async (error: unknown) => {
          // The connection closes a moment before the exit status arrives.
          const ended = await Promise.race([program.ended, sleep(1000)]);
          if (ended === undefined)
            throw new Error(`Cannot read ${url}: ${String((error as Error).cause)}`, { cause: error });
          throw new Error(`The program ended (${ended}), and wrote:\n${program.stderr().slice(-2000)}`, {
            cause: error,
          });
        });
      const answer = (await response.json()) as { collectors: Record<string, RigLedger> };
      const ledger = answer.collectors['tested']!;
      const {
        received,
        accepted,
        runtime,
        rejected,
        dropped,
        stored,
        spooled,
        in_memory: inMemory,
        dead_lettered: deadLettered,
      } = ledger;
      const holds =
        received === accepted + runtime + sumOf(rejected) + sumOf(dropped) &&
        accepted === stored + spooled + inMemory + deadLettered;
      if (!holds || [stored, spooled, inMemory, deadLettered].some((count) => count < 0))
        throw new Error(`The ledger does not add up: ${JSON.stringify(ledger)}`);
      return ledger;
    },
    settled: (waitMsMax = 120_000) =>
      until(
        'everything is settled',
        async () => {
          const ledger = await rig.ledger();
          return ledger.spooled === 0 && ledger.in_memory === 0 && (ledger.earlier?.spooled ?? 0) === 0 && ledger;
        },
        { waitMsMax },
      ),
    stop: async () => {
      await rig.program.stop();
    },
  };
  return rig;
}

/** The sum of a ledger's counts by reason. */
export function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

/** Reads the ledger repeatedly for some time under traffic. */
export async function watch(
  rig: Rig,
  durationMs: number,
  { pollMs = 20, onLedger = () => undefined }: { pollMs?: number; onLedger?: (ledger: RigLedger) => void } = {},
): Promise<void> {
  const endMs = performance.now() + durationMs;
  while (performance.now() < endMs) {
    onLedger(await rig.ledger());
    await sleep(pollMs);
  }
}

/** Sends lines with the numbers 0, 1, 2, … */
export interface Sender {
  /** By number, when each line was passed to the kernel, by `performance.now`. */
  readonly sentMs: readonly number[];
  /** Number of connections so far. */
  readonly connections: () => number;
  /** Stops sending. Resolves when all connections are closed. */
  stop(): Promise<void>;
}

/**
 * Sends `perSecond` lines per second over several connections, as Caddy does: each line in one write, a new connection
 * as soon as one has ended, and nothing more after the other side has sent a FIN.
 */
export function startSender(
  port: number,
  {
    perSecond,
    connections = 4,
    linesMax = Infinity,
    line = lineOf,
  }: { perSecond: number; connections?: number; linesMax?: number; line?: (id: number) => string },
): Sender {
  const sentMs: number[] = [];
  let stopping = false;
  let connected = 0;
  const open = new Set<Socket>();
  const running = Promise.all(
    Array.from({ length: connections }, async () => {
      while (!stopping) {
        const socket = connect({ host: '127.0.0.1', port });
        const isOpen = await once(socket, 'connect').then(
          () => true,
          () => false,
        );
        if (!isOpen) {
          await sleep(10);
          continue;
        }
        connected += 1;
        open.add(socket);
        socket.on('error', () => undefined).resume();
        const closed = new Promise((resolve) => socket.once('close', resolve));
        const startMs = performance.now();
        for (let sent = 0; isWritable(socket) && !stopping; ) {
          const due = Math.floor(((performance.now() - startMs) * perSecond) / connections / 1000);
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
    }),
  );
  return {
    sentMs,
    connections: () => connected,
    async stop() {
      stopping = true;
      await running;
    },
  };
}

/** Whether the other side has not closed the connection. */
function isWritable(socket: Socket): boolean {
  return !socket.destroyed && !socket.readableEnded;
}

/**
 * A line of Caddy's access log with the number in its path. The requests have a few hosts and statuses, and many have
 * the same millisecond.
 */
export function lineOf(id: number): string {
  return lineAt(Date.now(), id);
}

interface LineParts {
  readonly host: string;
  readonly method: string;
  readonly status: number;
  readonly client: string;
  readonly query: string;
}

function lineAt(
  timeMs: number,
  id: number,
  {
    host = `${id % 5}.example`,
    method = 'GET',
    status = id % 50 === 0 ? 500 : 200,
    client = '192.0.2.7',
    query = '',
  }: Partial<LineParts> = {},
): string {
  return `{"level":"info","ts":${(timeMs / 1000).toFixed(6)},"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"${client}","remote_port":"1","client_ip":"${client}","proto":"HTTP/2.0","method":"${method}","host":"${host}","uri":"/id/${id}${query}","headers":{"User-Agent":["fault test"]}},"bytes_read":0,"user_id":"","duration":0.00${1 + (id % 9)},"size":${id % 1000},"status":${status},"resp_headers":{}}\n`;
}

/** How lines vary, besides their numbers. */
export interface LineShape {
  /** At most `HOSTS_MAX`. */
  readonly hosts: number;
  /** At most 18: the 17 known methods and an unknown one. */
  readonly methods: number;
  /** At most 12. */
  readonly statuses: number;
  /** Length of the query, which compresses badly. Default: no query. */
  readonly queryBytes?: number;
}

const methods = [
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'CONNECT',
  'OPTIONS',
  'TRACE',
  'PATCH',
  'PROPFIND',
  'PROPPATCH',
  'MKCOL',
  'COPY',
  'MOVE',
  'LOCK',
  'UNLOCK',
  'REPORT',
  'BREW',
];
/** All have a latency. */
const statuses = [200, 201, 204, 206, 301, 302, 304, 400, 403, 404, 500, 503];
const noise = randomBytes(2 ** 20).toString('base64url');

/**
 * Makes numbered lines that cycle through every combination of host, method and status, from 65,536 clients, each in
 * its own /24.
 */
export function createLines({
  hosts,
  methods: methodsMax,
  statuses: statusesMax,
  queryBytes = 0,
}: LineShape): (id: number) => string {
  return (id) => {
    const noiseAt = (id * 7919) % (noise.length - queryBytes);
    return lineAt(Date.now(), id, {
      host: `${id % hosts}.example`,
      method: methods[Math.floor(id / hosts) % methodsMax]!,
      status: statuses[Math.floor(id / hosts / methodsMax) % statusesMax]!,
      client: `10.${(id >> 8) & 255}.${id & 255}.7`,
      query: queryBytes === 0 ? '' : `?${noise.slice(noiseAt, noiseAt + queryBytes)}`,
    });
  };
}

/**
 * Makes lines whose times are at least a microsecond apart, like Caddy's, however many a busy machine sends at once.
 * The successor of a dead worker does not know which times that one assigned (decision 10).
 */
export function createLinesApart(): (id: number) => string {
  let lastMs = 0;
  return (id) => {
    lastMs = Math.max(Date.now(), lastMs + 0.001);
    return lineAt(lastMs, id);
  };
}

/** The numbered lines in the store. */
export interface Found {
  /** How often each number occurs. */
  readonly times: ReadonlyMap<number, number>;
  readonly doubled: readonly number[];
}

/** Reads every number in the bucket, bypassing the product's own queries. */
export async function findAll({ url, org, token }: Influxd, bucket: string): Promise<Found> {
  const times = new Map<number, number>();
  const query = flux`from(bucket: ${bucket}) |> range(start: -1d, stop: 1d) |> filter(fn: (r) => r._measurement == "request_metrics" and r._field == "uri") |> keep(columns: ["_value"])`;
  for await (const { values, tableMeta } of new InfluxDB({ url, token, timeout: 60_000 })
    .getQueryApi(org)
    .iterateRows(query)) {
    const id = Number(/^\/id\/(\d+)/.exec(tableMeta.get(values, '_value') as string)?.[1]);
    times.set(id, (times.get(id) ?? 0) + 1);
  }
  return { times, doubled: [...times].flatMap(([id, count]) => (count > 1 ? [id] : [])) };
}

/**
 * Asserts that no number is duplicated and that every rollup level counts exactly the stored requests. Returns the
 * missing numbers.
 */
export async function assertExact(
  t: ExecutionContext,
  influxd: Influxd,
  rig: Pick<FaultRig, 'bucket'>,
  sent: number,
): Promise<number[]> {
  const { times, doubled } = await findAll(influxd, rig.bucket);
  t.deepEqual(doubled, [], 'doubled');
  const store = await openStore(
    {
      kind: 'influxdb',
      url: influxd.url,
      org: influxd.org,
      bucket: rig.bucket,
      token: influxd.token,
      ...spoolOfTest(),
    },
    { log: quietLog },
  );
  await assertLevels(t, store, times.size, () => [{ fromMs: Date.now() - 86_400_000, toMs: Date.now() + 86_400_000 }]);
  await store.close();
  return missingOf(times, sent);
}

/**
 * Asserts what the product's own reads return for each level. Reads it in ranges: all its windows together may not fit
 * into memory.
 */
async function assertLevels(
  t: ExecutionContext,
  store: Store,
  requests: number,
  rangesOf: (level: Level) => readonly TimeRange[],
): Promise<void> {
  for (const level of levels) {
    let counted = 0;
    let inHistograms = 0;
    for (const range of rangesOf(level)) {
      const { count, histogram } = aggregateOf(
        await store.readRollups({ ...range, level, scope: 'all', filter: { source: 'caddy' } }),
      );
      counted += count;
      inHistograms += histogram.total;
    }
    t.is(counted, requests, `requests in the rollups of ${level} s`);
    t.is(inHistograms, requests, `requests in the histograms of ${level} s`);
  }
}

function missingOf(times: Found['times'], sent: number): number[] {
  return Array.from({ length: sent }, (_, id) => id).filter((id) => !times.has(id));
}

/**
 * Does the same for a DuckDB file that no process has open. Compares the counts of each window and series with those of
 * the single requests in the file.
 */
export async function assertExactFile(t: ExecutionContext, path: string, sent: number): Promise<number[]> {
  const { times, doubled } = await findAllInFile(path);
  t.deepEqual(doubled, [], 'doubled');
  const counted = await countInFile(path);
  const store = await openStore(
    { kind: 'duckdb', path, retention: { requestsMs: 7 * 86_400_000, rollupsMs: 400 * 86_400_000 } },
    { log: quietLog },
  );
  for (const { level, scope, windowMs, digest } of counted) {
    const rows = await store.readRollups({ level, scope, fromMs: windowMs, toMs: windowMs + 1, filter: {} });
    t.is(digestOf(seriesCounts(rows)), digest, `scope ${scope}, ${level} s, ${new Date(windowMs).toISOString()}`);
  }
  await assertLevels(t, store, times.size, (level) =>
    counted.flatMap((window) =>
      window.level === level && window.scope === 'all' ? [{ fromMs: window.windowMs, toMs: window.windowMs + 1 }] : [],
    ),
  );
  await store.close();
  return missingOf(times, sent);
}

/** The windows of the single requests in a file, with the digest of what each series counts. */
async function countInFile(path: string): Promise<{ level: Level; scope: Scope; windowMs: number; digest: string }[]> {
  return await withFile(path, async (rowsOf) => {
    const counted: Awaited<ReturnType<typeof countInFile>> = [];
    for (const scope of scopes) {
      for (const level of levelsOf[scope]) {
        const window = `time_ns // ${level * 1e9}`;
        for (const [number] of (await rowsOf(`SELECT DISTINCT ${window} FROM request_metrics`)) as [bigint][]) {
          const counts = await rowsOf(
            `SELECT source, ${scope === 'host' ? 'host' : 'NULL'}, method, status_code, count(*) FROM request_metrics WHERE ${window} = ${number} GROUP BY ALL`,
          );
          counted.push({
            level,
            scope,
            windowMs: Number(number) * level * 1000,
            digest: digestOf(
              counts.map((row) =>
                JSON.stringify(row.map((value) => (typeof value === 'bigint' ? Number(value) : value))),
              ),
            ),
          });
        }
      }
    }
    return counted;
  });
}

/** A line for each series, with its count. */
function seriesCounts(rows: readonly RollupRow[]): string[] {
  const counts = new Map<string, number>();
  for (const { source, host = null, cells } of rows) {
    for (const { method, status, count } of cells) {
      const series = JSON.stringify([source, host, method, status]).slice(0, -1);
      counts.set(series, (counts.get(series) ?? 0) + count);
    }
  }
  return [...counts].map(([series, count]) => `${series},${count}]`);
}

function digestOf(lines: readonly string[]): string {
  return createHash('sha256').update(lines.toSorted().join('\n')).digest('hex');
}

async function withFile<Result>(
  path: string,
  use: (rowsOf: (sql: string) => Promise<unknown[][]>) => Promise<Result>,
): Promise<Result> {
  const instance = await DuckDBInstance.create(path);
  const connection = await instance.connect();
  try {
    return await use(async (sql) => (await connection.runAndReadAll(sql)).getRows());
  } finally {
    connection.closeSync();
    instance.closeSync();
  }
}

/** Reads every number in a DuckDB file that no process has open. */
async function findAllInFile(path: string): Promise<Found> {
  const found = await withFile(path, (rowsOf) =>
    rowsOf(
      "SELECT regexp_extract(uri, '^/id/([0-9]+)', 1)::BIGINT AS id, count(*) FROM request_metrics WHERE source = 'caddy' GROUP BY id",
    ),
  );
  const times = new Map((found as [bigint, bigint][]).map(([id, count]) => [Number(id), Number(count)]));
  return { times, doubled: [...times].flatMap(([id, count]) => (count > 1 ? [id] : [])) };
}

/** Reads the numbers in a DuckDB file that no process has open. */
export async function idsInFile(path: string): Promise<ReadonlySet<number>> {
  return new Set((await findAllInFile(path)).times.keys());
}
