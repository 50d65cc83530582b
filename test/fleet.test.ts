import test from 'ava';
import type { LedgerJson } from '../shared/store/ledger-json.js';
import { exactSummary, readSummary, startFleet } from './fleet.js';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { readSample, sendTcp } from './sample.js';

const influxd = influxdOfThisFile();
const { lines, range } = readSample();

testWithInfluxd(
  'four collectors over one InfluxDB add up exactly, and the percentiles of all together are within 5 % of the exact ones',
  async (t) => {
    const server = await influxd();
    const fleet = await startFleet(server, await server.createBucket(), 4);
    try {
      // As a balancer deals connections out: each gets lines of every time, and the times of one are those of the
      // others.
      await Promise.all(
        fleet.ports.map((port, at) =>
          sendTcp(
            port,
            Buffer.from(
              lines
                .filter((_, line) => line % 4 === at)
                .map((line) => `${line}\n`)
                .join(''),
            ),
            [65_536],
          ),
        ),
      );
      await fleet.stored(lines.length);
      const exact = exactSummary(lines);
      const read = await readSummary(fleet.webUrl, range);
      t.deepEqual([read.requests, read.bytes, read.statuses], [exact.requests, exact.bytes, exact.statuses]);
      for (const name of ['p50', 'p95', 'p99'] as const) {
        const ratio = read.duration_ms[name] / exact.duration_ms[name];
        t.true(
          ratio > 0.95 && ratio < 1.05,
          `${name} is ${read.duration_ms[name]}, and exactly ${exact.duration_ms[name]}`,
        );
      }
      t.true(Math.abs(read.duration_ms.max / exact.duration_ms.max - 1) < 1e-5);
      const { collectors } = (await (await fetch(`${fleet.webUrl}/api/ledger?${range}`)).json()) as {
        collectors: Record<string, LedgerJson>;
      };
      t.deepEqual(Object.keys(collectors).sort(), ['edge-1', 'edge-2', 'edge-3', 'edge-4']);
    } finally {
      t.deepEqual(await fleet.stop(), [0, 0, 0, 0, 0]);
    }
  },
);

test('the exact figures are those of the lines', (t) => {
  const line = (seconds: number, status: number): string =>
    `{"ts":1,"duration":${seconds},"size":7,"status":${status}}`;
  t.deepEqual(exactSummary([line(0.001, 200), line(0.003, 200), line(0.002, 404), line(9, 101)]), {
    requests: 4,
    bytes: 28,
    statuses: { 101: 1, 200: 2, 404: 1 },
    duration_ms: { p50: 2, p95: 3, p99: 3, max: 3 },
  });
});
