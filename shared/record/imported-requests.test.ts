import test from 'ava';
import fc from 'fast-check';
import { event } from '../../test/web-samples.js';
import { importKey, packImported, unpackImported, type ImportedRequest } from './imported-requests.js';
import { importRowIds, importRowRange, newImportId, rowIdEnd, sharedImportId, windowStart } from '../rollup/rollup.js';

const imported: fc.Arbitrary<ImportedRequest> = fc.record({
  source: fc.constantFrom('caddy', 'app', ''),
  timeMs: fc.integer({ min: 0, max: Date.UTC(2200, 0) }),
  timeNs: fc.integer({ min: 0, max: 999_999 }),
  shiftNs: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  key: fc.integer({ min: 0, max: 2 ** 48 - 1 }),
});

test('unpacks what was packed, in rows of one hour and source', (t) => {
  fc.assert(
    fc.property(fc.array(imported, { maxLength: 50 }), (requests) => {
      const rows = packImported(7, requests);
      const order = (list: readonly ImportedRequest[]): string[] =>
        list.map((each) => JSON.stringify([each.source, each.timeMs, each.timeNs, each.shiftNs, each.key])).toSorted();
      t.deepEqual(order(rows.flatMap(unpackImported)), order(requests));
      for (const row of rows)
        for (const { timeMs, source } of unpackImported(row))
          t.deepEqual([windowStart(timeMs, 3600), source], [row.windowMs, row.source]);
    }),
  );
});

test('packs no more into a row than InfluxDB accepts in a string', (t) => {
  const requests = Array.from({ length: 10_000 }, (_, at) => ({
    source: 'caddy',
    timeMs: at,
    timeNs: 0,
    shiftNs: 0,
    key: at,
  }));
  const rows = packImported(7, requests);
  t.true(rows.every(({ packed }) => packed.length <= 64 * 1024));
  t.is(rows.flatMap(unpackImported).length, 10_000);
});

test('computes the key of a request from its time and fields, except host and client', (t) => {
  const request = event({ timeMs: 1000 });
  for (const part of [{ timeMs: 1001 }, { timeNs: 1 }, { uri: '/other' }, { status: 404 }, { size: 99 }])
    t.not(importKey({ ...request, ...part }), importKey(request), JSON.stringify(part));
  t.is(importKey({ ...request, host: '_other', clientIp: '' }), importKey(request));
});

test('assigns row ids that no other import or collector uses, and that fit into the finest window', (t) => {
  const nowMs = Date.UTC(2026, 10, 29);
  const taken: number[] = [];
  for (let at = 0; at < 50; at += 1) taken.push(newImportId(nowMs, taken));
  const ranges = taken.map(importRowRange).toSorted((one, other) => one.from - other.from);
  for (const [at, { from, to }] of ranges.entries()) {
    t.true(from >= rowIdEnd && to <= 1e10);
    if (at > 0) t.true(from >= ranges[at - 1]!.to);
  }
  const everySlot = Array.from({ length: 30_000 }, (_, at) => nowMs + at);
  t.is(newImportId(nowMs, everySlot), sharedImportId);
});

test('assigns new ids to rows that an import opens again', (t) => {
  const ids = importRowIds(5);
  const { from, to } = importRowRange(5);
  t.deepEqual([ids.draw(), ids.draw()], [from, from]);
  ids.onClosed();
  t.is(ids.draw(), from + 1);
  t.true(ids.draw() < to);
});
