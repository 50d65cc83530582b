import type { LedgerSnapshot } from '../store.js';
import type { Declare } from './declare.js';
import { batchOf, hourMs, snapshot, writerOf } from './samples.js';

/** Declares the tests of ledgers. */
export function declareLedgers(declare: Declare): void {
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
}
