import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { Histogram } from '../shared/sketch/histogram.js';
import { createLog } from '../shared/log.js';
import type { SeriesAggregate } from '../shared/rollup/rollup.js';
import { openStore } from '../shared/store/open.js';
import { startWeb } from './web.js';

const minuteMs = 60_000;
const dayMs = 86_400_000;

/** A rollup row or a correction, `agoMinutes` before now. */
const anyRow = fc.record({
  agoMinutes: fc.constantFrom(0, 1, 2, 14, 59, 61, 62, 100, 119),
  source: fc.constantFrom('caddy', 'shop', 'app', 'dashboard'),
  host: fc.constantFrom('a.example', 'b.example', ''),
  method: fc.constantFrom('GET', 'POST'),
  status: fc.constantFrom(0, 101, 200, 304, 404, 429, 499, 500, 503, 999),
  count: fc.integer({ min: -3, max: 3 }),
  sampledOut: fc.nat(2),
  durationMs: fc.constantFrom(null, 0, 0.4, 30, 7000),
  size: fc.nat(1e6),
});
type AnyRow = typeof anyRow extends fc.Arbitrary<infer Row> ? Row : never;
/** Some rows, and some with corrections that cancel all of them. */
const anyRows = fc
  .array(fc.tuple(anyRow, fc.boolean()), { maxLength: 12 })
  .map((rows) => rows.flatMap(([row, isRefused]) => [row, ...(isRefused ? [{ ...row, count: -row.count }] : [])]));

function aggregateOfRow(
  { agoMinutes, source, host, method, status, count, sampledOut, durationMs, size }: AnyRow,
  nowMs: number,
): SeriesAggregate {
  const counted = new Histogram();
  if (durationMs !== null) for (let at = 0; at < Math.abs(count); at += 1) counted.add(durationMs);
  return {
    level: 60,
    windowMs: Math.floor(nowMs / minuteMs - agoMinutes) * minuteMs,
    series: { source, host, method, status },
    aggregate: {
      count,
      sampledOut: Math.sign(count) * Math.min(sampledOut, Math.abs(count)),
      durationSumMs: count * (durationMs ?? 0),
      durationMaxMs: count > 0 ? (durationMs ?? 0) : 0,
      sizeSum: count * size,
      histogram: count < 0 ? counted.negated() : counted,
    },
  };
}

const paths = [
  '/',
  '/api/summary',
  '/api/series',
  '/api/top/host',
  '/api/top/method',
  '/api/top/path',
  ...['requests', 'latency', 'errors', 'bytes', 'outside', 'unmatched'].map((name) => `/chart/${name}.json`),
];
const documents = [
  ...paths,
  '/api/series.csv',
  '/api/top/host.csv',
  ...['requests', 'latency', 'errors', 'bytes', 'outside', 'unmatched'].flatMap((name) => [
    `/chart/${name}.svg`,
    `/chart/${name}.csv`,
  ]),
];

test('the page, the charts, the API and CSV contain only finite numbers for any rows, including corrections', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'any-rows-'));
  const log = createLog('test', { write: () => undefined });
  const store = await openStore(
    {
      kind: 'duckdb',
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs },
    },
    { log },
  );
  // Each run has separate four hours: its range, the previous period and the last hours contain no other run.
  let nowMs = Math.floor(Date.now() / minuteMs) * minuteMs - 9 * dayMs + 25_000;
  let sequence = 0;
  const web = await startWeb(
    { host: '127.0.0.1', port: 0, password: undefined, connectHint: [] },
    { store, recorder: { record: () => true }, log, now: () => nowMs },
  );
  try {
    await fc.assert(
      fc.asyncProperty(
        anyRows,
        fc.constantFrom('', '?status=5xx', '?source=shop', '?host=a.example&from=now-15m', '?compare=off&from=now-2h'),
        async (rows, search) => {
          nowMs += 4 * 3_600_000;
          sequence += 1;
          await store.write({
            recorder: 'tested',
            writer: 'tested',
            sequence,
            requests: [],
            kept: undefined,
            aggregates: rows.map((row) => aggregateOfRow(row, nowMs)),
            rollups: [],
            topLists: [],
            ledger: undefined,
          });
          for (const path of documents) {
            const response = await fetch(`${web.url}${path}${search}`);
            const text = await response.text();
            t.is(response.status, 200, `${path}${search}: ${text.slice(0, 300)}`);
            t.notRegex(text, /NaN|Infinity|∞|undefined/, `${path}${search}`);
          }
        },
      ),
      { numRuns: 40 },
    );
  } finally {
    await web.stop();
    await store.close();
    await rm(folder, { recursive: true });
  }
});
