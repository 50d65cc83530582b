import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../test/influxd.js';
import { until } from '../../test/until.js';
import { StoreError } from '../errors.js';
import type { Log } from '../log.js';
import { createRecorder, type Recorder, type RecorderOptions } from './recorder.js';
import type { RequestEvent } from '../request-event.js';
import { levels, windowStart } from '../rollup/rollup.js';
import { plainStore } from '../../test/plain-store.js';
import { openStore } from '../store/open.js';
import type { Batch, Store } from '../store/store.js';
import { topLevels, type TopLevel } from '../top-list/top-row.js';
import { SpaceSaving } from '../sketch/space-saving.js';
import { aggregateOf } from '../../test/rollup-rows.js';
import { emptyRequest } from '../../test/empty-request.js';

const influxd = influxdOfThisFile();
const spool = spoolOfTest();
const dayMs = 86_400_000;
const retention = { requestsMs: 3650 * dayMs, rollupsMs: 3650 * dayMs };

/** Recent, since fine windows have a short retention. */
const startMs = windowStart(Date.now(), 3600) - 3_600_000;
const range = { fromMs: startMs - 86_400_000, toMs: startMs + 2 * 86_400_000 };

testOverBoth(
  'stores 10,000 requests of a series with the same time, and every rollup level agrees',
  async (t, openTestStore) => {
    const { store, recorder } = await start(t, openTestStore);
    for (let at = 0; at < 10_000; at += 1) recorder.record(event({ durationMs: at / 100 }));
    await recorder.flush();
    t.is((await store.readRequests({ ...range, filter: {}, limit: 20_000 })).length, 10_000);
    for (const level of levels) {
      const { count, histogram } = aggregateOf(await store.readRollups({ ...range, level, scope: 'all', filter: {} }));
      t.deepEqual([count, histogram.total], [10_000, 10_000], `${level} s`);
    }
    t.like(recorder.counts, { recorded: 10_000, stored: 10_000, deadLettered: 0 });
  },
);

test('writes a single request soon, without a flush', async (t) => {
  const { store, recorder } = await start(t, openDuckdb);
  recorder.record(event({}));
  await until(
    'it is in the store',
    async () => (await store.readRequests({ ...range, filter: {}, limit: 1 })).length === 1,
  );
  await until('it is counted', () => recorder.counts.stored > 0); // a moment after a reader sees it
  t.is(recorder.counts.stored, 1);
});

test('writes top lists within seconds, and all of them when it closes', async (t) => {
  const { store, recorder } = await start(t, openDuckdb);
  const counted = async (level: TopLevel): Promise<number> => {
    const rows = await store.readTopLists({
      fromMs: 0,
      toMs: Date.now() + 86_400_000,
      level,
      kinds: ['path'],
      filter: {},
    });
    return rows.reduce((sum, { packed }) => sum + SpaceSaving.unpack(packed).total, 0);
  };
  const timeMs = Date.now();
  recorder.record(event({ timeMs }));
  await until('the first is in the lists', async () => (await counted(60)) === 1);
  recorder.record(event({ timeMs }));
  await until('the second is in the lists', async () => (await counted(60)) === 2);
  recorder.record(event({ timeMs }));
  t.is(await recorder.close(), 0);
  for (const level of topLevels) t.is(await counted(level), 3, `${level} s`);
});

test('waits for its own batch in a flush that starts while the previous one completes', async (t) => {
  const taking: Promise<number>[] = [];
  let takeFirst = (): void => undefined;
  const { recorder } = await start(t, openDuckdb, { batchRequestsMax: 1 }, (real) => ({
    ...real,
    write: (batch) => {
      if (taking.length > 0) return real.write(batch);
      const taken = new Promise<number>((resolve) => {
        takeFirst = () => {
          resolve(0);
        };
      });
      taking.push(taken);
      return taken;
    },
  }));
  recorder.record(event({}));
  const second = taking[0]!.then(async () => {
    recorder.record(event({}));
    await recorder.flush();
    return recorder.counts.recorded - recorder.counts.stored - recorder.counts.deadLettered;
  });
  takeFirst();
  t.is(await second, 0);
});

testOverBoth('retries the same batches in order until the store accepts them', async (t, openTestStore) => {
  const tried: Batch[] = [];
  let failing = true;
  const { store, recorder } = await start(t, openTestStore, { batchRequestsMax: 10 }, (real) => ({
    ...real,
    write: async (batch) => {
      tried.push(batch);
      if (failing) throw new StoreError('retry', 'The store sleeps.', { retryAfterMs: 1 });
      return await real.write(batch);
    },
  }));
  for (let at = 0; at < 35; at += 1) t.true(recorder.record(event({ uri: `/${at}` })));
  await until('it was tried more than once', () => tried.length > 2);
  t.is(recorder.problem, 'The store sleeps.');
  t.true(
    tried.every((batch) => batch === tried[0]),
    'the first batch is not overtaken',
  );
  failing = false;
  await recorder.flush();
  t.is(recorder.problem, undefined);
  const stored = await store.readRequests({ ...range, filter: {}, limit: 100 });
  t.is(new Set(stored.map(({ uri }) => uri)).size, 35);
  t.is(aggregateOf(await store.readRollups({ ...range, level: 86_400, scope: 'all', filter: {} })).count, 35);
});

for (const sampleRatio of [0.3, 1])
  testOverBoth(
    `counts all requests as stored with ${100 * sampleRatio} % sampled, and recounts the rest after a rejected batch`,
    async (t, openTestStore) => {
      let rejects = true;
      const { store, recorder } = await start(
        t,
        openTestStore,
        { sampleRatio, batchRequestsMax: 100, flushMs: 100_000 },
        (real) => ({
          ...real,
          async write(batch) {
            if (rejects) {
              rejects = false;
              throw new StoreError('drop', 'refused');
            }
            return await real.write(batch);
          },
        }),
      );
      for (let at = 0; at < 350; at += 1) recorder.record(event({ timeNs: 1000 * at, uri: `/${at}` }));
      await recorder.flush();
      t.like(recorder.counts, { recorded: 350, stored: 250, deadLettered: 100 });
      const kept = (await store.readRequests({ ...range, filter: {}, limit: 1000 })).length;
      t.true(sampleRatio === 1 ? kept === 250 : kept > 30 && kept < 150);
      for (const level of levels) {
        const { count, sampledOut } = aggregateOf(
          await store.readRollups({ ...range, level, scope: 'all', filter: {} }),
        );
        t.is(count, 250, `${level} s`);
        t.is(count - sampledOut, kept);
      }
    },
  );

testOverBoth(
  'recounts only the queued requests when the contents of the store were replaced',
  async (t, openTestStore) => {
    let other: Store | undefined;
    const { store: first, recorder } = await start(t, openTestStore, { flushMs: 100_000 }, (real) => ({
      ...real,
      async write(batch) {
        if (other !== undefined) return await other.write(batch);
        if (recorder.counts.stored === 0) return await real.write(batch);
        other = await openTestStore(t);
        throw new StoreError('retry', 'exchanged', { contentsReplaced: true, retryAfterMs: 0 });
      },
    }));
    const record = (from: number, to: number): void => {
      for (let at = from; at < to; at += 1) recorder.record(event({ timeNs: 1000 * at, uri: `/${at}` }));
    };
    for (const [from, to] of [
      [0, 100],
      [100, 140],
      [140, 150],
    ] as const) {
      record(from, to);
      await recorder.flush();
    }
    t.like(recorder.counts, { recorded: 150, stored: 150 });
    for (const [store, count] of [
      [first, 100],
      [other!, 50],
    ] as const) {
      for (const level of levels) {
        t.is(
          aggregateOf(await store.readRollups({ ...range, level, scope: 'all', filter: {} })).count,
          count,
          `${level} s`,
        );
      }
    }
  },
);

testOverBoth('counts a batch that the store rejects, and writes the next one', async (t, openTestStore) => {
  const { store, recorder } = await start(t, openTestStore, { batchRequestsMax: 10 }, (real) => ({
    ...real,
    write: async (batch) => {
      if (batch.sequence === 1) throw new StoreError('drop', 'No.');
      return await real.write(batch);
    },
  }));
  for (let at = 0; at < 15; at += 1) recorder.record(event({ uri: `/${at}` }));
  await recorder.flush();
  t.like(recorder.counts, { recorded: 15, stored: 5, deadLettered: 10 });
  recorder.record(event({ uri: '/15' }));
  await recorder.flush();
  t.is((await store.readRequests({ ...range, filter: {}, limit: 100 })).length, 6);
  for (const level of levels) {
    t.is(
      aggregateOf(await store.readRollups({ ...range, level, scope: 'all', filter: {} })).count,
      6,
      `the rows of ${level} s do not count what was refused`,
    );
  }
});

test('holds requests after an unexpected error until a write succeeds', async (t) => {
  let failures = 0;
  const { store, recorder } = await start(t, openDuckdb, {}, (real) => ({
    ...real,
    async write(batch) {
      failures += 1;
      if (failures <= 2) throw new TypeError('a bug of ours');
      return await real.write(batch);
    },
  }));
  recorder.record(event({ uri: '/held' }));
  await recorder.flush();
  t.like(recorder.counts, { recorded: 1, stored: 1, deadLettered: 0 });
  t.deepEqual(
    (await store.readRequests({ ...range, filter: {}, limit: 10 })).map(({ uri }) => uri),
    ['/held'],
  );
});

test('drops new requests when the memory limit is reached, and says so', async (t) => {
  const { recorder } = await start(
    t,
    openDuckdb,
    { memoryBytesMax: 6000, batchRequestsMax: 10, drainMsMax: 1 },
    (real) => ({
      ...real,
      write: () => Promise.reject(new StoreError('retry', 'The store sleeps.')),
    }),
  );
  const taken = Array.from({ length: 100 }, () => recorder.record(event({})));
  const count = taken.indexOf(false);
  t.true(count >= 10 && count < 30, `${count} fit into 6 kB, with their aggregates`);
  t.false(taken.slice(count).includes(true));
  t.is(recorder.counts.recorded, count);
  t.false(recorder.record(event({ uri: `/${'x'.repeat(8000)}` })));
});

test('seals smaller batches for sparse traffic, and limits the number of queued batches', async (t) => {
  const sizes: number[] = [];
  let letThrough = (): void => undefined;
  const through = new Promise<void>((resolve) => {
    letThrough = resolve;
  });
  const { recorder } = await start(
    t,
    openDuckdb,
    { batchRequestsMax: 3200, sparseRequestsMax: 320, batchesWaitingMax: 0, flushMs: 100_000 },
    (real) => ({
      ...real,
      async write(batch) {
        sizes.push(batch.requests.length);
        await through;
        return await real.write(batch);
      },
    }),
  );
  const timeMs = Date.UTC(2026, 10, 24);
  for (let at = 0; at < 3200; at += 1) t.true(recorder.record(event({ timeMs, timeNs: at })));
  for (let at = 0; at < 320; at += 1) t.true(recorder.record(event({ timeMs: timeMs + 10_000 * at })));
  t.false(recorder.record(event({ timeMs })), 'one is being written, and one waits');
  letThrough();
  await recorder.flush();
  t.true(recorder.record(event({ timeMs })));
  await recorder.flush();
  t.deepEqual(
    sizes.filter((size) => size > 0),
    [3200, 320, 1],
    'the others are of lists alone',
  );
});

test('logs the number of unstored requests on close, and waits for a limited time', async (t) => {
  const lines: string[] = [];
  const log: Log = {
    debug: () => undefined,
    info: () => undefined,
    warn: () => undefined,
    error: (message) => {
      lines.push(message);
    },
  };
  const { recorder } = await start(t, openDuckdb, { drainMsMax: 50, log }, (real) => ({
    ...real,
    write: () => new Promise(() => undefined),
  }));
  for (let at = 0; at < 3; at += 1) recorder.record(event({}));
  t.is(await recorder.close(), 3);
  t.deepEqual(lines, ['Stopped before the store accepted 3 requests: it did not respond']);
  t.false(recorder.record(event({})), 'a closed recorder takes nothing');
});

test('tries at once on close, and again soon, though the store asked to wait for minutes', async (t) => {
  let failures = 0;
  const { recorder } = await start(t, openDuckdb, {}, (real) => ({
    ...real,
    async write(batch) {
      failures += 1;
      if (failures <= 3) throw new StoreError('retry', 'The store sleeps.', { retryAfterMs: 600_000 });
      return await real.write(batch);
    },
  }));
  recorder.record(event({}));
  await until('the store has failed', () => failures === 1);
  t.is(await recorder.close(), 0);
  t.like(recorder.counts, { recorded: 1, stored: 1 });
});

test('bounds values chosen by clients before storing them', async (t) => {
  const { store, recorder } = await start(t, openDuckdb, { hostsMax: 1 });
  recorder.record(event({ host: 'known.example' }));
  recorder.record(
    event({ host: 'a\nb', method: 'BREW', uri: `/${'x'.repeat(9000)}`, userAgent: '\ud800', clientIp: '203.0.113.9' }),
  );
  await recorder.flush();
  const [other] = await store.readRequests({ ...range, filter: { host: '_other' }, limit: 10 });
  t.like(other, { host: '_other', method: '_other', userAgent: '\uFFFD', clientIp: '203.0.113.0' });
  t.is(other?.uri.length, 8192);
  t.is(recorder.counts.hostsOverLimit, 1);
});

test('displaces no host after a step of the wall clock', async (t) => {
  let nowMs = startMs;
  const { recorder } = await start(t, openDuckdb, { hostsMax: 1, now: () => nowMs });
  recorder.record(event({ host: 'known.example' }));
  await recorder.flush();
  nowMs += 2 * 86_400_000;
  recorder.record(event({ host: 'other.example' }));
  await recorder.flush();
  t.is(recorder.counts.hostsOverLimit, 1);
});

/** Opens an empty store that ends with the test. */
type OpenTestStore = (t: ExecutionContext) => Promise<Store>;

/** Declares a test of the recorder over each store. */
function testOverBoth(title: string, run: (t: ExecutionContext, openTestStore: OpenTestStore) => Promise<void>): void {
  test(`${title} (DuckDB)`, (t) => run(t, openDuckdb));
  testWithInfluxd(`${title} (InfluxDB)`, (t) => run(t, openInfluxdb));
}

/** A recorder with a real store, which `change` can modify to fail. */
async function start(
  t: ExecutionContext,
  openTestStore: OpenTestStore,
  options: Partial<RecorderOptions> = {},
  change: (store: Store) => Store = (store) => store,
): Promise<{ store: Store; recorder: Recorder }> {
  const store = plainStore(await openTestStore(t));
  const recorder = createRecorder({
    store: change(store),
    log: quietLog,
    name: 'tested',
    hostsMax: 200,
    clientIp: 'truncated',
    flushMs: 20,
    ...options,
  });
  t.teardown(() => recorder.close());
  return { store, recorder };
}

async function openDuckdb(t: ExecutionContext): Promise<Store> {
  const folder = await mkdtemp(join(tmpdir(), 'recorder-'));
  const store = await openStore(
    { kind: 'duckdb', path: join(folder, 'requests.duckdb'), retention },
    { log: quietLog, now: () => startMs },
  );
  t.teardown(async () => {
    await store.close();
    await rm(folder, { recursive: true, force: true });
  });
  return store;
}

async function openInfluxdb(t: ExecutionContext): Promise<Store> {
  const { url, org, token, createBucket, deleteBucket } = await influxd();
  const bucket = await createBucket();
  const store = await openStore({ kind: 'influxdb', url, org, bucket, token, retention, ...spool }, { log: quietLog });
  t.teardown(async () => {
    await store.close();
    await deleteBucket(bucket);
  });
  return store;
}

function event(overrides: Partial<RequestEvent>): RequestEvent {
  return {
    ...emptyRequest,
    source: 'caddy',
    timeMs: startMs,
    host: 'a.example',
    method: 'GET',
    status: 200,
    durationMs: 1,
    size: 10,
    protocol: 'HTTP/1.1',
    ...overrides,
  };
}
