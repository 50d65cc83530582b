import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createLog } from '../../shared/log.js';
import { createRecorder } from '../../shared/record/recorder.js';
import { openStore } from '../../shared/store/open.js';
import { event } from '../../test/web-samples.js';
import { FirstData, firstOf } from './first-data.js';
import { parseQuery } from './query.js';
import { readTraffic } from './read-traffic.js';
import { createReads, type Reads } from './reads.js';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const log = createLog('test', { write: () => undefined });

/** A DuckDB file and a recorder into it. */
async function open(t: ExecutionContext, { rollupsMs = 400 * dayMs } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'first-data-'));
  const store = await openStore(
    { kind: 'duckdb', path: join(folder, 'requests.duckdb'), retention: { requestsMs: 7 * dayMs, rollupsMs } },
    { log },
  );
  const recorder = createRecorder({ store, log, name: 'tested', hostsMax: 200, clientIp: 'full' });
  t.teardown(async () => {
    await recorder.close();
    await store.close();
    await rm(folder, { recursive: true });
  });
  /** Records a request every `everyMs` of a stretch of time. */
  const record = async (fromMs: number, toMs: number, everyMs: number): Promise<void> => {
    for (let timeMs = fromMs; timeMs < toMs; timeMs += everyMs) recorder.record(event({ timeMs, durationMs: 5 }));
    await recorder.flush();
  };
  return { reads: createReads(store), record };
}

const read = (reads: Reads, from: string, nowMs: number) =>
  readTraffic(reads, parseQuery({ from }, nowMs), { nowMs, withPrevious: true });

test('compares only with a previous period that starts after the first data', async (t) => {
  const { reads, record } = await open(t);
  const nowMs = Date.now();
  await record(nowMs - 30 * hourMs, nowMs, 2 * minuteMs);
  t.is((await read(reads, 'now-24h', nowMs)).previous, undefined, 'the previous day has only six hours of data');
  const { previous, sources } = await read(reads, 'now-6h', nowMs);
  t.true(Math.abs(previous!.sources.get('caddy')!.requests - sources.get('caddy')!.requests) <= 10);
  await record(nowMs - 60 * hourMs, nowMs - 30 * hourMs, 2 * minuteMs);
  t.true(
    (await read(reads, 'now-24h', nowMs)).previous!.sources.get('caddy')!.requests > 700,
    'an import has added the rest of the previous day',
  );
});

test('caches spans read during writes, unless older data was written', async (t) => {
  const levelMs = 86_400_000;
  let tell!: (changed: { rollups: { level: 86_400; windowMs: number; source: string }[] }) => void;
  let reads = 0;
  let answer!: () => void;
  const changes = {
    listen: (onChange: unknown) => {
      tell = onChange as typeof tell;
    },
    listenForExchange: () => undefined,
  };
  const windows = new Map([['caddy', { oldest: new Map([[86_400 as const, 10 * levelMs]]), newestMs: 12 * levelMs }]]);
  const first = new FirstData(
    {
      changes,
      readStoredWindows: () =>
        new Promise((resolve) => {
          reads += 1;
          answer = () => {
            resolve(windows);
          };
        }),
    },
    { clock: () => 0 },
  );
  const spans = () => first.spans((run) => run(new AbortController().signal));
  const write = (windowMs: number): void => {
    tell({ rollups: [{ level: 86_400, windowMs, source: 'caddy' }] });
  };
  const reading = spans();
  write(12 * levelMs);
  answer();
  await reading;
  write(12 * levelMs);
  await spans();
  t.is(reads, 1, 'a current batch does not affect the first data');
  write(9 * levelMs);
  const again = spans();
  write(8 * levelMs);
  answer();
  await again;
  const last = spans();
  t.is(reads, 3, 'the second read may miss the batch written meanwhile');
  answer();
  await last;
});

test('does not compare with a period beyond RETENTION_ROLLUPS; a range that starts before it is incomplete', async (t) => {
  const { reads, record } = await open(t);
  const nowMs = Date.now();
  await record(nowMs - 700 * dayMs, nowMs, dayMs);
  const kept = await read(reads, 'now-300d', nowMs);
  t.like(kept, { previous: undefined, complete: true, rollupsFromMs: undefined });
  t.not((await read(reads, 'now-150d', nowMs)).previous, undefined);
  const beyond = await read(reads, 'now-500d', nowMs);
  t.like(beyond, { previous: undefined, complete: false, rollupsFromMs: nowMs - 400 * dayMs });
});

test('takes the first data from the coarsest level, refined by finer levels', (t) => {
  t.is(firstOf(new Map()), undefined);
  t.is(
    firstOf(
      new Map([
        [10, 15 * hourMs + 10_000],
        [60, 15 * hourMs],
        [3600, 15 * hourMs],
        [86_400, 0],
      ]),
    ),
    15 * hourMs + 10_000,
  );
  t.is(
    firstOf(
      new Map([
        [10, 98 * dayMs],
        [60, 86 * dayMs],
        [3600, 15 * hourMs],
        [86_400, 0],
      ]),
    ),
    15 * hourMs,
    'the fine rows of the first hour have been deleted',
  );
});
