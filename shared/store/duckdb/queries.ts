import { BIGINT, INTEGER, VARCHAR, type DuckDBConnection, type DuckDBType, type DuckDBValue } from '@duckdb/node-api';
import { StoreError } from '../../errors.js';
import { Histogram } from '../../histogram.js';
import { splitNanoseconds, type RequestEvent } from '../../request-event.js';
import type { Level, RollupRow } from '../../rollup.js';
import type { TopKind, TopRow } from '../../top-row.js';
import type { Filter, LedgerSnapshot, TimeRange, TopsQuery } from '../store.js';

/** See `Store.readRollups`. */
export async function readRollups(connection: DuckDBConnection, { fromMs, toMs, level, filter }: TimeRange & { level: Level; filter: Filter }): Promise<RollupRow[]> {
  if (filter.path !== undefined) throw new StoreError('drop', 'Cannot read rollup rows by path: only single requests know their path. Leave `filter.path` out.');
  const values = new BoundValues();
  const where = [
    `level = ${values.add(level, INTEGER)}`,
    `window_ms >= ${values.add(BigInt(Math.ceil(fromMs)), BIGINT)}`,
    `window_ms < ${values.add(BigInt(Math.ceil(toMs)), BIGINT)}`,
    ...conditions(filter, values),
  ];
  const columns = await values.columnsOf(
    connection,
    `SELECT window_ms, row_id, ${texts('source', 'host', 'method')}, status_code, "count", duration_ms_sum, duration_ms_max, size_sum, histogram
     FROM request_rollup WHERE ${where.join(' AND ')}`,
  );
  const [windowMs, rowId, source, host, method, status, count, durationSumMs, durationMaxMs, sizeSum, histogram] = columns as [
    bigint[], bigint[], string[], string[], string[], number[], bigint[], number[], number[], number[], string[],
  ];
  return windowMs.map((start, at) => ({
    level,
    windowMs: Number(start),
    rowId: Number(rowId[at]!),
    series: { source: source[at]!, host: host[at]!, method: method[at]!, status: status[at]! },
    count: Number(count[at]!),
    durationSumMs: durationSumMs[at]!,
    durationMaxMs: durationMaxMs[at]!,
    sizeSum: sizeSum[at]!,
    histogram: Histogram.unpack(histogram[at]!),
  }));
}

/** See `Store.readTops`. */
export async function readTops(connection: DuckDBConnection, { fromMs, toMs, level, kinds, filter }: TopsQuery): Promise<TopRow[]> {
  if (kinds.length === 0) return [];
  const values = new BoundValues();
  const where = [
    `level = ${values.add(level, INTEGER)}`,
    `window_ms >= ${values.add(BigInt(Math.ceil(fromMs)), BIGINT)}`,
    `window_ms < ${values.add(BigInt(Math.ceil(toMs)), BIGINT)}`,
    `kind IN (${kinds.map((kind) => values.add(kind, VARCHAR)).join(', ')})`,
    ...conditions(filter, values),
  ];
  const columns = await values.columnsOf(connection, `SELECT window_ms, row_id, ${texts('source', 'host')}, kind, packed FROM request_top WHERE ${where.join(' AND ')}`);
  const [windowMs, rowId, source, host, kind, packed] = columns as [bigint[], bigint[], string[], string[], TopKind[], string[]];
  return windowMs.map((start, at) => ({ level, windowMs: Number(start), rowId: Number(rowId[at]!), source: source[at]!, host: host[at]!, kind: kind[at]!, packed: packed[at]! }));
}

/** See `Store.readRequests`. */
export async function readRequests(connection: DuckDBConnection, { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number }): Promise<RequestEvent[]> {
  const values = new BoundValues();
  const where = [
    `time_ns >= ${values.add(BigInt(Math.ceil(fromMs)) * nsPerMs, BIGINT)}`,
    `time_ns < ${values.add(BigInt(Math.ceil(toMs)) * nsPerMs, BIGINT)}`,
    ...conditions(filter, values),
  ];
  if (filter.path !== undefined) {
    const path = values.add(filter.path, VARCHAR);
    where.push(`(uri = ${path} OR starts_with(uri, ${path} || '?'))`);
  }
  const columns = await values.columnsOf(
    connection,
    `SELECT time_ns, ${texts('source', 'host', 'method')}, status_code, ${texts('endpoint')}, duration_ms, size, bytes_read,
       ${texts('uri', 'client_ip', 'user_agent', 'referrer', 'protocol', 'tls')}, upstream_ms, ${texts('request_id')}
     FROM request_metrics WHERE ${where.join(' AND ')} ORDER BY time_ns DESC LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  const [timeNs, source, host, method, status, endpoint, durationMs, size, bytesRead, uri, clientIp, userAgent, referrer, protocol, tls, upstreamMs, requestId] = columns as [
    bigint[], string[], string[], string[], number[], string[], number[], bigint[], bigint[], string[], string[], string[], string[], string[], string[], (number | null)[], string[],
  ];
  return timeNs.map((time, at) => ({
    ...splitNanoseconds(time),
    source: source[at]!, host: host[at]!, method: method[at]!, status: status[at]!, endpoint: endpoint[at]!, durationMs: durationMs[at]!,
    size: Number(size[at]!), bytesRead: Number(bytesRead[at]!), uri: uri[at]!, clientIp: clientIp[at]!, userAgent: userAgent[at]!,
    referrer: referrer[at]!, protocol: protocol[at]!, tls: tls[at]!, upstreamMs: upstreamMs[at]!, requestId: requestId[at]!,
  }));
}

/** See `Store.readLedgers`. */
export async function readLedgers(connection: DuckDBConnection, { sinceMs }: { sinceMs: number }): Promise<LedgerSnapshot[]> {
  const values = new BoundValues();
  const columns = await values.columnsOf(
    connection,
    `SELECT ${texts('collector')}, time_ms, received, accepted, runtime, rejected, dropped, stored, spooled, in_memory, dead_lettered, last_line_ms, coalesce(warnings, '{}')
     FROM collector_ledger WHERE time_ms >= ${values.add(BigInt(Math.ceil(sinceMs)), BIGINT)}`,
  );
  const [collector, timeMs, received, accepted, runtime, rejected, dropped, stored, spooled, inMemory, deadLettered, lastLineMs, warnings] = columns as [
    string[], bigint[], bigint[], bigint[], bigint[], string[], string[], bigint[], bigint[], bigint[], bigint[], (bigint | null)[], string[],
  ];
  return collector.map((name, at) => ({
    collector: name,
    timeMs: Number(timeMs[at]!),
    received: Number(received[at]!),
    accepted: Number(accepted[at]!),
    runtime: Number(runtime[at]!),
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

const nsPerMs = 1_000_000n;

/** Columns of text to read. `@duckdb/node-api` 1.5.6 takes one byte order mark off the front of each text, so those that begin with one are given another. */
function texts(...columns: string[]): string {
  return columns.map((name) => `CASE WHEN starts_with(${name}, chr(65279)) THEN chr(65279) || ${name} ELSE ${name} END`).join(', ');
}

/** The values of one statement, in the order in which it names them. */
class BoundValues {
  readonly #values: DuckDBValue[] = [];
  readonly #types: DuckDBType[] = [];

  /** Takes a value and returns the name under which the statement has it. */
  add(value: DuckDBValue, type: DuckDBType): string {
    this.#types.push(type);
    return `$${this.#values.push(value)}`;
  }

  async columnsOf(connection: DuckDBConnection, sql: string): Promise<DuckDBValue[][]> {
    const result = await connection.run(sql, this.#values, this.#types);
    const columns = await result.getColumns();
    return columns.length > 0 ? columns : result.columnNames().map(() => []);
  }
}

function conditions({ source, host, method, status }: Filter, values: BoundValues): string[] {
  const found: string[] = [];
  if (source !== undefined) found.push(`source = ${values.add(source, VARCHAR)}`);
  if (host !== undefined) found.push(`host = ${values.add(host, VARCHAR)}`);
  if (method !== undefined) found.push(`method = ${values.add(method, VARCHAR)}`);
  if (status !== undefined) found.push(`status_code BETWEEN ${values.add(status.min, INTEGER)} AND ${values.add(status.max, INTEGER)}`);
  return found;
}
