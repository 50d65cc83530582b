import test from 'ava';
import fc from 'fast-check';
import type { CaddyEvent } from '../caddy-event.js';
import { EventFolder, eventWindow, type EventRow } from './event-folder.js';

const startMs = Date.UTC(2026, 10, 29, 1, 46);

function event(overrides: Partial<CaddyEvent> = {}): CaddyEvent {
  return {
    timeMs: startMs,
    timeNs: 0,
    level: 'error',
    logger: 'http.log.error',
    message: 'dial tcp 10.0.0.3:80: connect: connection refused',
    error: '',
    reason: 'dial tcp 10.0.0.3:80: connect: connection refused',
    host: 'a.example',
    method: 'GET',
    uri: '/',
    status: 502,
    errorId: 'x',
    upstream: '10.0.0.3:80',
    fields: '',
    ...overrides,
  };
}

test('folds identical events of a minute, with the first one and the time of the last', (t) => {
  const folder = new EventFolder();
  for (const at of [0, 5, 59_999]) folder.add(event({ timeMs: startMs + at, errorId: `${at}`, uri: `/${at}` }));
  folder.add(event({ timeMs: startMs + 60_000 }));
  folder.add(event({ host: 'b.example' }));
  t.deepEqual(
    folder
      .drain(startMs)
      .map(({ windowMs, count, lastMs, event: { host, uri } }) => ({ windowMs, count, lastMs, host, uri })),
    [
      { windowMs: startMs + 60_000, count: 1, lastMs: startMs + 60_000, host: 'a.example', uri: '/' },
      { windowMs: startMs, count: 3, lastMs: startMs + 59_999, host: 'a.example', uri: '/0' },
      { windowMs: startMs, count: 1, lastMs: startMs, host: 'b.example', uri: '/' },
    ],
  );
});

test('writes only changed rows, with the same id and the whole count, at most once a second', (t) => {
  const folder = new EventFolder();
  folder.add(event());
  const [first] = folder.drain(startMs);
  t.deepEqual(folder.drain(startMs + 5000), []);
  folder.add(event());
  t.deepEqual(folder.drain(startMs + 500), []);
  t.deepEqual(folder.drain(startMs + 1000), [{ ...first!, count: 2 }]);
  folder.add(event());
  t.is(folder.drain(startMs - 86_400_000)[0]?.count, 3, 'the clock was set back by a day');
  folder.add(event());
  t.is(folder.drain(startMs - 86_400_000, { all: true })[0]?.count, 4);
});

test('counts every event, whatever their number, order and variety', (t) => {
  t.notThrows(() => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ message: fc.nat(400), minute: fc.nat(20), drains: fc.boolean() }), { maxLength: 2000 }),
        (events) => {
          const folder = new EventFolder();
          const rows = new Map<string, EventRow>();
          const store = (written: readonly EventRow[]): void => {
            for (const row of written) rows.set(`${row.windowMs} ${row.rowId}`, row);
          };
          for (const { message, minute, drains } of events) {
            folder.add(event({ timeMs: startMs + minute * 60_000, message: `${message}`, reason: '' }));
            if (drains) store(folder.drain(startMs, { all: true }));
          }
          store(folder.drain(startMs, { all: true }));
          const counted = [...rows.values()].reduce((sum, { count }) => sum + count, 0);
          return counted === events.length;
        },
      ),
      { numRuns: 30 },
    );
  });
});

test('bounds the rows of a minute', (t) => {
  const folder = new EventFolder();
  for (let at = 0; at < 10_000; at += 1)
    folder.add(event({ message: `${at}`, reason: '', logger: `http.${at % 3}`, timeMs: startMs + (at % 1000) }));
  const rows = folder.drain(startMs, { all: true });
  t.is(rows.length, 203);
  t.is(
    rows.reduce((sum, { count }) => sum + count, 0),
    10_000,
  );
  t.true(rows.every(({ windowMs, rowId }) => windowMs === startMs && rowId >= 0 && rowId < eventWindow * 1e9));
});
