import type { CaddyEvent } from '../../caddy-event.js';
import type { EventRow } from '../../record/event-folder.js';
import { awkwardTexts } from './awkward-texts.js';
import type { Declare } from './declare.js';
import { batchOf, hourMs, writerOf } from './samples.js';

const everything = { fromMs: 0, toMs: hourMs + 86_400_000, limit: 1000 };

/** Declares the tests of events. */
export function declareEvents(declare: Declare): void {
  declare('reads events as they were written, newest minute first', async (t, { store }) => {
    const rows = [
      rowOf({ windowMs: hourMs + 60_000, rowId: 59_999_999_999, count: 3, lastMs: hourMs + 119_999 }),
      rowOf(
        { windowMs: hourMs, rowId: 7, lastMs: hourMs + 5 },
        { status: 0, host: '', method: '', uri: '', upstream: '' },
      ),
      rowOf(
        { windowMs: hourMs, rowId: 8, lastMs: hourMs + 1 },
        { level: 'info', message: 'server running', error: '', fields: '' },
      ),
    ];
    await store.write(batchOf({ events: rows.toReversed() }));
    t.deepEqual(await store.readEvents(everything), rows);
    t.deepEqual(await store.readEvents({ ...everything, limit: 1 }), rows.slice(0, 1));
    t.deepEqual(await store.readEvents({ ...everything, levels: ['info', 'warn'] }), rows.slice(2));
    t.deepEqual(await store.readEvents({ ...everything, levels: [] }), []);
    t.deepEqual(await store.readEvents({ ...everything, host: '' }), rows.slice(1, 2));
    t.deepEqual(await store.readEvents({ ...everything, host: 'a.example', levels: ['error'] }), rows.slice(0, 1));
    t.deepEqual(await store.readEvents({ ...everything, fromMs: hourMs + 1 }), rows.slice(0, 1));
    t.deepEqual(await store.readEvents({ ...everything, toMs: hourMs + 60_000 }), rows.slice(1));
  });

  declare('replaces rows of events that have changed since, and no others', async (t, { store }) => {
    const write = writerOf();
    const rows = [1, 2, 3].map((rowId) => rowOf({ rowId, lastMs: hourMs + 10 - rowId }));
    await store.write(write({ events: rows }));
    const changed = { ...rows[1]!, count: 12, lastMs: hourMs + 59_000 };
    const batch = write({ events: [changed] });
    await store.write(batch);
    await store.write(batch);
    t.deepEqual(await store.readEvents(everything), [changed, rows[0]!, rows[2]!]);
  });

  declare('reads any text of an event as it was written', async (t, { store }) => {
    const rows = awkwardTexts.map((text, rowId) =>
      rowOf(
        { rowId, lastMs: hourMs + 1000 - rowId },
        {
          message: text,
          error: text,
          reason: text,
          uri: text,
          logger: text,
          method: text,
          upstream: text,
          errorId: text,
          fields: text,
        },
      ),
    );
    await store.write(batchOf({ events: rows }));
    t.deepEqual(await store.readEvents(everything), rows);
  });
}

function rowOf(row: Partial<Omit<EventRow, 'event'>>, event: Partial<CaddyEvent> = {}): EventRow {
  return {
    windowMs: hourMs,
    rowId: 1,
    count: 1,
    lastMs: hourMs,
    ...row,
    event: {
      timeMs: (row.windowMs ?? hourMs) + 1,
      timeNs: 123_456,
      level: 'error',
      logger: 'http.log.error.log0',
      message: 'dial tcp 10.0.0.3:8080: connect: connection refused',
      error: 'refused',
      reason: 'dial tcp 10.0.0.3:8080: connect: connection refused',
      host: 'a.example',
      method: 'GET',
      uri: '/b?…',
      status: 502,
      errorId: 'hrgs1kzyk',
      upstream: '10.0.0.3:8080',
      fields: '{"duration":0.0005}',
      ...event,
    },
  };
}
