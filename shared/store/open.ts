import type { Log } from '../log.js';
import type { RequestEvent } from '../request-event.js';
import { createDeadLetters } from './dead-letters.js';
import { parseRequestLine, requestLine } from './influxdb/request-line.js';
import type { SetupOptions } from './influxdb/setup.js';
import type { StoreSettings } from '../settings/store-settings.js';
import type { Store } from './store.js';

/**
 * Opens the store of the settings. Backends are loaded on demand: with InfluxDB, DuckDB's native module is never
 * loaded. Throws a `StoreError` or a `UsageError`.
 *
 * `spoolName` sends writes to InfluxDB through that spool. `keepsHouse` deletes expired rows in InfluxDB (DuckDB
 * always does). `isReadOnly` neither writes nor deletes.
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
  if (isReadOnly) {
    const { openDuckdbStoreReadOnly } = await import('./duckdb/read-only-store.js');
    return await openDuckdbStoreReadOnly(settings, { now });
  }
  const { openDuckdbStore } = await import('./duckdb/duckdb-store.js');
  // InfluxDB's store writes its dead letters itself.
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

/** Creates the bucket and the tokens of the InfluxDB store: see `influxdb/setup.ts`. */
export async function setUpStore(options: SetupOptions): Promise<string[]> {
  const { setUpInfluxdb } = await import('./influxdb/setup.js');
  return await setUpInfluxdb(options);
}

/**
 * Parses a line of a dead-letter file. Returns the request, `'other'` for a line without one, or `undefined` if the
 * line is not from such a file.
 */
export function readDeadLetter(line: string): RequestEvent | 'other' | undefined {
  if (/^(?:# \d{4}-\d\d-\d\dT|request_(?:rollup|top),|collector_ledger,)/.test(line)) return 'other';
  return parseRequestLine(line);
}
