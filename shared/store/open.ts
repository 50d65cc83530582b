import type { Log } from '../log.js';
import type { RequestEvent } from '../request-event.js';
import { parseRequestLine } from './influxdb/line-protocol.js';
import type { StoreSettings } from './settings.js';
import type { Store } from './store.js';

/**
 * Opens the store that the settings name. Each backend is loaded only when it is used: who has InfluxDB never loads
 * DuckDB's native module. What is written to InfluxDB goes through the spool `spoolName` where one is named. Throws a `StoreError` or a `UsageError` that says what to do.
 */
export async function openStore(settings: StoreSettings, { log, now = Date.now, spoolName }: { log: Log; now?: () => number; spoolName?: string }): Promise<Store> {
  if (settings.kind === 'influxdb') {
    const { openInfluxdbStore } = await import('./influxdb/influxdb-store.js');
    return await openInfluxdbStore(settings, { log, spoolName });
  }
  const { openDuckdbStore } = await import('./duckdb/duckdb-store.js');
  return await openDuckdbStore(settings, { log, now });
}

/**
 * Reads a line of a file of dead letters, which the InfluxDB store keeps what it could not write in: the request, `'other'` for lines that
 * hold none, or `undefined` for a line that is of no such file.
 */
export function readDeadLetter(line: string): RequestEvent | 'other' | undefined {
  if (/^(?:# \d{4}-\d\d-\d\dT|request_(?:rollup|top),|collector_ledger,)/.test(line)) return 'other';
  return parseRequestLine(line);
}
