import { BIGINT } from '@duckdb/node-api';
import type { LedgerSnapshot } from '../../store.js';
import { texts } from '../columns.js';
import type { Query } from '../read-pool.js';
import { BoundValues } from './bound-values.js';

/** See `Store.readLedgers`. */
export async function readLedgers(query: Query, { sinceMs }: { sinceMs: number }): Promise<LedgerSnapshot[]> {
  const values = new BoundValues();
  const columns = await values.columnsOf(
    query,
    `SELECT ${texts('collector')}, time_ms, received, accepted, runtime, rejected, dropped, stored, spooled, in_memory, dead_lettered, last_line_ms, coalesce(warnings, '{}'), coalesce(events, 0)
     FROM collector_ledger WHERE time_ms >= ${values.add(BigInt(Math.ceil(sinceMs)), BIGINT)}`,
  );
  const [
    collector,
    timeMs,
    received,
    accepted,
    runtime,
    rejected,
    dropped,
    stored,
    spooled,
    inMemory,
    deadLettered,
    lastLineMs,
    warnings,
    events,
  ] = columns as [
    string[],
    bigint[],
    bigint[],
    bigint[],
    bigint[],
    string[],
    string[],
    bigint[],
    bigint[],
    bigint[],
    bigint[],
    (bigint | null)[],
    string[],
    bigint[],
  ];
  return collector.map((name, at) => ({
    collector: name,
    timeMs: Number(timeMs[at]!),
    received: Number(received[at]!),
    accepted: Number(accepted[at]!),
    runtime: Number(runtime[at]!),
    events: Number(events[at]!),
    rejected: JSON.parse(rejected[at]!) as Record<string, number>,
    dropped: JSON.parse(dropped[at]!) as Record<string, number>,
    stored: Number(stored[at]!),
    spooled: Number(spooled[at]!),
    inMemory: Number(inMemory[at]!),
    deadLettered: Number(deadLettered[at]!),
    warnings: JSON.parse(warnings[at]!) as LedgerSnapshot['warnings'],
    lastLineMs: lastLineMs[at] === null ? null : Number(lastLineMs[at]!),
  }));
}
