/**
 * Lines over TCP into InfluxDB until it has acknowledged all: the collector, with raw points, rollups, top lists and
 * its spool, against telegraf (socket_listener, json_v2, influxdb_v2), which writes the raw points alone.
 */
import { flux, InfluxDB } from '@influxdata/influxdb-client';
import { startInfluxd, type Influxd } from '../test/influxd-server.js';
import { freePorts } from '../test/ports.js';
import { startProgram } from '../test/program.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, ratioOf, ratioResult, spreadText, type Figures, type Result } from './compare.js';
import { makeLinesFile, sendFile, type LinesFile } from './lines-file.js';
import { cpuSecondsOf, residentBytesOf } from '../test/process.js';
import { startTelegraf } from './telegraf.js';

/** Compares lines per CPU-second, lines per second and what is counted. */
export async function benchCollector(say: (text: string) => void): Promise<Result[]> {
  const file = await makeLinesFile(Number(process.env['BENCH_LINES'] ?? 300_000));
  const warmUp = await makeLinesFile(50_000, { minutesAgo: 30 });
  const influxd = await startInfluxd();
  try {
    const ours = { name: 'collector', run: () => runCollector(influxd, file, warmUp) };
    const telegraf = { name: 'telegraf', run: () => runTelegraf(influxd, file, warmUp) };
    const runs = await inTurn([ours, telegraf], {
      rounds: Number(process.env['BENCH_ROUNDS'] ?? 3),
      onRun: (name, figures) => {
        say(`${name}: ${JSON.stringify(figures)}`);
      },
    });
    const result = (what: string, figure: string, atLeast: number): Result =>
      ratioResult(what, {
        measured: spreadText(figureOf(runs, 'collector', figure)),
        against: `telegraf: ${spreadText(figureOf(runs, 'telegraf', figure))}`,
        ratio: ratioOf(runs, figure, 'collector', 'telegraf'),
        atLeast,
      });
    const lost = figureOf(runs, 'collector', 'lost');
    return [
      result('lines per CPU-second, TCP in to InfluxDB acknowledged', 'linesPerCpuSecond', 4),
      result('lines per second on 2 cores shared with InfluxDB', 'linesPerSecond', 1.5),
      {
        what: `requests missing of ${file.lines}`,
        measured: spreadText(lost),
        against: `telegraf: ${spreadText(figureOf(runs, 'telegraf', 'lost'))}`,
        wanted: 'none',
        holds: lost.max === 0 && lost.min === 0,
      },
      {
        what: 'memory at full speed',
        measured: `${spreadText(figureOf(runs, 'collector', 'residentMb'))} MB`,
        against: `telegraf: ${spreadText(figureOf(runs, 'telegraf', 'residentMb'))} MB`,
        wanted: 'under 150 MB',
        holds: figureOf(runs, 'collector', 'residentMb').max < 150,
      },
    ];
  } finally {
    await influxd.stop();
  }
}

async function runCollector(influxd: Influxd, file: LinesFile, warmUp: LinesFile): Promise<Figures> {
  const [port, http] = (await freePorts(2)) as [number, number];
  const bucket = await influxd.createBucket();
  const program = await startProgram(
    ['collector'],
    {
      STORE: 'influxdb',
      INFLUXDB_URL: influxd.url,
      INFLUXDB_ORG: influxd.org,
      INFLUXDB_BUCKET: bucket,
      INFLUXDB_TOKEN: influxd.token,
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
    },
    [`http://127.0.0.1:${http}/health`],
  );
  try {
    return await measure(influxd, bucket, file, warmUp, { pid: program.pid, port });
  } finally {
    await program.stop();
    await influxd.deleteBucket(bucket);
  }
}

async function runTelegraf(influxd: Influxd, file: LinesFile, warmUp: LinesFile): Promise<Figures> {
  const [port] = (await freePorts(1)) as [number];
  const bucket = await influxd.createBucket();
  const telegraf = await startTelegraf(influxd, bucket, port);
  try {
    return await measure(influxd, bucket, file, warmUp, { pid: telegraf.pid, port });
  } finally {
    await telegraf.stop();
    await influxd.deleteBucket(bucket);
  }
}

/**
 * Sends one file to warm up, and measures what the other takes until all of it, or all but what is lost, is in the
 * bucket.
 */
async function measure(
  influxd: Influxd,
  bucket: string,
  file: LinesFile,
  warmUp: LinesFile,
  { pid, port }: { pid: number; port: number },
): Promise<Figures> {
  await sendFile(warmUp, port);
  const { count: before } = await arrived(influxd, bucket, warmUp.lines);
  const cpuBefore = cpuSecondsOf(pid);
  const startMs = performance.now();
  await sendFile(file, port);
  const { count, lastMs } = await arrived(influxd, bucket, before + file.lines);
  const cpuSeconds = cpuSecondsOf(pid) - cpuBefore;
  return {
    linesPerCpuSecond: Math.round(file.lines / cpuSeconds),
    linesPerSecond: Math.round(file.lines / ((lastMs - startMs) / 1000)),
    lost: warmUp.lines + file.lines - count,
    residentMb: Math.round(residentBytesOf(pid).most / 1e6),
  };
}

/** Waits until the bucket has this number of requests, or no more arrive: lost ones never do. */
export async function arrived(
  influxd: Influxd,
  bucket: string,
  wanted: number,
): Promise<{ count: number; lastMs: number }> {
  let count = 0;
  let lastMs = performance.now();
  await until(
    'all lines are in InfluxDB',
    async () => {
      const now = await countRequests(influxd, bucket);
      if (now !== count) lastMs = performance.now();
      count = now;
      return count >= wanted || (count > 0 && performance.now() - lastMs > 3000);
    },
    { waitMsMax: 120_000, pollMs: 100 },
  );
  return { count, lastMs };
}

async function countRequests({ url, org, token }: Influxd, bucket: string): Promise<number> {
  const query = flux`from(bucket: ${bucket})
  |> range(start: -1h)
  |> filter(fn: (r) => r._measurement == "request_metrics" and r._field == "uri")
  |> count()
  |> group()
  |> sum()`;
  const rows = await new InfluxDB({ url, token, timeout: 60_000 })
    .getQueryApi(org)
    .collectRows<{ _value: number }>(query);
  return rows[0]?._value ?? 0;
}
