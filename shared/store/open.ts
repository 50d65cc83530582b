import type { Log } from '../log.js';
import type { RequestEvent } from '../request-event.js';
import { createDeadLetters } from './dead-letters.js';
import { parseRequestLine, requestLine } from './influxdb/line-protocol.js';
import type { SetupOptions } from './influxdb/setup.js';
import type { StoreSettings } from '../settings/store-settings.js';
import type { Store } from './store.js';

/**
 * Opens the store that the settings name. Each backend is loaded only when it is used: who has InfluxDB never loads
 * DuckDB's native module. What is written to InfluxDB goes through the spool `spoolName` where one is named. With
 * `keepsHouse` what is old in InfluxDB is deleted; in DuckDB it always is. With `isReadOnly`, nothing is written or
 * deleted. Throws a `StoreError` or a `UsageError` that says what to do.
 */
export async function openStore(
  settings: StoreSettings,
  {
    log,
    now = Date.now,
    monotonicMs = () => performance.now(),
    spoolName,
    keepsHouse = false,
    isReadOnly = false,
  }: {
    log: Log;
    now?: () => number;
    monotonicMs?: () => number;
    spoolName?: string;
    keepsHouse?: boolean;
    isReadOnly?: boolean;
  },
): Promise<Store> {
  if (settings.kind === 'influxdb') {
    const { openInfluxdbStore } = await import('./influxdb/influxdb-store.js');
    if (isReadOnly) return await openInfluxdbStore(settings, { log, now, monotonicMs });
    return await openInfluxdbStore(settings, { log, now, monotonicMs, spoolName, keepsHouse });
  }
  const { openDuckdbStore, openDuckdbStoreReadOnly } = await import('./duckdb/duckdb-store.js');
  if (isReadOnly) return await openDuckdbStoreReadOnly(settings, { now });
  // InfluxDB's store keeps refused lines itself.
  const deadLetters = createDeadLetters({ dir: `${settings.path}.dead-letters`, by: 'DuckDB', log, now });
  return await openDuckdbStore(settings, {
    log,
    now,
    monotonicMs,
    onRefused: (batch, reason) =>
      deadLetters.keep(
        Array.from(batch.requests, (request) => ({ line: requestLine(request, batch.recorder), reason })),
      ),
  });
}

/** Makes the bucket and the tokens that the InfluxDB store needs; see `setup.ts` there. */
export async function setUpStore(options: SetupOptions): Promise<string[]> {
  const { setUpInfluxdb } = await import('./influxdb/setup.js');
  return await setUpInfluxdb(options);
}

/**
 * Reads a line of a file of dead letters, in which what a store refused is kept: the request, `'other'` for lines that
 * hold none, or `undefined` for a line that is of no such file.
 */
export function readDeadLetter(line: string): RequestEvent | 'other' | undefined {
  if (/^(?:# \d{4}-\d\d-\d\dT|request_(?:rollup|top),|collector_ledger,)/.test(line)) return 'other';
  return parseRequestLine(line);
}
