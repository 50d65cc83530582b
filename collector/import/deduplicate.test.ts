import test from 'ava';
import fc from 'fast-check';
import { importKey, packImported } from '../../shared/record/imported-requests.js';
import { createUniqueTimes } from '../../shared/record/unique-time.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { seriesKey } from '../../shared/rollup/rollup.js';
import type { Store } from '../../shared/store/store.js';
import { event } from '../../test/web-samples.js';
import { ImportedHours } from './imported-hours.js';
import { createMissingFinder } from './deduplicate.js';

const nothingImported = new ImportedHours({ readImported: () => Promise.resolve([]) });

const startMs = Date.UTC(2026, 10, 23, 20);

/** A store of requests in memory. */
function storeOf(stored: RequestEvent[]): Pick<Store, 'readRequests'> {
  return {
    readRequests: ({ fromMs, toMs, limit }) =>
      Promise.resolve(
        stored
          .filter(({ timeMs }) => timeMs >= fromMs && timeMs < toMs)
          .toSorted((one, other) => other.timeMs - one.timeMs || other.timeNs - one.timeNs)
          .slice(0, limit),
      ),
  };
}

/** Records requests: each gets a unique time within its series. */
function recordedBy(times = createUniqueTimes()): (request: RequestEvent) => RequestEvent {
  return (request) => ({ ...request, ...times.take(seriesKey(request), request) });
}

/** Few times, series and sizes, so that many requests are equal or have the same time. */
const requests = fc.array(
  fc
    .record({
      timeMs: fc.constantFrom(startMs, startMs + 5, startMs + 120_000),
      timeNs: fc.constantFrom(0, 500, 999_990),
      host: fc.constantFrom('a.example', 'b.example'),
      size: fc.constantFrom(1, 2),
    })
    .map(event),
  { maxLength: 60 },
);

test('adds exactly the missing requests, for any stored part of a file and any batches', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      requests,
      fc.infiniteStream(fc.boolean()),
      fc.integer({ min: 1, max: 20 }),
      fc.integer({ min: 1, max: 8 }),
      async (file, isStored, batchLength, pageRowsMax) => {
        const stored = file.filter(() => isStored.next().value).map(recordedBy());
        await importInto(stored, file, batchLength, pageRowsMax);
        // Of requests that differ only in the host, the wrong one may count as stored.
        const sizes = (rows: readonly RequestEvent[]): number[] => rows.map(({ size }) => size).toSorted();
        t.deepEqual(sizes(stored), sizes(file));
        t.is(
          new Set(stored.map((row) => `${seriesKey(row)} ${row.timeMs} ${row.timeNs}`)).size,
          file.length,
          'no two rows of a series have one time',
        );
        t.is(await importInto(stored, file, batchLength, pageRowsMax), 0, 'the second import adds nothing');
      },
    ),
    { numRuns: 300 },
  );
});

test('matches requests that differ only in host and client', async (t) => {
  const stored = [event({ timeMs: startMs, host: '_other', clientIp: '203.0.113.0' })];
  t.deepEqual(
    (
      await createMissingFinder(storeOf(stored), nothingImported).find([
        event({ timeMs: startMs, host: 'shop.example', clientIp: '203.0.113.9' }),
      ])
    ).requests,
    [],
  );
  for (const difference of [
    { status: 404 },
    { method: 'PUT' },
    { uri: '/b' },
    { size: 3 },
    { bytesRead: 3 },
    { durationMs: 2 },
    { source: 'app' },
    { timeNs: 1 },
    { timeMs: startMs - 1 },
  ]) {
    const request = event({ timeMs: startMs, ...difference });
    t.deepEqual(
      (await createMissingFinder(storeOf(stored), nothingImported).find([request])).requests,
      [request],
      JSON.stringify(difference),
    );
  }
});

test('matches a slightly later row only if rows of its series fill the time between', async (t) => {
  const request = event({ timeMs: startMs });
  const later = event({ timeMs: startMs, timeNs: 2 });
  const between = [event({ timeMs: startMs, uri: '/x' }), event({ timeMs: startMs, timeNs: 1, uri: '/y' })];
  t.deepEqual((await createMissingFinder(storeOf([later]), nothingImported).find([request])).requests, [request]);
  t.deepEqual((await createMissingFinder(storeOf([later, between[0]!]), nothingImported).find([request])).requests, [
    request,
  ]);
  t.deepEqual((await createMissingFinder(storeOf([later, ...between]), nothingImported).find([request])).requests, []);
});

test('matches a duration that was read in another unit', async (t) => {
  const stored = [event({ timeMs: startMs, durationMs: 4321 / 1e6 })];
  t.deepEqual(
    (await createMissingFinder(storeOf(stored), nothingImported).find([event({ timeMs: startMs, durationMs: 4321 })]))
      .requests,
    [],
  );
});

test('finds imported requests by their remembered keys, with or without their rows', async (t) => {
  const [once, twice, live] = [
    event({ timeMs: startMs, uri: '/once' }),
    event({ timeMs: startMs + 5, uri: '/twice' }),
    event({ timeMs: startMs + 7, uri: '/live' }),
  ];
  const entries = [once, twice, twice].map((request) => ({ ...request, key: importKey(request), shiftNs: 0 }));
  for (const stored of [[], [once, twice, { ...twice, timeNs: 1 }]]) {
    const imported = new ImportedHours({ readImported: () => Promise.resolve(packImported(1, entries)) });
    const file = [once, twice, live, twice, twice, once];
    await imported.load(file);
    const { requests: missing } = await createMissingFinder(storeOf(stored), imported).find(file);
    t.deepEqual(missing, [live, twice, once], 'the third occurrence of two, and the second of one');
  }
});

test('looks up requests of many years in a few reads', async (t) => {
  const file = Array.from({ length: 1000 }, (_, at) => event({ timeMs: startMs - at * 86_400_000 * 3 }));
  let reads = 0;
  const store = storeOf(file.slice(0, 500));
  const { requests: missing } = await createMissingFinder(
    {
      readRequests(query) {
        reads += 1;
        return store.readRequests(query);
      },
    },
    nothingImported,
  ).find(file);
  t.deepEqual(missing, file.slice(500));
  t.true(reads <= 16, `${reads} reads`);
});

/** Imports a file like `importLines`. Resolves to the number of added rows. */
async function importInto(
  stored: RequestEvent[],
  file: readonly RequestEvent[],
  batchLength: number,
  pageRowsMax: number,
): Promise<number> {
  const finder = createMissingFinder(storeOf(stored), nothingImported, { pageRowsMax });
  const times = createUniqueTimes();
  const before = stored.length;
  for (let from = 0; from < file.length; from += batchLength) {
    const missing = await finder.find(file.slice(from, from + batchLength));
    for (const row of missing.neighbours) times.reserve(seriesKey(row), row);
    stored.push(...missing.requests.map(recordedBy(times)));
  }
  return stored.length - before;
}
