/**
 * The requirements on every store: each backend runs this suite against a real store.
 *
 * Preconditions, which the creators of events (the decoder, the recorder) ensure:
 * - `source`, `host`, `method` and `endpoint` have no control characters and no lone surrogates, and at most 255
 *   characters (UTF-16 units);
 * - `uri`, `userAgent`, `referrer` and the other texts have no lone surrogates and no NUL, and at most 64 KiB in
 *   total. All other characters, including newlines, read back unchanged;
 * - numbers are finite, counts are integers of at most 2^53 - 1, and a status is 0 or has three digits.
 */
import { randomUUID } from 'node:crypto';
import type { ExecutionContext } from 'ava';
import fc from 'fast-check';
import { until } from '../../../test/until.js';
import { StoreError } from '../../errors.js';
import { groupBy } from '../../group-by.js';
import { createRecorder } from '../../record/recorder.js';
import { rfc3339, splitNanoseconds, type RequestEvent } from '../../request-event.js';
import { topListsOfRequests, type RequestLists } from '../../top-list/top-lists-of-requests.js';
import { packImported, type ImportedRow } from '../../record/imported-requests.js';
import { BatchAggregates, OpenRollups, rollUp } from '../../rollup/rollup-aggregator.js';
import {
  mergeAggregate,
  copyAggregate,
  levelsOf,
  rowIdEnd,
  type Cell,
  type Level,
  type RollupRow,
  type Scope,
  type Series,
} from '../../rollup/rollup.js';
import { SpaceSaving } from '../../sketch/space-saving.js';
import { requestDimensions, topKinds, topLevels, topValueOf, type TopRow } from '../../top-list/top-row.js';
import type { Batch, Filter, LedgerSnapshot, Store, TopListsQuery } from '../store.js';

/** An empty store that no other test uses. */
export interface StoreUnderTest {
  readonly store: Store;
  /** Closes the store and reopens it with its rows, like a restart of the program. */
  reopen(): Promise<Store>;
  /** Closes the store and removes its rows. */
  cleanup(): Promise<void>;
}

/** `test` or `test.skip` of ava. */
export type DeclareTest = (title: string, run: (t: ExecutionContext) => Promise<void>) => void;

/** Declares one test per requirement. Each calls `open` for a new store. */
export function runStoreContract(test: DeclareTest, name: string, open: () => Promise<StoreUnderTest>): void {
  const declare = (title: string, run: (t: ExecutionContext, opened: StoreUnderTest) => Promise<void>): void => {
    test(`${name}: ${title}`, async (t) => {
      const opened = await open();
      try {
        await run(t, opened);
      } finally {
        await opened.cleanup();
      }
    });
  };

  declare('reads requests, rollup rows and the ledger as they were written', async (t, { store }) => {
    const requests = [
      request(),
      request({
        timeMs: hourMs + 1,
        timeNs: 999_999,
        host: '',
        method: '',
        uri: '',
        endpoint: '/users/:id',
        durationMs: null,
        clientIp: '',
        userAgent: '',
        referrer: '',
        protocol: '',
        tls: '',
        upstreamMs: null,
        requestId: '',
      }),
    ];
    const ledger = snapshot();
    await store.write(batchOf({ requests, ledger }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.toReversed());
    for (const scope of ['all', 'host'] as const)
      for (const level of levelsOf[scope]) await holdsRollups(t, store, requests, { level, scope });
    t.deepEqual(await store.readLedgers({ sinceMs: 0 }), [ledger]);
    await store.ping();
    await store.pingToWrite();
  });

  declare('stores requests of one series with the same time from two recorders', async (t, { store }) => {
    const requests = ['collector-1', 'collector-2'].map((uri) => request({ uri }));
    for (const each of requests) await store.write(writerOf(each.uri)({ requests: [each] }));
    const read = await store.readRequests({ ...aroundHour, filter: {}, limit: 10 });
    t.deepEqual(read.map(({ uri }) => uri).toSorted(), ['collector-1', 'collector-2']);
  });

  declare('has all rows after it is closed and reopened', async (t, opened) => {
    const batch = batchOf({ requests: [request()], ledger: snapshot() });
    await opened.store.write(batch);
    const reopened = await opened.reopen();
    await holdsOnly(t, reopened, batch);
  });

  declare('adds nothing when the same batch is written again, even after a restart', async (t, opened) => {
    const requests = Array.from({ length: 20 }, (_, index) => request({ timeNs: index, size: index }));
    const batch = batchOf({ requests, ledger: snapshot() });
    await opened.store.write(batch);
    await opened.store.write(batch);
    await holdsOnly(t, opened.store, batch);
    const reopened = await opened.reopen();
    await reopened.write(batch);
    await holdsOnly(t, reopened, batch);
  });

  declare('accepts an empty batch in an empty store', async (t, { store }) => {
    await store.write(batchOf({}));
    await holdsOnly(t, store, batchOf({}));
    await store.ping();
  });

  declare('encodes requests without changes, and writes them like an array', async (t, { store }) => {
    const encoder = store.createBatchEncoder!('collector-1');
    const writer = writerOf('collector-1');
    const all: RequestEvent[] = [];
    for (const count of [5003, 0, 7]) {
      const requests = Array.from({ length: count }, (_, index) =>
        request({
          timeMs: hourMs + all.length,
          timeNs: index,
          uri: awkwardTexts[index % awkwardTexts.length]!,
          userAgent: `agent ${index}`,
          durationMs: index % 7 === 0 ? null : index / 1e6,
          upstreamMs: index % 5 === 0 ? index : null,
          size: index === 3 ? Number.MAX_SAFE_INTEGER : index,
          requestId: index % 3 === 0 ? '' : `id-${index}`,
        }),
      );
      for (const each of requests) encoder.add(each);
      t.is(encoder.length, count);
      t.is(encoder.bytes > 0, count > 0);
      const taken = encoder.take();
      t.deepEqual([taken.requests.length, encoder.length, encoder.bytes], [count, 0, 0]);
      sameRequests(t, [...taken.requests], requests);
      const batch = writer({ requests: taken.requests });
      await store.write(batch);
      await store.write(batch);
      all.push(...requests);
    }
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10_000 }), all.toReversed());
  });

  declare('remembers imported requests once, and lists the imports', async (t, opened) => {
    const { store } = opened;
    t.deepEqual(
      [await store.listImports(), await store.readImported({ fromMs: 0, toMs: Date.UTC(2200, 0) })],
      [[], []],
    );
    const entry = (timeMs: number, source = 'caddy') => ({ source, timeMs, timeNs: 7, shiftNs: 3, key: timeMs });
    const first = packImported(1001, [
      entry(hourMs),
      entry(hourMs + 1),
      entry(hourMs + 2),
      entry(hourMs + 3_600_000),
      entry(hourMs, 'a "source", with=\\'),
    ]);
    const second = packImported(2002, [entry(hourMs + 5)]);
    const batch = batchOf({ requests: [request()], imported: first });
    await store.write(batch);
    await store.write(batch);
    await store.write(writerOf('import')({ imported: second }));
    const order = (rows: readonly ImportedRow[]): string[] =>
      rows.map((row) => JSON.stringify([row.importId, row.windowMs, row.rowId, row.source, row.packed])).toSorted();
    const check = async (each: Store): Promise<void> => {
      t.deepEqual(await each.listImports(), [
        { importId: 1001, requests: 5, firstHourMs: hourMs, lastHourMs: hourMs + 3_600_000 },
        { importId: 2002, requests: 1, firstHourMs: hourMs, lastHourMs: hourMs },
      ]);
      t.deepEqual(
        order(await each.readImported({ fromMs: hourMs, toMs: hourMs + 3_600_001 })),
        order([...first, ...second]),
      );
      t.deepEqual(
        order(await each.readImported({ fromMs: hourMs + 1, toMs: hourMs + 3_600_001 })),
        order(first.filter(({ windowMs }) => windowMs > hourMs)),
      );
    };
    await check(store);
    await check(await opened.reopen());
  });

  declare('reads rows of top lists as they were written, by level, kind, source and host', async (t, { store }) => {
    const rows = topLevels.flatMap((level) =>
      topKinds.flatMap((kind) =>
        ['caddy', '', 'a "source", with=\\'].flatMap((source) => [
          top({ level, windowMs: dayMs, kind, source, packed: `${level} ${kind} ${source}` }),
          ...(kind === 'unique_clients'
            ? ['a.example', 'b.example'].map((host) =>
                top({ level, windowMs: dayMs, kind, source, host, rowId: rowIdEnd - 1 }),
              )
            : []),
        ]),
      ),
    );
    await store.write(batchOf({ topLists: rows }));
    const range = { fromMs: dayMs, toMs: dayMs + 1 };
    for (const level of topLevels) {
      const queries: Omit<TopListsQuery, 'fromMs' | 'toMs' | 'level'>[] = [
        { kinds: topKinds, filter: {} },
        { kinds: [], filter: {} },
        { kinds: ['client'], filter: {} },
        { kinds: ['client', 'path'], filter: { source: 'caddy' } },
        { kinds: topKinds, filter: { source: '' } },
        { kinds: topKinds, filter: { source: 'a "source", with=\\' } },
        { kinds: ['unique_clients'], filter: { host: 'a.example' } },
        { kinds: ['unique_clients'], filter: { source: 'caddy', host: '' } },
        { kinds: topKinds, filter: { source: 'none' } },
      ];
      for (const {
        kinds,
        filter: { source, host },
      } of queries) {
        const expected = rows.filter(
          (row) =>
            row.level === level &&
            kinds.includes(row.kind) &&
            (source === undefined || row.source === source) &&
            (host === undefined || row.host === host),
        );
        sameTopLists(
          t,
          await store.readTopLists({
            ...range,
            level,
            kinds,
            filter: { ...(source !== undefined && { source }), ...(host !== undefined && { host }) },
          }),
          expected,
          `${level} ${kinds.join()} ${source} ${host}`,
        );
      }
      t.deepEqual(
        await store.readTopLists({
          fromMs: dayMs + 1,
          toMs: dayMs + level * 1000,
          level,
          kinds: topKinds,
          filter: {},
        }),
        [],
      );
    }
  });

  declare(
    'replaces a row of a top list but no others of its window, and reads back any text of 60,000 bytes',
    async (t, { store }) => {
      const writer = writerOf();
      const awkward = awkwardTexts
        .filter((text) => text !== '')
        .map((packed, rowId) => top({ windowMs: hourMs + 3_600_000, rowId, packed: JSON.stringify([packed]) }));
      const large = top({ rowId: 9, packed: '"\\€🙂\\"'.repeat(4000).slice(0, 15_000) });
      await store.write(writer({ topLists: [top({ packed: 'old' }), top({ rowId: 8 }), ...awkward] }));
      await store.write(writer({ topLists: [top({ packed: 'new' }), large] }));
      const read = async (fromMs: number): Promise<TopRow[]> =>
        await store.readTopLists({ fromMs, toMs: fromMs + 60_000, level: 60, kinds: ['path'], filter: {} });
      sameTopLists(t, await read(hourMs), [top({ packed: 'new' }), top({ rowId: 8 }), large]);
      sameTopLists(t, await read(hourMs + 3_600_000), awkward);
    },
  );

  declare(
    'adds up batches of one or several writers in the rollups of both scopes, even after a restart',
    async (t, opened) => {
      const requests = Array.from({ length: 60 }, (_, index) =>
        request({
          timeMs: hourMs + 1009 * index,
          timeNs: index,
          source: ['caddy', 'app'][index % 2]!,
          host: ['a.example', 'b.example', ''][index % 3]!,
          method: ['GET', 'PUT'][(index % 5) % 2]!,
          status: [200, 404, 503][(index % 7) % 3]!,
          durationMs: 1.5 ** (index % 30),
          size: index,
        }),
      );
      const writers = [writerOf('collector-1'), writerOf('collector-2')];
      const hold = async (store: Store, some: readonly RequestEvent[]): Promise<void> => {
        for (const [level, scope] of [
          [10, 'all'],
          [60, 'all'],
          [60, 'host'],
          [86_400, 'host'],
        ] as const)
          await holdsRollups(t, store, some, { level, scope });
      };
      for (let at = 0; at < 40; at += 10)
        await opened.store.write(writers[(at / 10) % 2]!({ requests: requests.slice(at, at + 10) }));
      await hold(opened.store, requests.slice(0, 40));
      const reopened = await opened.reopen();
      await hold(reopened, requests.slice(0, 40));
      for (let at = 40; at < 60; at += 10)
        await reopened.write(writers[(at / 10) % 2]!({ requests: requests.slice(at, at + 10) }));
      await hold(reopened, requests);
    },
  );

  declare('stores the sampled requests of a batch, and counts the others in its rollups', async (t, { store }) => {
    const requests = Array.from({ length: 5 }, (_, index) => request({ timeNs: index }));
    const writer = writerOf();
    await store.write(writer({ requests, kept: requests.slice(3) }));
    await store.write(writer({ requests, kept: [] }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.slice(3).toReversed());
    for (const scope of ['all', 'host'] as const) {
      const cells = (await store.readRollups({ ...aroundHour, level: 60, scope, filter: {} })).flatMap(
        (row) => row.cells,
      );
      t.deepEqual(
        ['count', 'sampledOut'].map((name) =>
          cells.reduce((sum, cell) => sum + cell[name as 'count' | 'sampledOut'], 0),
        ),
        [10, 8],
      );
    }
  });

  declare('counts hosts over windows of several levels, under any filter', async (t, { store }) => {
    const requests = Array.from({ length: 90 }, (_, index) =>
      request({
        timeMs: hourMs - 3_000_000 + 60_013 * index,
        timeNs: index,
        source: ['caddy', 'app'][index % 2]!,
        host: ['a.example', 'b.example', ''][index % 3]!,
        method: ['GET', 'PUT'][(index % 5) % 2]!,
        status: [200, 404, 503][(index % 7) % 3]!,
        size: index,
      }),
    );
    for (let at = 0; at < 90; at += 45) await store.write(batchOf({ requests: requests.slice(at, at + 45) }));
    const parts = [
      { level: 600, fromMs: hourMs - 1_200_000, toMs: hourMs },
      { level: 3600, fromMs: hourMs, toMs: hourMs + 3_600_000 },
    ] as const;
    const inParts = requests.filter(({ timeMs }) => timeMs >= hourMs - 1_200_000 && timeMs < hourMs + 3_600_000);
    for (const filter of [
      {},
      { source: 'app' },
      { exceptSource: 'app' },
      { host: 'a.example' },
      { method: 'GET' },
      { status: { min: 500, max: 599 }, source: 'caddy' },
      { source: 'none' },
    ] satisfies Filter[]) {
      const expected = groupBy(
        inParts.filter((one) => takesSeries(filter, one)),
        ({ source, host }) => JSON.stringify([source, host]),
      );
      const counts = await store.countHosts({ parts, filter });
      t.deepEqual(
        counts.toSorted(byName).map((each) => ({ ...each })),
        [...expected.values()]
          .map((some) => ({
            source: some[0]!.source,
            host: some[0]!.host,
            requests: some.length,
            errors: some.filter(({ status }) => status >= 500).length,
            clientErrors: some.filter(({ status }) => status >= 400 && status <= 499).length,
            bytes: some.reduce((sum, { size }) => sum + size, 0),
          }))
          .toSorted(byName),
        JSON.stringify(filter),
      );
    }
    t.deepEqual(await store.countHosts({ parts: [], filter: {} }), []);
    for (const hosts of [
      ['b.example', 'none'],
      [''],
      [],
      ['a.example', '', ...Array.from({ length: 500 }, (_, at) => `none.${at}|(.example`)],
    ]) {
      await holdsRollups(
        t,
        store,
        requests.filter(({ host }) => hosts.includes(host)),
        { level: 3600, scope: 'host', hosts },
      );
    }
  });

  declare(
    'counts all requests in rollups and top lists with any sample ratio, and exactly how many are not stored',
    async (t, { store }) => {
      const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
      let timeMs = hourMs;
      const sample = fc.record({
        host: fc.constantFrom('a.example', 'b.example'),
        status: fc.constantFrom(200, 500),
        uri: fc.constantFrom('/', '/a', '/b'),
        size: fc.nat({ max: 1000 }),
        requestId: fc.constantFrom('', 'one', 'two', 'three'),
      });
      await fc.assert(
        fc.asyncProperty(
          fc.array(sample, { minLength: 1, maxLength: 60 }),
          fc.constantFrom(0, 0.01, 0.3, 0.9, 1),
          async (samples, sampleRatio) => {
            timeMs += 600_000;
            const range = { fromMs: timeMs, toMs: timeMs + 600_000 };
            const requests = samples.map((each, at) => request({ ...each, timeMs: timeMs + 100 * Math.floor(at / 3) }));
            const recorder = createRecorder({
              store,
              log,
              name: 'sampled',
              hostsMax: 10,
              clientIp: 'full',
              sampleRatio,
              drainMsMax: 60_000,
              now: () => timeMs,
            });
            for (const each of requests) recorder.record(each);
            t.is(await recorder.close(), 0);
            const cellsOf = async (level: Level, scope: Scope): Promise<Cell[]> =>
              (await store.readRollups({ ...range, level, scope, filter: {} })).flatMap((row) => row.cells);
            const sum = (cells: readonly Cell[], of: (cell: Cell) => number): number =>
              cells.reduce((all, cell) => all + of(cell), 0);
            const kept = await until('the sampled requests are stored', async () => {
              const [cells, found] = [
                await cellsOf(10, 'all'),
                await store.readRequests({ ...range, filter: {}, limit: 100 }),
              ];
              return (
                sum(cells, ({ count }) => count) === samples.length &&
                sum(cells, ({ sampledOut }) => sampledOut) === samples.length - found.length &&
                found
              );
            });
            if (sampleRatio === 0) t.is(kept.length, 0);
            if (sampleRatio === 1) t.is(kept.length, samples.length);
            for (const [level, scope] of [
              [10, 'all'],
              [60, 'all'],
              [600, 'all'],
              [60, 'host'],
              [600, 'host'],
            ] as const) {
              const cells = await cellsOf(level, scope);
              t.is(
                sum(cells, ({ sizeSum }) => sizeSum),
                samples.reduce((all, { size }) => all + size, 0),
                `${level} s`,
              );
              t.is(
                sum(cells, ({ histogram }) => histogram.total),
                samples.length,
              );
              for (const status of [200, 500]) {
                const ofStatus = cells.filter((cell) => cell.status === status);
                t.is(
                  sum(ofStatus, ({ count }) => count),
                  samples.filter((each) => each.status === status).length,
                );
                t.is(
                  sum(ofStatus, ({ count, sampledOut }) => count - sampledOut),
                  kept.filter((each) => each.status === status).length,
                  `${level} s`,
                );
              }
            }
            const [list] = await store.readTopLists({ ...range, level: 600, kinds: ['path'], filter: {} });
            t.is(SpaceSaving.unpack(list!.packed).total, samples.length);
          },
        ),
        { numRuns: 10 },
      );
    },
  );

  declare('stores 10,000 requests of one series, one nanosecond apart', async (t, { store }) => {
    const startNs = BigInt(hourMs) * 1_000_000n + 995_000n;
    const requests = Array.from({ length: 10_000 }, (_, index) =>
      request({ ...splitNanoseconds(startNs + BigInt(index)), size: index }),
    );
    await store.write(batchOf({ requests }));
    const read = await store.readRequests({ ...aroundHour, filter: {}, limit: 20_000 });
    t.is(read.length, 10_000);
    sameRequests(t, read, requests.toReversed());
  });

  declare('writes a batch of 12,345 requests and 6,000 rollup rows', async (t, { store }) => {
    // Twenty minutes of 250 hosts. InfluxDB is slow at reading raw requests of thousands of series.
    const requests = Array.from({ length: 12_345 }, (_, index) =>
      request({ timeMs: hourMs + 100 * index, status: 200 + (index % 5), host: `host-${index % 250}.example` }),
    );
    t.true(levelsOf.host.reduce((rows, level) => rows + rollUp(requests, level, 'host').length, 0) >= 6000);
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 20_000 }), requests.toReversed());
    for (const [level, scope] of [
      [10, 'all'],
      [60, 'host'],
    ] as const)
      await holdsRollups(t, store, requests, { level, scope });
  });

  declare(
    'reads the oldest window of each level and the newest of all by source, with any row ids, and none of an empty store',
    async (t, { store }) => {
      t.deepEqual([...(await store.readStoredWindows())], []);
      const requests = [
        request({ timeMs: hourMs + 20_001, source: 'app' }),
        request({ timeMs: hourMs + 30_000 }),
        request({ timeMs: hourMs + 19_999 }),
        request({ timeMs: hourMs + 3_600_000 }),
      ];
      await store.write(batchOf({ requests }));
      const stored = await store.readStoredWindows();
      const of = (source: string) => [
        [...stored.get(source)!.oldest].sort(([one], [other]) => one - other),
        stored.get(source)!.newestMs,
      ];
      t.deepEqual(
        [stored.size, of(series.source)],
        [
          2,
          [
            [
              [10, hourMs + 10_000],
              [60, hourMs],
              [600, hourMs],
              [3600, hourMs],
              [86_400, dayMs],
            ],
            hourMs + 3_600_000,
          ],
        ],
      );
      t.deepEqual(of('app'), [
        [
          [10, hourMs + 20_000],
          [60, hourMs],
          [600, hourMs],
          [3600, hourMs],
          [86_400, dayMs],
        ],
        hourMs + 20_000,
      ]);
    },
  );

  declare('returns nothing for a range without rows, an empty range and a reversed range', async (t, { store }) => {
    await store.write(batchOf({ requests: [request()], ledger: snapshot() }));
    const ranges = [
      { fromMs: hourMs + 3_600_000, toMs: hourMs + 7_200_000 },
      { fromMs: 0, toMs: 1000 },
      { fromMs: hourMs, toMs: hourMs },
      { fromMs: hourMs + 1000, toMs: hourMs - 1000 },
    ];
    for (const range of ranges) {
      t.deepEqual(await store.readRequests({ ...range, filter: {}, limit: 10 }), []);
      t.deepEqual(await store.readRollups({ ...range, level: 10, scope: 'all', filter: {} }), []);
    }
    t.deepEqual(await store.readLedgers({ sinceMs: hourMs + 1 }), []);
  });

  declare('includes the start of a range and excludes its end, to the nanosecond', async (t, { store }) => {
    const at = (timeMs: number, timeNs: number): RequestEvent => request({ timeMs, timeNs });
    const before = at(hourMs - 1, 999_999);
    const inside = [at(hourMs, 0), at(hourMs, 1), at(hourMs + 4999, 999_999)];
    const after = at(hourMs + 5000, 0);
    await store.write(batchOf({ requests: [before, ...inside, after] }));
    sameRequests(
      t,
      await store.readRequests({ fromMs: hourMs, toMs: hourMs + 5000, filter: {}, limit: 10 }),
      inside.toReversed(),
    );
  });

  declare('includes a window in a range if it starts there, with any row id and any range', async (t, { store }) => {
    const requests = [-2, -1, 0, 1, 2, 3].flatMap((step) =>
      [0, 5, 9999].map((offsetMs) => request({ timeMs: hourMs + step * 10_000 + offsetMs })),
    );
    await store.write(batchOf({ requests }));
    for (const [from, to] of [
      [0, 20_000],
      [0, 10_000],
      [0, 1],
      [1, 10_000],
      [1, 10_001],
      [-1, 0],
      [-1, 1],
      [8000, 9000],
      [-10_000, 30_001],
      [-3000, 27_000],
    ] as const) {
      const range = { fromMs: hourMs + from, toMs: hourMs + to };
      const expected = rollUp(requests, 10).filter((row) => row.windowMs >= range.fromMs && row.windowMs < range.toMs);
      sameRollups(
        t,
        await store.readRollups({ ...range, level: 10, scope: 'all', filter: {} }),
        expected,
        `${from} to ${to}`,
      );
    }
  });

  declare(
    'reads a window whole when its range ends within it, and not at all when it starts before the range',
    async (t, { store }) => {
      const requests = [0, 5, 59].map((minute) => request({ timeMs: hourMs + minute * 60_000 }));
      await store.write(batchOf({ requests }));
      for (const scope of ['all', 'host'] as const) {
        const read = (from: number, to: number): Promise<RollupRow[]> =>
          store.readRollups({ fromMs: hourMs + from, toMs: hourMs + to, level: 3600, scope, filter: {} });
        sameRollups(t, await read(0, 1), rollUp(requests, 3600, scope));
        t.deepEqual(await read(1, 3_600_000), []);
      }
    },
  );

  declare('matches exactly the rows of each filter', async (t, { store }) => {
    const all: Series[] = [];
    for (const source of ['caddy', 'app', '']) {
      for (const host of ['a.example', 'A.example', 'a.example2', '']) {
        for (const [method, status] of [
          ['GET', 200],
          ['POST', 404],
          ['GET', 400],
          ['', 499],
          ['GET', 500],
          ['GET', 0],
          ['GET', 101],
          ['GET', 599],
        ] as const)
          all.push({ source, host, method, status });
      }
    }
    const paths = ['/', '/a', '/a?', '/a?b=c', '/a/b', '/ab', '/a%3Fb', '', '?b'];
    const requests = all.map((one, index) =>
      request({ ...one, timeMs: hourMs + index, uri: paths[index % paths.length]! }),
    );
    await store.write(batchOf({ requests }));

    const filters: Filter[] = [
      {},
      { source: 'caddy' },
      { source: '' },
      { source: 'none' },
      { exceptSource: 'app' },
      { exceptSource: 'none', host: 'a.example' },
      { host: 'a.example' },
      { host: '' },
      { method: 'GET' },
      { method: '' },
      { status: { min: 404, max: 404 } },
      { status: { min: 400, max: 499 } },
      { status: { min: 0, max: 0 } },
      { status: { min: 0, max: 101 } },
      { status: { min: 101, max: 101 } },
      { status: { min: 1, max: 599 } },
      { status: { min: 405, max: 405 } },
      { status: { min: 500, max: 400 } },
      { source: 'app', host: 'a.example', method: 'GET', status: { min: 500, max: 599 } },
      { host: '*' },
      { host: '%' },
      { host: 'a_example' },
      { host: 'a.exampl' },
    ];
    for (const filter of filters) {
      const about = JSON.stringify(filter);
      for (const scope of filter.host === undefined ? (['all', 'host'] as const) : (['host'] as const))
        await holdsRollups(t, store, requests, { level: 600, scope, filter });
      sameRequests(
        t,
        await store.readRequests({ ...aroundHour, filter, limit: 1000 }),
        requests.filter((one) => takesSeries(filter, one)).toReversed(),
        about,
      );
    }
    for (const path of ['/', '/a', '/a/b', '/ab', '/a%3Fb', '', '/none', '%', '/_']) {
      for (const filter of [{ path }, { path, source: 'caddy', status: { min: 200, max: 499 } }]) {
        const expected = requests.filter(
          (one) => takesSeries(filter, one) && (one.uri === path || one.uri.startsWith(`${path}?`)),
        );
        sameRequests(
          t,
          await store.readRequests({ ...aroundHour, filter, limit: 1000 }),
          expected.toReversed(),
          JSON.stringify(filter),
        );
      }
    }
  });

  declare(
    'rejects a filter of rollup rows by path, client, user agent, referrer or request id',
    async (t, { store }) => {
      for (const filter of [
        { path: '/' },
        { client: '192.0.2.0' },
        { userAgent: 'curl' },
        { referrer: '' },
        { requestId: '7' },
      ]) {
        await t.throwsAsync(store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter }), {
          message: new RegExp(Object.keys(filter).join()),
        });
      }
      await t.throwsAsync(
        store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter: { host: 'a.example' } }),
        { message: /by host/ },
      );
    },
  );

  declare('rolls up raw requests under filters by any of their fields, alone and combined', async (t, { store }) => {
    const referrers = [
      'https://r.example/',
      'https://r.example/?q=1',
      'https://r.example/#a?b',
      'https://r.example/a',
      '',
    ];
    const requests = Array.from({ length: 300 }, (_, index) =>
      request({
        timeMs: hourMs - 100_000 + 997 * index,
        timeNs: index,
        source: index % 7 === 0 ? 'app' : 'caddy',
        status: [200, 200, 404, 500, 101, 0, 499][index % 7]!,
        method: ['GET', 'GET', 'CONNECT'][index % 3]!,
        durationMs: index % 11 === 0 ? null : index % 13 === 0 ? 0 : 0.01 * 1.07 ** index,
        size: index * 1000,
        uri: ['/', '/a', '/a?b=c'][index % 3]!,
        clientIp: ['192.0.2.0', '2001:db8::', ''][index % 4] ?? 'a"b',
        userAgent: ['curl/8', 'curl/8.1', ''][index % 3]!,
        referrer: referrers[index % 5]!,
        requestId: index % 2 === 0 ? `id-${index % 10}` : '',
      }),
    );
    await store.write(batchOf({ requests }));
    const filters: Filter[] = [
      { client: '192.0.2.0' },
      { client: '192.0.2.' },
      { client: '' },
      { client: 'a"b' },
      { userAgent: 'curl/8' },
      { userAgent: '' },
      { referrer: 'https://r.example/' },
      { referrer: 'https://r.example' },
      { referrer: '' },
      { requestId: 'id-2' },
      { requestId: '' },
      { path: '/a' },
      { path: '/a', client: '2001:db8::' },
      { path: '/a', client: '', userAgent: 'curl/8.1', source: 'caddy' },
      { client: '192.0.2.0', referrer: 'https://r.example/', status: { min: 200, max: 299 } },
      { client: 'none', userAgent: 'none' },
      { referrer: '', requestId: '' },
    ];
    for (const filter of filters) {
      const about = JSON.stringify(filter);
      const expected = requests.filter((one) => takesRequest(filter, one)).toReversed();
      sameRequests(t, await store.readRequests({ ...aroundHour, filter, limit: 1000 }), expected, about);
      sameRequests(t, await store.readRequests({ ...aroundHour, filter, limit: 3 }), expected.slice(0, 3), about);
      for (const [level, scope] of [
        [10, 'all'],
        [3600, 'all'],
        [3600, 'host'],
      ] as const) {
        const { rows, isBounded } = await store.rollUpRequests({
          ...aroundHour,
          level,
          scope,
          filter,
          requestsMax: 1000,
        });
        t.false(isBounded);
        sameRollups(t, rows, rollUp(expected, level, scope), about);
      }
    }
    const { rows, isBounded } = await store.rollUpRequests({
      ...aroundHour,
      level: 60,
      scope: 'all',
      filter: { path: '/a' },
      requestsMax: 20,
    });
    const matching = requests.filter((one) => takesRequest({ path: '/a' }, one)).toReversed();
    sameRollups(
      t,
      rows,
      rollUp(isBounded ? matching.slice(0, 20) : matching, 60),
      'all of them, or the newest, and it says which',
    );
  });

  declare(
    'computes top lists of raw requests by path, referrer, user agent and client, under any filter',
    async (t, { store }) => {
      const long = `/${'x'.repeat(300)}`;
      const requests = Array.from({ length: 400 }, (_, index) =>
        request({
          timeMs: hourMs - 100_000 + 997 * index,
          timeNs: index,
          source: index % 7 === 0 ? 'app' : 'caddy',
          status: [200, 200, 404, 500, 101, 0, 599, 499][index % 8]!,
          method: ['GET', 'POST', 'CONNECT'][index % 3]!,
          durationMs: index % 11 === 0 ? null : index % 13 === 0 ? 0 : 0.01 * 1.05 ** index,
          size: index * 1000,
          uri: ['/', '/a', '/a?b=c', '/a?b?c', '', `${long}1`, `${long}2`, '\ufeff/b', `/${index}`][index % 9]!,
          clientIp: ['192.0.2.0', '2001:db8::', ''][index % 4] ?? 'a"b',
          userAgent: ['curl/8', 'curl/8.1', ''][index % 3]!,
          referrer: ['https://r.example/', 'https://r.example/?q=1#a', 'https://r.example/#a?b', '?', ''][index % 5]!,
        }),
      );
      await store.write(batchOf({ requests }));
      const kinds = [...requestDimensions, 'unique_clients'] as const;
      const comparable = (bySource: ReadonlyMap<string, RequestLists>) =>
        [...bySource]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([source, { lists, clients }]) => ({
            source,
            clients,
            lists: requestDimensions.map((dimension) => ({
              ...lists.get(dimension),
              entries: lists
                .get(dimension)
                ?.entries.map(({ histogram, ...entry }) => ({ ...roundedSum(entry), histogram: histogram.pack() })),
            })),
          }));
      for (const filter of [
        {},
        { method: 'GET' },
        { path: '/a' },
        { source: 'caddy', status: { min: 500, max: 599 } },
        { client: '192.0.2.0', referrer: 'https://r.example/' },
        { userAgent: 'none' },
      ] satisfies Filter[]) {
        const about = JSON.stringify(filter);
        const expected = requests.filter((one) => takesRequest(filter, one));
        for (const valuesMax of [1000, 3]) {
          const { bySource, ofNewest } = await store.topListsOfRequests({
            ...aroundHour,
            filter,
            kinds,
            valuesMax,
            requestsMax: 1000,
          });
          t.is(ofNewest, undefined, about);
          t.deepEqual(
            comparable(bySource).filter(
              ({ lists, clients }) => clients > 0 || lists.some(({ total }) => total !== undefined),
            ),
            comparable(topListsOfRequests(expected, { kinds, valuesMax })),
            about,
          );
        }
      }
      const { bySource } = await store.topListsOfRequests({
        ...aroundHour,
        filter: { method: 'GET' },
        kinds: ['client'],
        valuesMax: 10,
        requestsMax: 1000,
      });
      t.deepEqual(
        [...bySource].map(([, { lists, clients }]) => [[...lists.keys()], clients]),
        [
          [['client'], 0],
          [['client'], 0],
        ],
        'at most the requested number',
      );
      const some = await store.topListsOfRequests({
        ...aroundHour,
        filter: { method: 'GET' },
        kinds: ['client'],
        valuesMax: 10,
        requestsMax: 20,
      });
      t.true(some.ofNewest === undefined || some.ofNewest === 20, 'all of them, or as many as are read');
    },
  );

  declare('returns the newest requests of all series first, up to the limit', async (t, { store }) => {
    const requests = Array.from({ length: 200 }, (_, index) =>
      request({
        timeMs: hourMs + ((index * 7919) % 3_600_000),
        timeNs: index,
        host: `host-${index % 13}.example`,
        status: index % 2 === 0 ? 200 : 500,
      }),
    );
    await store.write(batchOf({ requests: requests.slice(0, 120) }));
    await store.write(batchOf({ requests: requests.slice(120) }));
    const newestFirst = requests.toSorted((a, b) => b.timeMs - a.timeMs || b.timeNs - a.timeNs);
    for (const limit of [0, 1, 2, 50, 199, 200, 201]) {
      sameRequests(
        t,
        await store.readRequests({ ...aroundHour, filter: {}, limit }),
        newestFirst.slice(0, limit),
        `limit ${limit}`,
      );
    }
    const failed = newestFirst.filter((one) => one.status === 500);
    sameRequests(
      t,
      await store.readRequests({ ...aroundHour, filter: { status: { min: 500, max: 599 } }, limit: 5 }),
      failed.slice(0, 5),
    );
    const host = newestFirst.filter((one) => one.host === 'host-3.example');
    sameRequests(
      t,
      await store.readRequests({ ...aroundHour, filter: { host: 'host-3.example' }, limit: 3 }),
      host.slice(0, 3),
    );
  });

  declare('finds the newest requests of a range of a year, even near its start', async (t, { store }) => {
    const yearMs = 365 * 86_400_000;
    const requests = [0, 1, 86_400_000, yearMs / 2, yearMs - 1].map((offsetMs) =>
      request({ timeMs: hourMs + offsetMs }),
    );
    await store.write(batchOf({ requests }));
    const newestFirst = requests.toReversed();
    for (const limit of [1, 2, 4, 5, 100]) {
      sameRequests(
        t,
        await store.readRequests({ fromMs: hourMs, toMs: hourMs + yearMs, filter: {}, limit }),
        newestFirst.slice(0, limit),
        `limit ${limit}`,
      );
    }
  });

  declare('treats text with syntax of line protocol, Flux or SQL as text', async (t, { store }) => {
    const requests = awkwardTexts.map((text, index) => {
      const plain = text.replaceAll(/\p{Cc}/gu, '\ufffd');
      return request({
        timeMs: hourMs + index,
        source: plain,
        host: plain,
        method: plain,
        endpoint: plain,
        uri: text,
        userAgent: text,
        referrer: text,
        clientIp: text,
        protocol: text,
        tls: text,
      });
    });
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }), requests.toReversed());
    for (const scope of ['all', 'host'] as const) await holdsRollups(t, store, requests, { level: 60, scope });
    const range = { fromMs: hourMs, toMs: hourMs + 1000 };
    for (const [index, one] of requests.entries()) {
      const filter = { source: one.source, host: one.host, method: one.method };
      const about = JSON.stringify(one.uri);
      const same = requests.filter(({ host }) => host === one.host);
      sameRequests(t, await store.readRequests({ ...range, filter, limit: 1000 }), same.toReversed(), about);
      sameRollups(
        t,
        await store.readRollups({ ...range, level: 60, scope: 'host', filter }),
        rollUp(same, 60, 'host'),
        about,
      );
      const samePath = requests.filter(({ uri }) => uri === one.uri || uri.startsWith(`${one.uri}?`));
      sameRequests(
        t,
        await store.readRequests({ ...range, filter: { path: one.uri }, limit: 1000 }),
        samePath.toReversed(),
        about,
      );
      t.true(samePath.includes(requests[index]!));
      for (const text of [{ client: one.clientIp }, { userAgent: one.userAgent }]) {
        sameRequests(
          t,
          await store.readRequests({ ...range, filter: text, limit: 1000 }),
          requests.filter(({ uri }) => uri === one.uri).toReversed(),
          about,
        );
      }
    }
  });

  declare('reads any text as it was written, and filters by it', async (t, { store }) => {
    const writer = writerOf();
    let timeMs = hourMs;
    const text = fc.oneof(textArbitrary({ maxLength: 300 }), fc.constantFrom(...awkwardTexts));
    const tag = fc.oneof(textArbitrary({ maxLength: 255 }), fc.constantFrom(...awkwardTexts)).map((value) =>
      value
        .replaceAll(/\p{Cc}/gu, '\ufffd')
        .slice(0, 255)
        .toWellFormed(),
    );
    const texts = fc.record({
      source: tag,
      host: tag,
      method: tag,
      endpoint: tag,
      uri: text,
      userAgent: text,
      referrer: text,
      clientIp: text,
      protocol: text,
      tls: text,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(texts, { minLength: 1, maxLength: 30 }), async (samples) => {
        timeMs += 60_000;
        const range = { fromMs: timeMs, toMs: timeMs + 60_000 };
        const requests = samples.map((sample, index) => request({ ...sample, timeMs: timeMs + index }));
        await store.write(writer({ requests }));
        sameRequests(t, await store.readRequests({ ...range, filter: {}, limit: 100 }), requests.toReversed());
        sameRollups(
          t,
          await store.readRollups({ ...range, level: 60, scope: 'host', filter: {} }),
          rollUp(requests, 60, 'host'),
        );
        const { source, host, method } = requests[0]!;
        sameRollups(
          t,
          await store.readRollups({ ...range, level: 60, scope: 'host', filter: { source, host, method } }),
          rollUp(
            requests.filter((one) => takesSeries({ source, host, method }, one)),
            60,
            'host',
          ),
        );
      }),
      { numRuns: 25 },
    );
  });

  declare('reads texts of 64 KiB completely', async (t, { store }) => {
    const requests = [
      request({ timeMs: hourMs, uri: `/${'u'.repeat(65_000)}` }),
      request({ timeMs: hourMs + 1, userAgent: '€'.repeat(21_000) }),
      request({ timeMs: hourMs + 2, referrer: '"\\\n '.repeat(16_000) }),
      request({
        timeMs: hourMs + 3,
        source: '€'.repeat(255),
        host: '\\'.repeat(255),
        method: ' '.repeat(255),
        endpoint: ',='.repeat(127),
      }),
    ];
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.toReversed());
  });

  declare('stores special statuses and numbers at their limits exactly', async (t, { store }) => {
    const numbers = [
      { status: 0, durationMs: 0, size: 0, bytesRead: 0 },
      { status: 101, durationMs: 86_400_000.123456, size: Number.MAX_SAFE_INTEGER, bytesRead: Number.MAX_SAFE_INTEGER },
      { status: 599, durationMs: 1e-6, size: 1, bytesRead: 1 },
      { status: 999, durationMs: 0.1 + 0.2, size: 2 ** 32, bytesRead: 2 ** 31 },
      { status: 100, durationMs: 1e21, size: 5, bytesRead: 5 },
    ];
    const requests = numbers.map((one, index) => request({ ...one, timeMs: hourMs + index }));
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.toReversed());
    await holdsRollups(t, store, requests, { level: 10, scope: 'all' });
  });

  declare('reads the newest ledger of each collector completely', async (t, { store }) => {
    const writer = writerOf();
    const oldA = snapshot({ collector: 'a', timeMs: hourMs, rejected: { 'not-json': 3, 'too-long': 1 } });
    const newA = snapshot({
      collector: 'a',
      timeMs: hourMs + 5000,
      received: 200,
      rejected: { 'not-json': 4 },
      dropped: {},
      warnings: { 'peers-not-allowed': 2, 'earlier-spooled': 7 },
      lastLineMs: null,
    });
    const onlyB = snapshot({
      collector: 'b, "the other" =\\',
      timeMs: hourMs + 1000,
      received: Number.MAX_SAFE_INTEGER,
    });
    const sorted = (rows: LedgerSnapshot[]): LedgerSnapshot[] =>
      rows.toSorted((x, y) => (x.collector < y.collector ? -1 : 1));
    await store.write(writer({ ledger: oldA }));
    await store.write(writer({ ledger: onlyB }));
    t.deepEqual(sorted(await store.readLedgers({ sinceMs: hourMs })), [oldA, onlyB]);
    await store.write(writer({ ledger: newA }));
    t.deepEqual(sorted(await store.readLedgers({ sinceMs: hourMs })), [newA, onlyB]);
    t.deepEqual(sorted(await store.readLedgers({ sinceMs: hourMs + 1001 })), [newA]);
    t.deepEqual(sorted(await store.readLedgers({ sinceMs: hourMs + 5000 })), [newA]);
    t.deepEqual(sorted(await store.readLedgers({ sinceMs: hourMs + 5001 })), []);
  });

  declare('finds a ledger of the last second among those of today', async (t, { store }) => {
    const ledger = snapshot({ timeMs: Date.now() });
    await store.write(batchOf({ ledger }));
    t.deepEqual(await store.readLedgers({ sinceMs: ledger.timeMs - 600_000 }), [ledger]);
  });

  declare('reads and writes concurrently', async (t, { store }) => {
    const requests = Array.from({ length: 300 }, (_, index) => request({ timeNs: index }));
    const running: Promise<unknown>[] = [];
    for (let at = 0; at < requests.length; at += 100) {
      // Separate writers: the rows of one writer are cumulative and have to be written in order.
      running.push(
        store.write(batchOf({ requests: requests.slice(at, at + 100), ledger: snapshot({ timeMs: hourMs + at }) })),
      );
      running.push(
        store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }),
        store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter: {} }),
        store.readLedgers({ sinceMs: 0 }),
        store.ping(),
      );
    }
    await Promise.all(running);
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }), requests.toReversed());
    await holdsRollups(t, store, requests, { level: 10, scope: 'all' });
    t.deepEqual(await store.readLedgers({ sinceMs: 0 }), [snapshot({ timeMs: hourMs + 200 })]);
  });

  declare(
    'waits for pending writes on close, can be closed again, and rejects everything afterwards',
    async (t, opened) => {
      const { store } = opened;
      const batch = batchOf({ requests: [request()], ledger: snapshot() });
      const writing = store.write(batch);
      await store.close();
      await writing;
      await store.close();
      const uses: [string, () => Promise<unknown>][] = [
        ['write', () => store.write(batchOf({ requests: [request()] }))],
        ['readRollups', () => store.readRollups({ ...aroundHour, level: 10, scope: 'all', filter: {} })],
        ['countHosts', () => store.countHosts({ parts: [{ ...aroundHour, level: 60 }], filter: {} })],
        ['readRequests', () => store.readRequests({ ...aroundHour, filter: {}, limit: 1 })],
        [
          'rollUpRequests',
          () => store.rollUpRequests({ ...aroundHour, level: 60, scope: 'all', filter: { path: '/' }, requestsMax: 1 }),
        ],
        [
          'listRequests',
          () => store.topListsOfRequests({ ...aroundHour, filter: {}, kinds: ['path'], valuesMax: 1, requestsMax: 1 }),
        ],
        ['readTops', () => store.readTopLists({ ...aroundHour, level: 60, kinds: ['path'], filter: {} })],
        ['readLedgers', () => store.readLedgers({ sinceMs: 0 })],
        ['ping', () => store.ping()],
        ['pingToWrite', () => store.pingToWrite()],
      ];
      for (const [use, run] of uses) {
        const error = await t.throwsAsync(run(), { instanceOf: StoreError, message: /closed/ }, use);
        t.is(error.action, 'stop', use);
      }
      await holdsOnly(t, await opened.reopen(), batch);
    },
  );
}

/** 20:00 on an autumn evening, and the preceding midnight, where windows of every level start. */
const dayMs = Date.UTC(2026, 10, 23);
const hourMs = Date.UTC(2026, 10, 23, 20);
const aroundHour = { fromMs: hourMs - 3_600_000, toMs: hourMs + 3_600_000 };

const series: Series = { source: 'caddy', host: 'shop.example', method: 'GET', status: 200 };

/** Each has a special meaning somewhere: in line protocol, Flux, SQL, CSV, JSON, LIKE or a regular expression. */
const awkwardTexts = [
  '',
  ' ',
  '  ',
  ' lead and trail ',
  '"',
  '""',
  '"quoted"',
  "'",
  "''",
  '\\',
  '\\\\',
  '\\\\\\',
  'end\\',
  '\\,',
  '\\ ',
  '\\=',
  '\\\\,',
  'a\\,b',
  '\\"',
  '"\\',
  '\\n',
  '\\\\n',
  '\\x41',
  '\\u0041',
  ',',
  ',,',
  '=',
  'a=b,c=d',
  'a b',
  '$',
  '${1}',
  '${r.host}',
  '$"',
  '$\\',
  '$${',
  '$") |> drop() //',
  '{',
  '}',
  '{}',
  '#',
  '# comment',
  '//',
  '/* */',
  '--',
  ';',
  '|>',
  '`',
  '~',
  '!',
  '@',
  '^',
  '&',
  '*',
  '(',
  ')',
  '[',
  ']',
  '<',
  '>',
  '?',
  '/',
  '.*',
  '^$',
  '%',
  '_',
  '%s',
  '%25',
  '%00',
  '\\%',
  '\\_',
  "'; DROP TABLE requests; --",
  '"; DROP TABLE requests; --',
  '")\n|> drop()',
  '") |> yield(name: "x")',
  '" or true or "',
  "' OR '1'='1",
  '$$',
  '$1',
  '?1',
  ':name',
  '@name',
  '\n',
  '\r',
  '\r\n',
  '\n\n',
  'a\nb',
  'a\rb',
  'a\r\nb',
  '\ta\t',
  '\v\f',
  '\u0001',
  '\u001b[31m',
  '\u007f',
  '\u0080',
  '\u0085',
  '\u00a0',
  '\u00ad',
  '\u200b',
  '\u2028',
  '\u2029',
  '\ufeff',
  'a\ufeffb',
  '\ufffd',
  '\uffff',
  '\u{10ffff}',
  'é',
  'e\u0301',
  'ünïcödé',
  'пример.рф',
  '例え.jp',
  'مثال',
  '🙂',
  '👩‍👩‍👧‍👦',
  '🏳️‍🌈',
  'ß',
  'İ',
  'null',
  'NULL',
  'undefined',
  'true',
  'false',
  'NaN',
  '0',
  '1i',
  '-0',
  '1e999',
  '_other',
  '__proto__',
  'constructor',
  'time',
  '_time',
  '_value',
  '_field',
  '_measurement',
  'a,b\nc,d',
  '#datatype,string',
  'x\r\n\r\n#group,true',
  '"a""b"',
  '{"json": "\\u0000"}',
  '<script>alert(1)</script>',
];

function textArbitrary({ maxLength }: { maxLength: number }): fc.Arbitrary<string> {
  const special = fc.constantFrom('\\', '"', "'", ',', '=', ' ', '\n', '\r', '\t', '$', '{', '}', '%', '_', '?', '/');
  return fc
    .string({
      unit: fc.oneof({ weight: 2, arbitrary: special }, fc.string({ unit: 'binary', minLength: 1, maxLength: 1 })),
      maxLength,
    })
    .map((text) => text.slice(0, maxLength).toWellFormed().replaceAll('\0', '\ufffd'));
}

function request(part: Partial<RequestEvent> = {}): RequestEvent {
  return {
    ...series,
    timeMs: hourMs,
    timeNs: 0,
    durationMs: 6.3125,
    size: 1234,
    bytesRead: 56,
    uri: '/path?query=1',
    endpoint: '',
    clientIp: '192.0.2.0',
    userAgent: 'Mozilla/5.0 (X11; Linux x86_64)',
    referrer: 'https://example.org/',
    protocol: 'HTTP/2.0',
    tls: 'TLS 1.3',
    upstreamMs: 4.25,
    requestId: 'a05d97e2-8977-4d54',
    ...part,
  };
}

function top(part: Partial<TopRow> = {}): TopRow {
  return {
    level: 60,
    windowMs: hourMs,
    rowId: 7,
    source: 'caddy',
    host: '',
    kind: 'path',
    packed: '[3,0,[["/a",0,0,3,1,1,5,"AA=="]]]',
    ...part,
  };
}

function snapshot(part: Partial<LedgerSnapshot> = {}): LedgerSnapshot {
  return {
    collector: 'edge-1',
    timeMs: hourMs,
    received: 100,
    accepted: 80,
    runtime: 10,
    rejected: { 'not-json': 6, 'too-long': 1 },
    dropped: { 'memory-full': 3 },
    stored: 70,
    spooled: 5,
    inMemory: 4,
    deadLettered: 1,
    warnings: {},
    lastLineMs: hourMs - 1,
    ...part,
  };
}

/** Returns a function that creates the batches of one writer, as a recorder with this name does. */
function writerOf(
  recorder = 'collector-1',
): (parts: Partial<Pick<Batch, 'requests' | 'kept' | 'topLists' | 'ledger' | 'imported'>>) => Batch {
  const writer = randomUUID();
  const batchAggregates = new BatchAggregates(() => hourMs);
  const open = new OpenRollups();
  let sequence = 0;
  return ({ requests = [], kept, topLists = [], ledger, imported }) => {
    sequence += 1;
    const isSampled = kept && new Set(kept);
    for (const each of requests) batchAggregates.add(each, undefined, undefined, isSampled?.has(each));
    const aggregates = batchAggregates.take();
    return {
      recorder,
      writer,
      sequence,
      requests,
      kept,
      aggregates,
      rollups: open.copiesOf(open.merge(aggregates, hourMs)),
      topLists,
      ledger,
      imported,
    };
  };
}

/** The first batch of a new writer. */
function batchOf(parts: Partial<Pick<Batch, 'requests' | 'topLists' | 'ledger' | 'imported'>>): Batch {
  return writerOf()(parts);
}

async function holdsOnly(t: ExecutionContext, store: Store, { requests, ledger }: Batch): Promise<void> {
  sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }), [...requests].reverse());
  for (const [level, scope] of [
    [10, 'all'],
    [60, 'host'],
  ] as const)
    await holdsRollups(t, store, [...requests], { level, scope });
  t.deepEqual(await store.readLedgers({ sinceMs: 0 }), ledger === undefined ? [] : [ledger]);
}

/** Asserts that the rollups of a level and scope agree with the requests that match the filter. */
async function holdsRollups(
  t: ExecutionContext,
  store: Store,
  requests: readonly RequestEvent[],
  { level, scope, filter = {}, hosts }: { level: Level; scope: Scope; filter?: Filter; hosts?: readonly string[] },
): Promise<void> {
  const read = await store.readRollups({
    fromMs: dayMs,
    toMs: dayMs + 86_400_000,
    level,
    scope,
    filter,
    ...(hosts && { hosts }),
  });
  sameRollups(
    t,
    read,
    rollUp(
      requests.filter((one) => takesSeries(filter, one)),
      level,
      scope,
    ),
    JSON.stringify([level, scope, filter]),
  );
}

function byName(
  one: { readonly source: string; readonly host: string },
  other: { readonly source: string; readonly host: string },
): number {
  return one.source + one.host < other.source + other.host ? -1 : 1;
}

function takesRequest(
  { path, client, userAgent, referrer, requestId, ...ofSeries }: Filter,
  one: RequestEvent,
): boolean {
  return (
    takesSeries(ofSeries, one) &&
    (path === undefined || topValueOf.path(one) === path) &&
    (client === undefined || one.clientIp === client) &&
    (userAgent === undefined || one.userAgent === userAgent) &&
    (referrer === undefined || topValueOf.referrer(one) === referrer) &&
    (requestId === undefined || one.requestId === requestId)
  );
}

/** Rounds sums of durations, which depend on the order of addition. */
function roundedSum<Row extends { readonly durationSumMs: number }>(row: Row): Row {
  return { ...row, durationSumMs: Number(row.durationSumMs.toPrecision(12)) };
}

function takesSeries({ source, exceptSource, host, method, status }: Filter, one: Series): boolean {
  return (
    (source === undefined || one.source === source) &&
    one.source !== exceptSource &&
    (host === undefined || one.host === host) &&
    (method === undefined || one.method === method) &&
    (status === undefined || (one.status >= status.min && one.status <= status.max))
  );
}

/** Asserts the same requests in the same order. */
function sameRequests(
  t: ExecutionContext,
  read: readonly RequestEvent[],
  expected: readonly RequestEvent[],
  about?: string,
): void {
  sameTexts(t, read.map(describeRequest), expected.map(describeRequest), about);
}

/** Asserts the same rows in any order, after adding up those with the same key. */
function sameRollups(
  t: ExecutionContext,
  read: readonly RollupRow[],
  expected: readonly RollupRow[],
  about?: string,
): void {
  sameTexts(t, describeRollups(read), describeRollups(expected), about);
}

/** Asserts the same rows in any order. */
function sameTopLists(t: ExecutionContext, read: readonly TopRow[], expected: readonly TopRow[], about?: string): void {
  const describe = ({ level, windowMs, rowId, source, host, kind, packed }: TopRow): string =>
    JSON.stringify([level, windowMs, rowId, source, host, kind, packed]);
  sameTexts(t, read.map(describe).toSorted(), expected.map(describe).toSorted(), about);
}

/** A short assertion, without a diff of ten thousand rows or 64 KiB. */
function sameTexts(t: ExecutionContext, read: readonly string[], expected: readonly string[], about?: string): void {
  t.is(read.length, expected.length, about);
  const row = expected.findIndex((text, index) => text !== read[index]);
  const [readRow = '', wantedRow = ''] = [read[row], expected[row]];
  let at = 0;
  while (at < wantedRow.length && readRow[at] === wantedRow[at]) at += 1;
  const near = (text: string): string => text.slice(Math.max(0, at - 40), at + 40);
  t.is(near(readRow), near(wantedRow), about);
}

function describeRequest(event: RequestEvent): string {
  const known: Record<keyof RequestEvent, unknown> = {
    timeMs: event.timeMs,
    timeNs: event.timeNs,
    source: event.source,
    host: event.host,
    method: event.method,
    status: event.status,
    durationMs: event.durationMs,
    size: event.size,
    bytesRead: event.bytesRead,
    uri: event.uri,
    endpoint: event.endpoint,
    clientIp: event.clientIp,
    userAgent: event.userAgent,
    referrer: event.referrer,
    protocol: event.protocol,
    tls: event.tls,
    upstreamMs: event.upstreamMs,
    requestId: event.requestId,
  };
  return `${rfc3339(event)} ${JSON.stringify(known)} ${Object.keys(event).length}`;
}

function describeRollups(rows: readonly RollupRow[]): string[] {
  const cells = new Map<string, Cell>();
  for (const { level, windowMs, source, host, cells: ofRow } of rows) {
    for (const { method, status, ...aggregate } of ofRow) {
      const key = JSON.stringify([level, windowMs, source, host ?? null, method, status]);
      const found = cells.get(key);
      if (found === undefined) cells.set(key, { method, status, ...copyAggregate(aggregate) });
      else mergeAggregate(found, aggregate);
    }
  }
  return [...cells]
    .map(([key, cell]) => {
      const { count, sampledOut, durationSumMs, durationMaxMs, sizeSum, histogram } = roundedSum(cell);
      return `${key} ${JSON.stringify({ count, sampledOut, durationSumMs, durationMaxMs, sizeSum, total: histogram.total, histogram: histogram.pack() })}`;
    })
    .toSorted();
}
