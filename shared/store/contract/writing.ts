import { splitNanoseconds, type RequestEvent } from '../../request-event.js';
import { rollUp } from '../../rollup/rollup-aggregator.js';
import { levelsOf } from '../../rollup/rollup.js';
import { holdsOnly, holdsRollups, sameRequests } from './assertions.js';
import { awkwardTexts } from './awkward-texts.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request, snapshot, writerOf } from './samples.js';

/** Declares the tests of writing batches. */
export function declareWriting(declare: Declare): void {
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
        error: '',
        errorId: '',
        upstream: '',
        retries: null,
        contentType: '',
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
    const encoder = store.createBatchEncoder('collector-1');
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
          error: awkwardTexts[(index + 1) % awkwardTexts.length]!,
          errorId: index % 4 === 0 ? '' : `error-${index}`,
          upstream: index % 6 === 0 ? '' : `10.0.0.${index % 250}:80`,
          retries: index % 2 === 0 ? null : index % 3,
          contentType: index % 7 === 0 ? '' : 'text/html',
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
}
