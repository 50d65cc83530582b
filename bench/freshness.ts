/**
 * How long it takes from a line to its count in `/api/summary`, at 5,000 lines a second, the built program over each
 * store.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { startInfluxd, type Influxd } from '../test/influxd-server.js';
import { freePorts } from '../test/ports.js';
import { startProgram, temporaryFolder, type RunningProgram } from '../test/program.js';
import { openConnection, readSample } from '../test/sample.js';
import { figureOf, inTurn, spreadText, type Figures, type Result } from './compare.js';

const linesPerSecond = 5000;
const writeEveryMs = 20;
const seconds = 20;
const p99MsMax = 1000;
/** A page that is open asks more seldom. */
const pollEveryMs = 50;

/** Measures both stores in turn. */
export async function benchFreshness(say: (text: string) => void): Promise<Result[]> {
  const influxd = await startInfluxd();
  try {
    const runs = await inTurn(
      [
        { name: 'DuckDB', run: () => measure(startEmbedded) },
        { name: 'InfluxDB', run: () => measure((ports) => startBoth(influxd, ports)) },
      ],
      {
        rounds: Number(process.env['BENCH_ROUNDS'] ?? 3),
        onRun: (name, figures) => {
          say(`${name}: ${JSON.stringify(figures)}`);
        },
      },
    );
    return ['DuckDB', 'InfluxDB'].map(
      (name): Result => ({
        what: `${name}: from a line to its count in /api/summary, p99 at 5,000 lines/s`,
        measured: `${spreadText(figureOf(runs, name, 'p99Ms'))} ms`,
        against: `p50: ${spreadText(figureOf(runs, name, 'p50Ms'))} ms`,
        wanted: `at most ${p99MsMax} ms`,
        holds: figureOf(runs, name, 'p99Ms').median <= p99MsMax,
      }),
    );
  } finally {
    await influxd.stop();
  }
}

type Ports = readonly [collector: number, http: number, web: number];

async function startEmbedded([port, http, web]: Ports): Promise<RunningProgram[]> {
  const settings = {
    STORE: 'duckdb:requests.duckdb',
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
  };
  return [
    await startProgram(['start'], settings, [`http://127.0.0.1:${http}/health`, `http://127.0.0.1:${web}/health`]),
  ];
}

async function startBoth(influxd: Influxd, [port, http, web]: Ports): Promise<RunningProgram[]> {
  const settings = {
    STORE: 'influxdb',
    INFLUXDB_URL: influxd.url,
    INFLUXDB_ORG: influxd.org,
    INFLUXDB_BUCKET: await influxd.createBucket(),
    INFLUXDB_TOKEN: influxd.token,
    SPOOL_DIR: await temporaryFolder(),
  };
  return await Promise.all([
    startProgram(
      ['collector'],
      { ...settings, COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`, COLLECTOR_HTTP: `127.0.0.1:${http}` },
      [`http://127.0.0.1:${http}/health`],
    ),
    startProgram(['web'], { ...settings, WEB_LISTEN: `127.0.0.1:${web}` }, [`http://127.0.0.1:${web}/health`]),
  ]);
}

async function measure(start: (ports: Ports) => Promise<RunningProgram[]>): Promise<Figures> {
  const ports = (await freePorts(3)) as unknown as Ports;
  const programs = await start(ports);
  try {
    return await watch(ports);
  } finally {
    for (const program of programs) await program.stop();
  }
}

/**
 * Sends lines and asks for their count until all are there; what was sent at one moment is on the page when the count
 * has reached it.
 */
async function watch([port, , web]: Ports): Promise<Figures> {
  const { lines } = readSample();
  const socket = await openConnection(port);
  const sent: { readonly upTo: number; readonly atMs: number }[] = [];
  const sending = (async () => {
    const perWrite = (linesPerSecond * writeEveryMs) / 1000;
    const startMs = performance.now();
    for (let at = 1; at <= (seconds * 1000) / writeEveryMs; at += 1) {
      const time = `"ts":${Date.now() / 1000}`;
      const from = ((at - 1) * perWrite) % lines.length;
      socket.write(
        `${lines
          .slice(from, from + perWrite)
          .map((line) => line.replace(/"ts":[\d.]+/, time))
          .join('\n')}\n`,
      );
      sent.push({ upTo: at * perWrite, atMs: performance.now() });
      await pause(Math.max(0, startMs + at * writeEveryMs - performance.now()));
    }
    socket.end();
  })();
  const delaysMs: number[] = [];
  const endMs = performance.now() + 3000 * seconds;
  while (delaysMs.length < (seconds * 1000) / writeEveryMs) {
    if (performance.now() > endMs)
      throw new Error(
        `After ${3 * seconds} s, ${delaysMs.length} of ${sent.length} writes are counted: all are wanted.`,
      );
    const response = await fetch(`http://127.0.0.1:${web}/api/summary?from=now-15m`);
    const { sources } = (await response.json()) as { sources: Record<string, { requests: number }> };
    const counted = sources['caddy']?.requests ?? 0;
    for (let next = sent[delaysMs.length]; next !== undefined && next.upTo <= counted; next = sent[delaysMs.length])
      delaysMs.push(performance.now() - next.atMs);
    await pause(pollEveryMs);
  }
  await sending;
  delaysMs.sort((a, b) => a - b);
  const atShare = (share: number): number => Math.round(delaysMs[Math.ceil(share * delaysMs.length) - 1]!);
  return { p50Ms: atShare(0.5), p99Ms: atShare(0.99), mostMs: atShare(1) };
}
