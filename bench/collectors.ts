/**
 * Four collectors into one InfluxDB: whether their totals add up to what was sent, how far off the percentiles of all
 * together are, and how much goes in.
 */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { startInfluxd } from '../test/influxd-server.js';
import { exactSummary, readSummary, startFleet } from '../test/fleet.js';
import type { Result } from './compare.js';
import { makeLinesFile, sendFile, type LinesFile } from './lines-file.js';
import { cpuSecondsOf } from '../test/process.js';

const size = 4;
/** A percentile's distance from the exact one, as a part of it: see `histogram.ts`. */
const errorMax = 0.05;

/** Sends `BENCH_LINES` lines, 300,000 unless it is set, and compares. */
export async function benchCollectors(say: (text: string) => void): Promise<Result[]> {
  const linesEach = Math.ceil(Number(process.env['BENCH_LINES'] ?? 300_000) / size);
  const files = await Promise.all(Array.from({ length: size }, () => makeLinesFile(linesEach)));
  const exact = exactSummary(await linesOf(files));
  const influxd = await startInfluxd();
  try {
    const fleet = await startFleet(influxd, influxd.bucket, size);
    try {
      const startMs = performance.now();
      await Promise.all(files.map((file, at) => sendFile(file, fleet.ports[at]!)));
      await fleet.stored(exact.requests);
      const seconds = (performance.now() - startMs) / 1000;
      const cpuSeconds = fleet.pids.reduce((sum, pid) => sum + cpuSecondsOf(pid), 0);
      const read = await readSummary(fleet.webUrl, 'from=now-1h');
      say(JSON.stringify({ read, exact, seconds, cpuSeconds }));
      const same =
        JSON.stringify([read.requests, read.bytes, read.statuses]) ===
        JSON.stringify([exact.requests, exact.bytes, exact.statuses]);
      const percentile = (name: 'p50' | 'p95' | 'p99'): Result => {
        const error = read.duration_ms[name] / exact.duration_ms[name] - 1;
        return {
          what: `${size} collectors, one InfluxDB: ${name} of all together`,
          measured: `${read.duration_ms[name].toPrecision(4)} ms, off by ${(100 * error).toFixed(1)} %`,
          against: `exactly ${exact.duration_ms[name].toPrecision(4)} ms`,
          wanted: `within ${100 * errorMax} %`,
          holds: Math.abs(error) <= errorMax,
        };
      };
      return [
        {
          what: `${size} collectors, one InfluxDB: requests, bytes and statuses`,
          measured: `${read.requests} requests, ${read.bytes} bytes`,
          against: `sent: ${exact.requests}, ${exact.bytes}`,
          wanted: 'the same',
          holds: same,
        },
        percentile('p50'),
        percentile('p95'),
        percentile('p99'),
        {
          what: `${size} collectors, one InfluxDB, on this machine: lines per second, and per CPU-second of the collectors`,
          measured: `${Math.round(exact.requests / seconds)}, ${Math.round(exact.requests / cpuSeconds)}`,
          against: '',
          wanted: '',
          holds: undefined,
        },
      ];
    } finally {
      await fleet.stop();
    }
  } finally {
    await influxd.stop();
  }
}

async function linesOf(files: readonly LinesFile[]): Promise<string[]> {
  const lines: string[] = [];
  for (const { path } of files)
    for await (const line of createInterface({ input: createReadStream(path) }))
      lines.push(line.slice(line.lastIndexOf('"duration"')));
  return lines;
}
