import { packImported, type ImportedRow } from '../../record/imported-requests.js';
import type { Store } from '../store.js';
import type { Declare } from './declare.js';
import { batchOf, hourMs, request, writerOf } from './samples.js';

/** Declares the test of imported requests. */
export function declareImports(declare: Declare): void {
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
}
