import { flux } from '@influxdata/influxdb-client';
import { StoreError } from '../../../errors.js';
import type { LedgerSnapshot } from '../../store.js';
import { fluxText } from '../flux-text.js';
import { ledgerAccounts } from '../line-protocol.js';
import { textOfTag } from '../line-values.js';
import { timeMsMax, triesMax, type ReadCells } from './read-cells.js';

/** See `Store.readLedgers`. */
export async function readLedgers(
  read: ReadCells,
  bucket: string,
  { sinceMs }: { sinceMs: number },
): Promise<LedgerSnapshot[]> {
  const columns = ['_time', '_value', 'collector', 'account', 'reason'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(sinceMs)}, stop: ${new Date(timeMsMax)})
  |> filter(fn: (r) => r._measurement == "collector_ledger")
  |> last()
  |> group()
  |> keep(columns: ${columns})`;
  // The points of a snapshot become visible one after another. A read that finds only some of them is repeated.
  for (let tries = 0; tries < triesMax; tries += 1) {
    const counts: LedgerCount[] = [];
    await read(query, columns, ([time, value, collector, account, reason]) => {
      counts.push({
        timeMs: Date.parse(time!),
        value: Number(value),
        collector: textOfTag(collector),
        account: account!,
        reason: textOfTag(reason),
      });
    });
    const collectors = [...new Set(counts.map(({ collector }) => collector))];
    const snapshots = collectors.map((collector) =>
      snapshotOf(counts.filter((count) => count.collector === collector)),
    );
    if (snapshots.every((snapshot) => snapshot !== undefined)) return snapshots;
  }
  throw new StoreError(
    'retry',
    `Cannot read the ledgers from InfluxDB: the newest ledger of a collector was half written in each of ${triesMax} attempts. Try again.`,
  );
}

interface LedgerCount {
  readonly timeMs: number;
  readonly value: number;
  readonly collector: string;
  readonly account: string;
  readonly reason: string;
}

/** Assembles a snapshot from a collector's newest counts; returns `undefined` if some are missing. */
function snapshotOf(counts: readonly LedgerCount[]): LedgerSnapshot | undefined {
  const timeMs = Math.max(...counts.map((count) => count.timeMs));
  const newest = counts.filter((count) => count.timeMs === timeMs);
  const values = new Map(newest.map(({ account, value }) => [account, value]));
  if (!ledgerAccounts.every(([, account]) => account === 'events' || values.has(account))) return undefined;
  const byReason = (account: string): Record<string, number> =>
    Object.fromEntries(newest.filter((count) => count.account === account).map(({ reason, value }) => [reason, value]));
  const value = (account: (typeof ledgerAccounts)[number][1]): number => values.get(account)!;
  return {
    collector: newest[0]!.collector,
    timeMs,
    received: value('received'),
    accepted: value('accepted'),
    runtime: value('runtime'),
    events: values.get('events') ?? 0, // earlier programs wrote none
    rejected: byReason('rejected'),
    dropped: byReason('dropped'),
    stored: value('stored'),
    spooled: value('spooled'),
    inMemory: value('in_memory'),
    deadLettered: value('dead_lettered'),
    warnings: byReason('warnings'),
    lastLineMs: values.get('last_line') ?? null,
  };
}
