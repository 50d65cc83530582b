import { DuckDBInstance } from '@duckdb/node-api';
import test, { type ExecutionContext } from 'ava';
import { StoreError } from '../../errors.js';
import { until } from '../../../test/until.js';
import { ReadPool, type Query } from './read-pool.js';

async function startPool(t: ExecutionContext, connections: number): Promise<ReadPool> {
  const instance = await DuckDBInstance.create(':memory:', { threads: '1' });
  const opened = await Promise.all(Array.from({ length: connections }, () => instance.connect()));
  t.teardown(() => {
    for (const connection of opened) connection.closeSync();
    instance.closeSync();
  });
  return new ReadPool(opened);
}

/** Runs for hours unless it is interrupted. */
const endless = 'SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE a.range * b.range % 7 = 8';

async function valuesOf(query: Query, sql: string): Promise<unknown[]> {
  const values: unknown[] = [];
  for await (const [column] of query(sql, [], [])) values.push(...column!);
  return values;
}

test('shares the connections among reads, each of which sees all its rows', async (t) => {
  const pool = await startPool(t, 2);
  const running = new Set<number>();
  let most = 0;
  const counts = await Promise.all(
    Array.from({ length: 20 }, (_, at) =>
      pool.use(async (query) => {
        running.add(at);
        most = Math.max(most, running.size);
        const values = await valuesOf(query, `SELECT range + ${at} FROM range(5000)`);
        running.delete(at);
        return values.length;
      }),
    ),
  );
  t.deepEqual(new Set(counts), new Set([5000]));
  t.is(most, 2);
});

test('interrupts a cancelled read and reuses its connection', async (t) => {
  const pool = await startPool(t, 1);
  const gone = new AbortController();
  const reading = pool.use((query) => valuesOf(query, endless), gone.signal);
  const waiting = pool.use((query) => valuesOf(query, 'SELECT 42'));
  const left = new AbortController();
  const neverRun = pool.use(async () => {
    t.fail('it ran');
  }, left.signal);
  left.abort();
  await t.throwsAsync(neverRun, { instanceOf: StoreError, message: /cancelled/ });
  gone.abort();
  const error = await t.throwsAsync(reading, { instanceOf: StoreError, message: /cancelled/ });
  t.is(error.action, 'retry');
  t.deepEqual(await waiting, [42]);
});

test('passes on an error of DuckDB without losing the connection', async (t) => {
  const pool = await startPool(t, 1);
  await t.throwsAsync(
    pool.use((query) => valuesOf(query, 'SELECT * FROM nowhere')),
    { message: /nowhere/ },
  );
  t.deepEqual(await pool.use((query) => valuesOf(query, 'SELECT 1')), [1]);
});

test('interrupts running reads on close, refuses waiting and new ones, and resolves when none is left', async (t) => {
  const pool = await startPool(t, 1);
  let isReading = false;
  let hasEnded = false;
  const reading = pool.use(async (query) => {
    isReading = true;
    try {
      return await valuesOf(query, endless);
    } finally {
      hasEnded = true;
    }
  });
  const waiting = pool.use((query) => valuesOf(query, 'SELECT 1'));
  await until('it reads', () => isReading);
  t.false(pool.isClosed);
  const refused = Promise.all(
    [reading, waiting].map((read) => t.throwsAsync(read, { instanceOf: StoreError, message: /closed or reopened/ })),
  );
  await pool.close();
  t.true(hasEnded);
  t.true(pool.isClosed);
  await refused;
  await t.throwsAsync(
    pool.use((query) => valuesOf(query, 'SELECT 1')),
    { instanceOf: StoreError, message: /closed or reopened/ },
  );
});

test('runs something exclusively: after the reads in progress, and before those that come later', async (t) => {
  const pool = await startPool(t, 2);
  const events: string[] = [];
  const read = (name: string, whileReading: () => Promise<void> = () => Promise.resolve()): Promise<void> =>
    pool.use(async (query) => {
      events.push(`${name} begins`);
      await valuesOf(query, 'SELECT 1');
      await whileReading();
      events.push(`${name} ends`);
    });
  let endFirst = (): void => undefined;
  const first = await new Promise<{ ended: Promise<void> }>((resolve) => {
    const ended = read(
      'first',
      () =>
        new Promise((end) => {
          endFirst = end;
          resolve({ ended });
        }),
    );
  });
  const exclusive = pool.exclusively(() => {
    events.push('exclusive');
    return Promise.resolve();
  });
  const second = read('second');
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  t.deepEqual(events, ['first begins']);
  endFirst();
  await Promise.all([first.ended, exclusive, second]);
  t.deepEqual(events, ['first begins', 'first ends', 'exclusive', 'second begins', 'second ends']);
  await t.throwsAsync(
    pool.exclusively(() => Promise.reject(new Error('disk full'))),
    { message: 'disk full' },
  );
  await read('third');
  t.true(pool.isIdle);
});
