import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { createLog } from '../../shared/log.js';
import { createRecorder } from '../../shared/record/recorder.js';
import { openStore } from '../../shared/store/open.js';
import type { Store } from '../../shared/store/store.js';
import { influxdOfThisFile, spoolOfTest, testWithInfluxd } from '../../test/influxd.js';
import { until } from '../../test/until.js';
import { event } from '../../test/web-samples.js';
import { listOf } from '../stats/top-lists.js';
import { parseQuery } from './query.js';
import { readTopLists } from './read-top-lists.js';
import { readTraffic } from './read-traffic.js';
import { createReads, type Reads } from './reads.js';
import { WindowCache } from './window-cache.js';
import { closedTtlMsMaxDefault, closedTtlMsMin } from './window-ttl.js';

const log = createLog('test', { write: () => undefined });
const dayMs = 86_400_000;
const retention = { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs };
const influxd = influxdOfThisFile();
const spool = spoolOfTest();

async function openEmbedded(t: ExecutionContext): Promise<Store> {
  const folder = await mkdtemp(join(tmpdir(), 'window-cache-'));
  const store = await openStore({ kind: 'duckdb', path: join(folder, 'requests.duckdb'), retention }, { log });
  t.teardown(async () => {
    await store.close();
    await rm(folder, { recursive: true });
  });
  return store;
}

async function openInfluxdb(t: ExecutionContext): Promise<Store> {
  const { url, org, token, createBucket, deleteBucket } = await influxd();
  const bucket = await createBucket();
  const store = await openStore({ kind: 'influxdb', url, org, token, bucket, retention, ...spool }, { log });
  t.teardown(async () => {
    await store.close();
    await deleteBucket(bucket);
  });
  return store;
}

/** The figures of a page, by source and by window. */
async function readPage(reads: Reads, raw: Record<string, string>, nowMs: number) {
  const query = parseQuery(raw, nowMs);
  const [{ windows, sources, hosts, methods, pairs, previous }, topLists] = await Promise.all([
    readTraffic(reads, query, { nowMs, withPrevious: true, hostsMax: 10, withPairs: true }),
    readTopLists(reads, query, { dimensions: ['path', 'user_agent'], nowMs }),
  ]);
  return {
    sources: [...sources].map(([source, { requests, errors, bytes, latencyMs, statuses }]) => [
      source,
      requests,
      errors,
      bytes,
      latencyMs,
      [...statuses],
    ]),
    windows: windows.map(({ timeMs, source, requests, latencyMs: { p95 } }) => [timeMs, source, requests, p95]),
    hosts: { count: hosts.count, requests: hosts.requests, worst: hosts.worst },
    values: [...hosts.figures, ...methods].map(
      ([
        value,
        {
          requests,
          latencyMs: { p95 },
        },
      ]) => [value, requests, p95],
    ),
    pairs,
    before: previous && [
      [...previous.sources].map(([source, { requests, latencyMs }]) => [source, requests, latencyMs]),
      previous.pairs,
    ],
    bots: listOf(topLists.bySource.get('caddy'), 'bot').values.get('curl')?.latencyMs,
    // In any order: they are only looked up.
    paths: [...topLists.bySource]
      .toSorted(([one], [other]) => (one < other ? -1 : 1))
      .map(([source, { lists }]) => [source, lists.path.entries().map(({ value, count }) => [value, count])]),
  };
}

const asked: readonly Record<string, string>[] = [
  { from: 'now-15m' },
  { from: 'now-1h' },
  { from: 'now-24h' },
  { from: 'now-7d' },
  { from: 'now-30d' },
  { from: 'now-400d' },
  { from: 'now-50h', to: 'now-2h' },
  { from: 'now-24h', host: 'a' },
];
/** Writes between two reads of the page: requests of some age in minutes, from traffic and imports. */
const writes = fc.array(
  fc.array(
    fc.record({
      agoMinutes: fc.oneof(fc.nat(2), fc.nat(60), fc.nat(40 * 1440)),
      status: fc.constantFrom(200, 404, 502),
      host: fc.constantFrom('a', 'b'),
      source: fc.constantFrom('caddy', 'shop'),
      durationMs: fc.nat(1000),
    }),
    { maxLength: 8 },
  ),
  { minLength: 1, maxLength: 6 },
);

for (const { name, open, testHere, numRuns, waitMs } of [
  { name: 'DuckDB', open: openEmbedded, testHere: test, numRuns: 12, waitMs: 0 },
  { name: 'InfluxDB', open: openInfluxdb, testHere: testWithInfluxd, numRuns: 1, waitMs: closedTtlMsMin },
]) {
  testHere(
    `${name}: whatever traffic and imports write, into windows of any age, is on a page that has shown these windows before`,
    async (t: ExecutionContext) => {
      await fc.assert(
        fc.asyncProperty(writes, async (batches) => {
          const store = await open(t);
          const reads = createReads(store, { closedTtlMsMax: closedTtlMsMin });
          const recorder = createRecorder({ store, log, name: 'tested', hostsMax: 200, clientIp: 'full' });
          try {
            for (const batch of batches) {
              const nowMs = Date.now();
              for (const { agoMinutes, ...parts } of batch)
                recorder.record(event({ userAgent: 'curl/8.14.1', ...parts, timeMs: nowMs - agoMinutes * 60_000 }));
              await recorder.flush();
              for (const raw of asked) {
                const atMs = Date.now();
                const wanted = await readPage(createReads(store), raw, atMs);
                if (waitMs === 0) t.deepEqual(await readPage(reads, raw, atMs), wanted, JSON.stringify(raw));
                else
                  await until(
                    'the page shows what the store has',
                    async () => JSON.stringify(await readPage(reads, raw, atMs)) === JSON.stringify(wanted),
                    { waitMsMax: waitMs + 20_000, pollMs: 200 },
                  );
              }
            }
          } finally {
            await recorder.close();
          }
        }),
        { numRuns },
      );
      t.pass();
    },
  );
}

/** A cache of one-minute windows whose rows are numbers, and its reads. */
function cacheOf({ notified, weightMax = 1000 }: { notified: boolean; weightMax?: number }) {
  const reads: {
    fromMs: number;
    toMs: number;
    answer: (rows: { windowMs: number; value: number }[]) => void;
    fail: (error: Error) => void;
  }[] = [];
  let clockMs = 0;
  const cache = new WindowCache<{ level: number; name: string }, { windowMs: number; value: number }, number>({
    async *read({ fromMs, toMs }) {
      const asked = { fromMs: fromMs / 60_000, toMs: toMs / 60_000 };
      yield await new Promise<{ windowMs: number; value: number }[]>((answer, fail) => {
        reads.push({ ...asked, answer, fail });
      });
    },
    digest: (rows) => rows.reduce((sum, { value }) => sum + value, 0),
    estimatedSize: () => 9,
    weightMax,
    changes: notified ? { listen: () => undefined, listenForExchange: () => undefined } : undefined,
    clock: () => clockMs,
  });
  const row = (minute: number, value = 1) => ({ windowMs: minute * 60_000, value });
  return {
    reads,
    row,
    spans: () => reads.splice(0).map(({ fromMs, toMs }) => [fromMs, toMs]),
    cache,
    get: (from: number, to: number, { now = to, name = '' } = {}) =>
      cache.get({ level: 60, name }, { fromMs: from * 60_000, toMs: to * 60_000 }, now * 60_000),
    invalidate: (...minutes: number[]) => {
      cache.invalidate(minutes.map((minute) => ({ level: 60, windowMs: minute * 60_000 })));
    },
    advance: (ms: number) => {
      clockMs += ms;
    },
  };
}

test('reads only missing windows, caches windows without rows, and reads changed windows again', async (t) => {
  const { get, reads, row, spans, invalidate } = cacheOf({ notified: true });
  const first = get(0, 5);
  reads[0]!.answer([row(1), row(3), row(3, 2)]);
  t.deepEqual(await first, [
    { windowMs: 60_000, digest: 1 },
    { windowMs: 180_000, digest: 3 },
  ]);
  t.deepEqual(spans(), [[0, 5]]);
  const moved = get(1, 6);
  reads[0]!.answer([]);
  t.is((await moved).length, 2);
  t.deepEqual(spans(), [[5, 6]]);
  invalidate(3);
  const again = get(1, 6);
  reads[0]!.answer([row(3, 7)]);
  t.deepEqual(await again, [
    { windowMs: 60_000, digest: 1 },
    { windowMs: 180_000, digest: 7 },
  ]);
  t.deepEqual(spans(), [[3, 4]]);
});

test('shares one read among concurrent readers, and starts another one after a change', async (t) => {
  const { get, reads, row, spans, invalidate } = cacheOf({ notified: true });
  const crowd = Array.from({ length: 100 }, () => get(0, 3));
  t.is(reads.length, 1);
  invalidate(2);
  const late = get(0, 3);
  t.is(reads.length, 2);
  reads[0]!.answer([row(1), row(2, 1)]);
  for (const one of crowd) t.is((await one).length, 2);
  reads[1]!.answer([row(1), row(2, 5)]);
  t.deepEqual((await late).at(-1), { windowMs: 120_000, digest: 5 });
  spans();
  t.deepEqual(
    (await get(0, 3)).at(-1),
    { windowMs: 120_000, digest: 5 },
    'the read that started before the change is not cached',
  );
  t.deepEqual(spans(), []);
});

test('caches nothing of a failed read and retries it', async (t) => {
  const { get, reads, row } = cacheOf({ notified: true });
  const failing = get(0, 1);
  reads.shift()!.fail(new Error('no store'));
  await t.throwsAsync(failing, { message: 'no store' });
  const next = get(0, 1);
  reads.shift()!.answer([row(0)]);
  t.is((await next).length, 1);
});

test('expires open windows immediately and closed ones later if other processes write', async (t) => {
  const { get, reads, row, spans, advance } = cacheOf({ notified: false });
  const first = get(0, 10);
  reads[0]!.answer([row(1), row(9)]);
  await first;
  t.deepEqual(spans(), [[0, 10]]);
  advance(1000);
  const second = get(0, 10);
  reads[0]!.answer([row(9, 4)]);
  t.deepEqual(await second, [
    { windowMs: 60_000, digest: 1 },
    { windowMs: 540_000, digest: 4 },
  ]);
  t.deepEqual(spans(), [[9, 10]], 'all windows but the last one are closed');
  advance(closedTtlMsMaxDefault);
  const third = get(0, 10);
  reads[0]!.answer([row(1, 8)]);
  t.deepEqual(await third, [{ windowMs: 60_000, digest: 8 }]);
});

test('caches closed windows for a tenth of the time since their end, from 10 s to 60 s, if other processes write', async (t) => {
  const { get, reads, spans, advance } = cacheOf({ notified: false });
  const first = get(0, 19, { now: 20 });
  reads[0]!.answer([]);
  await first;
  spans();
  /** The spans read for the range after some time. */
  const readAfter = async (ms: number): Promise<number[][]> => {
    advance(ms);
    const asked = get(0, 19, { now: 20 });
    for (const { answer } of reads) answer([]);
    await asked;
    await new Promise(setImmediate); // a background read ends a few turns later
    return spans();
  };
  t.deepEqual(await readAfter(5000), [], 'no entry has reached half its TTL');
  t.deepEqual(await readAfter(1), [[18, 19]], 'closed a minute ago: TTL of 10 s');
  t.deepEqual(await readAfter(1000), [[17, 18]], 'closed two minutes ago: TTL of 12 s');
  t.deepEqual(
    await readAfter(23_000),
    [
      [10, 15],
      [15, 19],
    ],
    'some entries have reached half their TTL, others have expired',
  );
  t.deepEqual(await readAfter(1000), [[0, 10]], 'closed ten minutes ago or more: TTL of 60 s');
});

test('refreshes closed windows in the background before they expire, if other processes write', async (t) => {
  const { get, reads, row, spans, advance } = cacheOf({ notified: false });
  const first = get(0, 5, { now: 20 });
  reads[0]!.answer([row(1)]);
  await first;
  spans();
  advance(closedTtlMsMaxDefault / 2 + 1);
  t.deepEqual(await get(0, 5, { now: 20 }), [{ windowMs: 60_000, digest: 1 }]);
  t.is((await get(0, 5, { now: 20 })).length, 1);
  const [refresh, ...others] = reads;
  t.deepEqual(others, [], 'a read is already in progress');
  refresh!.answer([row(1, 3)]);
  await turn();
  t.deepEqual(await get(0, 5, { now: 20 }), [{ windowMs: 60_000, digest: 3 }]);
  t.deepEqual(spans(), [[0, 5]]);
});

test('keeps entries after a failed refresh, and throws the error once they expire', async (t) => {
  const { get, reads, row, advance } = cacheOf({ notified: false });
  const first = get(0, 5, { now: 20 });
  reads.shift()!.answer([row(1)]);
  await first;
  advance(closedTtlMsMaxDefault / 2 + 1);
  await get(0, 5, { now: 20 });
  const refresh = reads.shift()!;
  refresh.fail(new Error('no store'));
  await turn();
  t.deepEqual(await get(0, 5, { now: 20 }), [{ windowMs: 60_000, digest: 1 }]);
  reads.shift()!.answer([row(1)]);
  advance(closedTtlMsMaxDefault);
  const late = get(0, 5, { now: 20 });
  reads.at(-1)!.fail(new Error('still no store'));
  await t.throwsAsync(late, { message: 'still no store' });
});

test('caches the result of the read that started last', async (t) => {
  const { get, reads, row, spans, advance } = cacheOf({ notified: false });
  const slow = get(0, 5);
  advance(1000);
  const quick = get(3, 5);
  reads[1]!.answer([row(4, 7)]);
  await quick;
  reads[0]!.answer([row(4, 2)]);
  await slow;
  spans();
  t.deepEqual(await get(3, 5), [{ windowMs: 240_000, digest: 7 }]);
  t.deepEqual(spans(), []);
});

test('evicts other queries first, then windows that the range no longer covers, beyond the weight limit', async (t) => {
  const { get, reads, row, spans, advance } = cacheOf({ notified: true, weightMax: 30 });
  const ask = async (from: number, to: number, name: string) => {
    const answer = get(from, to, { name });
    for (const { fromMs, toMs, answer: give } of reads)
      give(Array.from({ length: toMs - fromMs }, (_, at) => row(fromMs + at)));
    await answer;
    return spans();
  };
  t.deepEqual(await ask(0, 3, 'one'), [[0, 3]]);
  t.deepEqual(await ask(0, 3, 'one'), []);
  t.deepEqual(await ask(0, 3, 'two'), [[0, 3]]);
  t.deepEqual(await ask(0, 3, 'two'), []);
  t.deepEqual(await ask(0, 3, 'one'), [[0, 3]], 'it had to go');
  advance(120_000);
  t.deepEqual(await ask(1, 4, 'one'), [[3, 4]]);
  t.deepEqual(await ask(1, 4, 'one'), [], 'the window that is no longer covered was evicted');
});

test('removes a query with its last window', async (t) => {
  const { cache, get, reads, row, invalidate } = cacheOf({ notified: true, weightMax: 1_000_000 });
  for (let at = 0; at < 2000; at += 1) {
    const windows = get(5, 7, { name: `filter ${at}` });
    reads.shift()!.answer([row(5)]);
    await windows;
  }
  t.is(cache.queries, 2000);
  invalidate(5);
  t.is(cache.queries, 2000, 'the empty window is cached');
  invalidate(6);
  t.is(cache.queries, 0);
  const failing = get(5, 6);
  reads.shift()!.fail(new Error('no store'));
  await t.throwsAsync(failing, { message: 'no store' });
  t.is(cache.queries, 0, 'nothing came of it');
});

test('counts the length of a query towards its weight', async (t) => {
  const { cache, get, reads, row } = cacheOf({ notified: true, weightMax: 1000 });
  for (let at = 0; at < 500; at += 1) {
    const windows = get(5, 6, { name: `${at} ${'x'.repeat(30_000)}` });
    reads.shift()!.answer([row(5)]);
    await windows;
  }
  t.true(cache.queries <= 50, String(cache.queries));
});
