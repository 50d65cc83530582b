/**
 * Whether the memory of the program stays as it is while millions of lines come in, at full speed, over each store, and
 * of an import.
 */
import { rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Readable } from 'node:stream';
import { startInfluxd } from '../test/influxd-server.js';
import { freePorts } from '../test/ports.js';
import { readLedger, runProgram, startOverDuckdb, startProgram } from '../test/program.js';
import { shiftedSample } from '../test/shifted-sample.js';
import { until } from '../test/until.js';
import type { Result } from './compare.js';
import { makeLinesFile, sendFile } from './lines-file.js';
import { residentBytesOf } from '../test/process.js';

/** Number of lines after which memory is sampled. */
const marks = [1e6, 5e6, 10e6, 20e6];
const linesPerFile = 250_000;
/**
 * The most that it may have grown from the first mark to the last: a collection of garbage sooner or later makes a
 * tenth.
 */
const growthMax = 1.2;

/** What was seen at a mark: the most memory since the mark before, and what became of the lines. */
interface Seen {
  readonly lines: number;
  readonly mostMb: number;
  readonly dropped: number;
}

/**
 * Measures the embedded store, InfluxDB and an import, one after the other, or what `BENCH_OF` names of the three;
 * `BENCH_LINES` lines of each, 5 million unless it is set.
 */
export async function benchMemory(say: (text: string) => void): Promise<Result[]> {
  const lines = Number(process.env['BENCH_LINES'] ?? 5e6);
  const lookAt = [...marks.filter((mark) => mark < lines), lines];
  const results: Result[] = [];
  for (const [name, run, mbMax] of [
    ['DuckDB', runEmbedded, 400],
    ['InfluxDB', runOverInfluxdb, 150],
    ['import', runImport, 400],
  ] as const) {
    if (process.env['BENCH_OF'] !== undefined && process.env['BENCH_OF'] !== name) continue;
    const seen = await run(lookAt, (at) => {
      say(`${name}: ${JSON.stringify(at)}`);
    });
    const first = seen[0]!;
    const last = seen.at(-1)!;
    results.push({
      what: `${name}: resident memory after ${seen.map((at) => at.lines / 1e6).join(', ')} million lines`,
      measured: `${seen.map(({ mostMb }) => mostMb).join(', ')} MB`,
      against: last.dropped === 0 ? 'no line dropped' : `${last.dropped.toLocaleString('en')} lines dropped`,
      wanted: `at most ${growthMax} × the first, and ${mbMax} MB`,
      holds: last.mostMb <= growthMax * first.mostMb && Math.max(...seen.map(({ mostMb }) => mostMb)) <= mbMax,
    });
  }
  return results;
}

type OnSeen = (seen: Seen) => void;

async function runEmbedded(lookAt: readonly number[], onSeen: OnSeen): Promise<Seen[]> {
  const program = await startOverDuckdb();
  try {
    return await sendAndLook(program, lookAt, onSeen);
  } finally {
    await program.stop();
  }
}

async function runOverInfluxdb(lookAt: readonly number[], onSeen: OnSeen): Promise<Seen[]> {
  const influxd = await startInfluxd();
  const [port, http] = (await freePorts(2)) as [number, number];
  try {
    const program = await startProgram(
      ['collector'],
      {
        STORE: 'influxdb',
        INFLUXDB_URL: influxd.url,
        INFLUXDB_ORG: influxd.org,
        INFLUXDB_BUCKET: influxd.bucket,
        INFLUXDB_TOKEN: influxd.token,
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
        COLLECTOR_HTTP: `127.0.0.1:${http}`,
      },
      [`http://127.0.0.1:${http}/health`],
    );
    try {
      return await sendAndLook({ pid: program.pid, port, http }, lookAt, onSeen);
    } finally {
      await program.stop();
    }
  } finally {
    await influxd.stop();
  }
}

async function sendAndLook(
  { pid, port, http }: { pid: number; port: number; http: number },
  lookAt: readonly number[],
  onSeen: OnSeen,
): Promise<Seen[]> {
  const seen: Seen[] = [];
  for (let sent = 0; sent < lookAt.at(-1)!; ) {
    const file = await makeLinesFile(Math.min(linesPerFile, lookAt[seen.length]! - sent), { minutes: 1 });
    await sendFile(file, port);
    await rm(dirname(file.path), { recursive: true });
    sent += file.lines;
    const ledger = await until(
      'all lines are stored or dropped',
      async () => {
        const now = await readLedger(http);
        return now.received >= sent && now.in_memory + now.spooled === 0 && now;
      },
      { waitMsMax: 600_000, pollMs: 200 },
    );
    if (sent === lookAt[seen.length])
      seen.push(
        await look(
          pid,
          { lines: sent, dropped: Object.values(ledger.dropped).reduce((sum, count) => sum + count, 0) },
          onSeen,
        ),
      );
  }
  return seen;
}

async function runImport(lookAt: readonly number[], onSeen: OnSeen): Promise<Seen[]> {
  const lines = lookAt.at(-1)!;
  const seen: Promise<Seen>[] = [];
  const endMs = Date.now() - 60_000;
  let written = 0;
  // The pipe runs only a few parts ahead of the import, so this is the memory after about that number of lines.
  const log = function* (): Generator<Buffer> {
    for (const part of shiftedSample(lines, { startMs: endMs - 6 * 3_600_000, endMs })) {
      yield Buffer.from(part);
      written = Math.min(lines, written + 2000);
      if (written === lookAt[seen.length]) seen.push(look(program.pid, { lines: written, dropped: 0 }, onSeen));
    }
  };
  const program = await runProgram(['import', '-'], {}, { stdin: Readable.from(log(), { highWaterMark: 1 }) });
  const status = await program.ended;
  if (status !== 0)
    throw new Error(`The import ended with status ${status}, and wrote:\n${program.stdout()}${program.stderr()}`);
  return await Promise.all(seen);
}

/** Looks at the most that a process has held of the memory since it was looked at last. */
async function look(pid: number, { lines, dropped }: Omit<Seen, 'mostMb'>, onSeen: OnSeen): Promise<Seen> {
  const seen = { lines, mostMb: Math.round(residentBytesOf(pid).most / 1e6), dropped };
  await writeFile(`/proc/${pid}/clear_refs`, '5'); // the greatest from now on: see proc(5)
  onSeen(seen);
  return seen;
}
