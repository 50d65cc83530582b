/**
 * Flux queries, and the rows that they return. Every value goes through the `flux` template, every text through
 * `fluxText`.
 *
 * InfluxDB evaluates a `filter` while it reads if it compares tags or the value with `==` or a regular expression.
 * Filters that call functions run row by row afterwards, and `<` and `>` on texts match nothing (seen with 2.7.12).
 */
import { flux, fluxDateTime, fluxExpression, fluxRegExp, type ParameterizedQuery } from '@influxdata/influxdb-client';
import { StoreError } from '../../errors.js';
import { groupBy } from '../../group-by.js';
import { importedBytes, type ImportedRow } from '../../record/imported-requests.js';
import type { RequestEvent } from '../../request-event.js';
import { topListsOfRequests } from '../../top-list/top-lists-of-requests.js';
import { levels, unpackCells, windowStart, type Level, type RollupRow } from '../../rollup/rollup.js';
import { rollUp } from '../../rollup/rollup-aggregator.js';
import { isClientError, isServerError } from '../../status.js';
import type { TopKind, TopRow } from '../../top-list/top-row.js';
import type { StoredSpan } from '../retention-guard.js';
import {
  addHostCounts,
  addHostRows,
  filteredRow,
  filtersCells,
  refuseRollups,
  rowFilter,
  wholeWindows,
} from '../rollups-query.js';
import type {
  Filter,
  ImportSummary,
  LedgerSnapshot,
  RollupsQuery,
  Store,
  StoredWindows,
  TimeRange,
  TopListsQuery,
  HostCounts,
  HostCountsQuery,
} from '../store.js';
import { fluxAnyOf, fluxText, fluxWholeOrStart } from './flux-text.js';
import {
  cellOfAggregate,
  ledgerAccounts,
  levelTags,
  parseTimestamp,
  tagText,
  textOfTag,
  textOfUri,
  uriText,
  type RollupPoint,
} from './line-protocol.js';
import { isSplit, joinCells } from './split-cells.js';

/**
 * Runs a query and calls `onRow` with the cells of each row, in the order of `columns`. Missing columns and empty
 * cells are `undefined`.
 */
export type ReadCells = (
  query: ParameterizedQuery,
  columns: readonly string[],
  onRow: (cells: readonly (string | undefined)[]) => void,
) => Promise<void>;

/** See `Store.readRollups`. */
export async function readRollups(read: ReadCells, bucket: string, query: RollupsQuery): Promise<RollupRow[]> {
  refuseRollups(query);
  const range = wholeWindows(query, query.level);
  if (range.fromMs >= range.toMs) return [];
  // The fields of a split row become visible one after another. A read that finds only some of them is repeated.
  for (let tries = 0; tries < triesMax; tries += 1) {
    const rows = await readRollupsOnce(read, bucket, { ...query, ...range });
    if (rows !== undefined) return rows.flatMap((row) => filteredRow(row, query.filter));
  }
  throw new StoreError(
    'retry',
    `Cannot read rollup rows from InfluxDB: a row was half written in each of ${triesMax} attempts. Try again.`,
  );
}

/**
 * Returns a condition on hosts, to append to another. A pattern that matches the empty text would also match rows
 * without a host.
 */
function andHosts(hosts: readonly string[] | undefined): ParameterizedQuery {
  if (hosts === undefined) return flux``;
  const names = hosts.filter((host) => host !== '').map(tagText);
  const named = names.length === 0 ? flux`false` : flux`r.host =~ ${fluxAnyOf(names)}`;
  return hosts.includes('') ? flux` and (${tagIs(flux`r.host`, '')} or ${named})` : flux` and ${named}`;
}

/**
 * See `Store.countHosts`. InfluxDB sums up the fields; if the filter selects some cells of a row, the cells are read
 * instead.
 */
export async function countHosts(
  read: ReadCells,
  bucket: string,
  { parts, filter }: HostCountsQuery,
): Promise<HostCounts[]> {
  const counts = new Map<string, HostCounts>();
  for (const part of parts) {
    if (filtersCells(filter)) addHostRows(counts, await readRollups(read, bucket, { ...part, scope: 'host', filter }));
    else await addHostSums(counts, read, bucket, { ...part, filter });
  }
  return [...counts.values()];
}

async function addHostSums(
  counts: Map<string, HostCounts>,
  read: ReadCells,
  bucket: string,
  { level, filter, ...range }: TimeRange & { level: Level; filter: Filter },
): Promise<void> {
  const { fromMs, toMs } = wholeWindows(range, level);
  if (fromMs >= toMs) return;
  const columns = ['_field', '_value', 'source', 'host', 'status_code'];
  // Points of version 1 have a status, and no scope.
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(fromMs)}, stop: ${new Date(toMs)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r.level == ${levelTags[level]} and r._field =~ /^(count|size_sum|status_[45]xx)$/ and (r.scope == "host" or r.status_code =~ /./)${andSeries(rowFilter(filter))})
  |> sum()
  |> group()
  |> keep(columns: ${columns})`;
  await read(query, columns, ([field, value, sourceTag, hostTag, statusTag]) => {
    const [sum, status] = [Number(value), Number(statusTag ?? 0)];
    addHostCounts(counts, {
      source: textOfTag(sourceTag),
      host: textOfTag(hostTag),
      requests: field === 'count' ? sum : 0,
      errors: field === 'status_5xx' || (field === 'count' && isServerError(status)) ? sum : 0,
      clientErrors: field === 'status_4xx' || (field === 'count' && isClientError(status)) ? sum : 0,
      bytes: field === 'size_sum' ? sum : 0,
    });
  });
}

/** Resolves to `undefined` if the fields of a split row belong to different versions of it. */
async function readRollupsOnce(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, level, scope, filter, hosts }: RollupsQuery,
): Promise<RollupRow[] | undefined> {
  const columns = ['_time', '_field', '_value', 'source', 'host', 'method', 'status_code'];
  // Points of version 1, which only have the field `tally`, are read for both scopes.
  const ofScope = scope === 'all' ? flux`not exists r.scope` : flux`(r.scope == "host" or r._field == "tally")`;
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(fromMs)}, stop: ${new Date(toMs)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r.level == ${levelTags[level]} and r._field =~ /^(tally|cells(_[0-9]+)?)$/ and ${ofScope}${andSeries(rowFilter(filter))}${andHosts(hosts)})
  |> keep(columns: ${columns})`;
  const rows: RollupRow[] = [];
  const split = new Map<string, { readonly key: Omit<RollupRow, 'cells'>; readonly parts: Map<number, string> }>();
  await read(query, columns, ([time, field, value = '', sourceTag, hostTag, method, status]) => {
    const key = {
      level,
      ...rowOfTime(time!, level),
      source: textOfTag(sourceTag),
      host: scope === 'all' ? undefined : textOfTag(hostTag),
    };
    if (field === 'tally') {
      const cell = cellOfAggregate(value, { method: textOfTag(method), status: Number(status) });
      if (cell.count !== 0) rows.push({ ...key, cells: [cell] });
    } else if (field === 'cells' && !isSplit(value)) {
      if (value !== '') rows.push({ ...key, cells: unpackCells(value) });
    } else {
      const name = `${time!}\n${key.source}\n${key.host}`;
      const found = split.get(name) ?? { key, parts: new Map<number, string>() };
      split.set(name, found);
      found.parts.set(field === 'cells' ? 1 : Number(field!.slice('cells_'.length)), value);
    }
  });
  for (const { key, parts } of split.values()) {
    const packed = joinCells(parts);
    if (packed === undefined) return undefined;
    if (packed !== '') rows.push({ ...key, cells: unpackCells(packed) });
  }
  return rows;
}

/**
 * Reads the points of all rollup rows of a level whose window starts in the range: of both scopes, and of earlier
 * versions.
 */
export async function readRollupPoints(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, level }: TimeRange & { level: Level },
): Promise<RollupPoint[]> {
  const range = wholeWindows({ fromMs, toMs }, level);
  const columns = ['_time', 'source', 'scope', 'host', 'method', 'status_code'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r._field == "count" and r.level == ${levelTags[level]})
  |> keep(columns: ${columns})`;
  const points: RollupPoint[] = [];
  await read(query, columns, ([time, source, scope, host, method, status]) => {
    points.push({
      level,
      ...rowOfTime(time!, level),
      source: textOfTag(source),
      host: scope === undefined && status === undefined ? undefined : textOfTag(host),
      series: status === undefined ? undefined : { method: textOfTag(method), status: Number(status) },
    });
  });
  return points;
}

/** See `Store.readTopLists`. */
export async function readTopLists(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, level, kinds, filter: { source, host } }: TopListsQuery,
): Promise<TopRow[]> {
  const range = wholeWindows({ fromMs, toMs }, level);
  if (range.fromMs >= range.toMs || kinds.length === 0) return [];
  const columns = ['_time', '_value', 'source', 'host', 'kind'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "request_top" and r._field == "packed" and r.level == ${levelTags[level]} and r.kind =~ ${fluxRegExp(new RegExp(`^(${kinds.join('|')})$`))}${andSeries({ ...(source !== undefined && { source }), ...(host !== undefined && { host }) })})
  |> keep(columns: ${columns})`;
  const rows: TopRow[] = [];
  await read(query, columns, ([time, packed, sourceTag, hostTag, kind]) => {
    rows.push({
      level,
      ...rowOfTime(time!, level),
      source: textOfTag(sourceTag),
      host: textOfTag(hostTag),
      kind: kind as TopKind,
      packed: packed!,
    });
  });
  return rows;
}

/** See `Store.readImported`. */
export async function readImported(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs }: TimeRange,
): Promise<ImportedRow[]> {
  const range = wholeWindows({ fromMs, toMs }, 3600);
  if (range.fromMs >= range.toMs) return [];
  const columns = ['_time', '_value', 'source', 'import_id'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "imported_request" and r._field == "packed")
  |> keep(columns: ${columns})`;
  const rows: ImportedRow[] = [];
  await read(query, columns, ([time, packed, source, importId]) => {
    rows.push({ importId: Number(importId), ...rowOfTime(time!, 3600), source: textOfTag(source), packed: packed! });
  });
  return rows;
}

/** See `Store.listImports`. */
export async function listImports(read: ReadCells, bucket: string): Promise<ImportSummary[]> {
  const imports = new Map<number, ImportSummary>();
  const query = flux`import "strings"
from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)}, stop: ${new Date(timeMsMax)})
  |> filter(fn: (r) => r._measurement == "imported_request" and r._field == "packed")
  |> map(fn: (r) => ({_time: r._time, import_id: r.import_id, length: strings.strlen(v: strings.trimSuffix(v: strings.trimSuffix(v: r._value, suffix: "="), suffix: "="))}))`;
  await read(query, ['_time', 'import_id', 'length'], ([time, id, length]) => {
    const importId = Number(id);
    const { windowMs } = rowOfTime(time!, 3600);
    const known = imports.get(importId) ?? { importId, requests: 0, firstHourMs: Infinity, lastHourMs: -Infinity };
    const requests = Math.floor((Number(length) * 3) / 4) / importedBytes; // four Base64 digits are three bytes
    imports.set(importId, {
      importId,
      requests: known.requests + requests,
      firstHourMs: Math.min(known.firstHourMs, windowMs),
      lastHourMs: Math.max(known.lastHourMs, windowMs),
    });
  });
  return [...imports.values()].toSorted((one, other) => one.importId - other.importId);
}

/**
 * See `Store.readRequests`. Sorting a long range would read all of it. So the range is searched from its end for the
 * times of the newest requests, first a second, then sixty times as much in each step. Only their rows are read.
 */
export async function readRequests(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
): Promise<RequestEvent[]> {
  const rows: RequestEvent[] = [];
  for (
    let endMs = toMs, lengthMs = sliceMsFirst;
    endMs > fromMs && rows.length < limit;
    endMs -= lengthMs, lengthMs *= sliceGrowth
  ) {
    const slice = { fromMs: Math.max(fromMs, endMs - lengthMs), toMs: endMs };
    rows.push(...(await readNewest(read, bucket, { ...slice, filter, limit: limit - rows.length })));
  }
  return rows;
}

/**
 * See `Store.rollUpRequests`. InfluxDB stores the fields of a request separately, so requests have to be reassembled
 * to count by them.
 */
export async function rollUpRequests(
  read: ReadCells,
  bucket: string,
  { requestsMax, level, scope, ...query }: RollupsQuery & { requestsMax: number },
): Promise<{ rows: RollupRow[]; isBounded: boolean }> {
  const requests = await readRequests(read, bucket, { ...query, limit: requestsMax + 1 });
  return { rows: rollUp(requests.slice(0, requestsMax), level, scope), isBounded: requests.length > requestsMax };
}

/** See `Store.topListsOfRequests`. */
export async function listNewest(
  read: ReadCells,
  bucket: string,
  { requestsMax, kinds, valuesMax, ...query }: Parameters<Store['topListsOfRequests']>[0],
): ReturnType<Store['topListsOfRequests']> {
  const requests = await readRequests(read, bucket, { ...query, limit: requestsMax + 1 });
  return {
    bySource: topListsOfRequests(requests.slice(0, requestsMax), { kinds, valuesMax }),
    ofNewest: requests.length > requestsMax ? requestsMax : undefined,
  };
}

async function readNewest(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
): Promise<RequestEvent[]> {
  const requestsSince = (start: unknown): ParameterizedQuery => flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${start}, stop: ${new Date(toMs)})
  |> filter(fn: (r) => r._measurement == "request_metrics"${andSeries(filter)})`;
  let oldest: string | undefined;
  const oldestQuery = flux`${requestsSince(new Date(fromMs))}${havingFields(filter)}
  |> keep(columns: ["_time"])
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: ${limit})
  |> tail(n: 1)`;
  await read(oldestQuery, ['_time'], ([time]) => {
    oldest = time;
  });
  if (oldest === undefined) return [];

  const rows: RequestEvent[] = [];
  // A row that lacks a field is still being written. One JSON text per row, because InfluxDB's CSV drops every CR and
  // inserts one before every LF.
  const rowsQuery = flux`import "json"
${requestsSince(fluxDateTime(oldest))}
  |> drop(columns: ["_start", "_stop", "_measurement"])
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.uri and exists r.size and exists r.bytes_read${andFields(filter)})
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: ${limit})
  |> map(fn: (r) => ({json: string(v: json.encode(v: r))}))`;
  await read(rowsQuery, ['json'], ([json]) => {
    rows.push(requestOf(JSON.parse(json!) as StoredRequest));
  });
  return rows;
}

/** See `Store.readStoredWindows`. */
export async function readStoredWindows(read: ReadCells, bucket: string): Promise<ReadonlyMap<string, StoredWindows>> {
  const readEnds = async (which: 'first' | 'last'): Promise<{ source: string; level: Level; windowMs: number }[]> => {
    const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)}, stop: ${new Date(timeMsMax)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r._field == "count" and not exists r.scope)
  |> ${fluxExpression(which)}()
  |> keep(columns: ["_time", "level", "source"])
  |> group(columns: ["level", "source"])
  |> sort(columns: ["_time"], desc: ${which === 'last'})
  |> limit(n: 1)`;
    const ends: { source: string; level: Level; windowMs: number }[] = [];
    await read(query, ['_time', 'level', 'source'], ([time, tag, source]) => {
      const level = levels.find((each) => levelTags[each] === tag);
      if (level !== undefined)
        ends.push({ source: textOfTag(source), level, windowMs: rowOfTime(time!, level).windowMs });
    });
    return ends;
  };
  const [first, last] = await Promise.all([readEnds('first'), readEnds('last')]);
  const oldest = groupBy(first, ({ source }) => source);
  return new Map(
    [...groupBy(last, ({ source }) => source)].map(([source, newest]) => [
      source,
      {
        oldest: new Map((oldest.get(source) ?? []).map(({ level, windowMs }) => [level, windowMs])),
        newestMs: Math.max(...newest.map(({ windowMs }) => windowMs)),
      },
    ]),
  );
}

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

/** Reads almost nothing. Fails if the bucket cannot be read. */
export async function readNothing(read: ReadCells, bucket: string): Promise<void> {
  await read(
    flux`from(bucket: ${fluxText(bucket)}) |> range(start: -1s) |> filter(fn: (r) => r._measurement == "collector_ledger") |> limit(n: 1)`,
    [],
    () => {},
  );
}

const sliceMsFirst = 1000;
const sliceGrowth = 60;
const triesMax = 5;
/** The last whole day that fits into 64 bits of nanoseconds. An open end would be now, by the server's clock. */
const timeMsMax = Date.UTC(2262, 3, 11);

function rowOfTime(time: string, level: Level): { windowMs: number; rowId: number } {
  const { timeMs, timeNs } = parseTimestamp(time);
  const windowMs = windowStart(timeMs, level);
  return { windowMs, rowId: (timeMs - windowMs) * 1e6 + timeNs };
}

/** Returns the condition on tags, to append to another. */
function andSeries({ source, exceptSource, host, method, status }: Filter): ParameterizedQuery {
  let condition = flux``;
  if (source !== undefined) condition = flux`${condition} and ${tagIs(flux`r.source`, source)}`;
  if (exceptSource !== undefined)
    condition = flux`${condition} and (not exists r.source or r.source != ${fluxText(tagText(exceptSource))})`;
  if (host !== undefined) condition = flux`${condition} and ${tagIs(flux`r.host`, host)}`;
  if (method !== undefined) condition = flux`${condition} and ${tagIs(flux`r.method`, method)}`;
  if (status !== undefined) condition = flux`${condition} and r.status_code =~ ${fluxRegExp(statusPattern(status))}`;
  return condition;
}

/** Returns a condition on a tag. A missing tag stands for an empty value, and equals nothing. */
function tagIs(tag: ParameterizedQuery, value: string): ParameterizedQuery {
  return value === '' ? flux`not exists ${tag}` : flux`${tag} == ${fluxText(tagText(value))}`;
}

/** Returns the conditions of a filter on fields of a request. A missing field stands for an empty value. */
function fieldConditions({
  path,
  client,
  userAgent,
  referrer,
  requestId,
}: Filter): { field: string; expected: string; condition: (value: ParameterizedQuery) => ParameterizedQuery }[] {
  const is = (text: string) => (value: ParameterizedQuery) => flux`${value} == ${fluxText(text)}`;
  const startsAs =
    (whole: string, ...starts: string[]) =>
    (value: ParameterizedQuery) =>
      flux`${value} =~ ${fluxWholeOrStart(whole, ...starts)}`;
  return [
    ...(client === undefined ? [] : [{ field: 'client_ip', expected: client, condition: is(client) }]),
    ...(userAgent === undefined ? [] : [{ field: 'user_agent', expected: userAgent, condition: is(userAgent) }]),
    ...(requestId === undefined ? [] : [{ field: 'request_id', expected: requestId, condition: is(requestId) }]),
    ...(referrer === undefined
      ? []
      : [{ field: 'referrer', expected: referrer, condition: startsAs(referrer, `${referrer}?`, `${referrer}#`) }]),
    ...(path === undefined
      ? []
      : [{ field: 'uri', expected: uriText(path), condition: startsAs(uriText(path), `${path}?`) }]),
  ];
}

/** Selects one row of each request whose fields match the filter. */
function havingFields(filter: Filter): ParameterizedQuery {
  const conditions = fieldConditions(filter);
  const [first] = conditions;
  if (first === undefined) return flux`\n  |> filter(fn: (r) => r._field == "uri")`;
  // InfluxDB evaluates a condition on a single field while it reads.
  if (conditions.length === 1 && first.expected !== '')
    return flux`\n  |> filter(fn: (r) => r._field == ${first.field} and ${first.condition(flux`r._value`)})`;
  const fields = new RegExp(`^(uri|${conditions.map(({ field }) => field).join('|')})$`);
  return flux`
  |> filter(fn: (r) => r._field =~ ${fluxRegExp(fields)})
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.uri${andFields(filter)})`;
}

/** Returns the conditions on the fields of reassembled requests, to append to another. */
function andFields(filter: Filter): ParameterizedQuery {
  return fieldConditions(filter).reduce((all, { field, expected, condition }) => {
    const value = flux`r.${fluxExpression(field)}`;
    return expected === ''
      ? flux`${all} and (not exists ${value} or ${condition(value)})`
      : flux`${all} and exists ${value} and ${condition(value)}`;
  }, flux``);
}

/** Lists every status of the range: tags are text, which does not compare numerically. */
function statusPattern({ min, max }: { min: number; max: number }): RegExp {
  const statuses: number[] = [];
  for (let status = Math.max(0, min); status <= Math.min(999, max); status += 1) statuses.push(status);
  return statuses.length === 0 ? /^none$/ : new RegExp(`^(${statuses.join('|')})$`);
}

/**
 * A row of `request_metrics` from `json.encode`. A field that only some rows have is `null`; one that no row has is
 * missing.
 */
interface StoredRequest {
  _time: string;
  source?: string | null;
  host?: string | null;
  method?: string | null;
  status_code: string;
  endpoint?: string | null;
  uri: string;
  duration_ms?: number | null;
  size: number;
  bytes_read: number;
  client_ip?: string | null;
  user_agent?: string | null;
  referrer?: string | null;
  protocol?: string | null;
  tls?: string | null;
  upstream_ms?: number | null;
  request_id?: string | null;
}

function requestOf(row: StoredRequest): RequestEvent {
  return {
    source: textOfTag(row.source),
    ...parseTimestamp(row._time),
    host: textOfTag(row.host),
    method: textOfTag(row.method),
    status: Number(row.status_code),
    durationMs: row.duration_ms ?? null,
    size: row.size,
    bytesRead: row.bytes_read,
    uri: textOfUri(row.uri),
    endpoint: textOfTag(row.endpoint),
    clientIp: row.client_ip ?? '',
    userAgent: row.user_agent ?? '',
    referrer: row.referrer ?? '',
    protocol: row.protocol ?? '',
    tls: row.tls ?? '',
    upstreamMs: row.upstream_ms ?? null,
    requestId: row.request_id ?? '',
  };
}

/** Reads the time span of the stored data. InfluxDB answers `first` and `last` from its index, per series. */
export async function readStoredSpan(read: ReadCells, bucket: string): Promise<StoredSpan> {
  const timeOf = async (
    which: 'first' | 'last',
    fields: readonly (readonly [measurement: string, field: string])[],
  ): Promise<number | undefined> => {
    const isOne = fields
      .map(([measurement, field]) => `(r._measurement == "${measurement}" and r._field == "${field}")`)
      .join(' or ');
    const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)}, stop: ${new Date(Date.UTC(2262, 0))})
  |> filter(fn: (r) => ${fluxExpression(isOne)})
  |> ${fluxExpression(which)}()
  |> keep(columns: ["_time"])
  |> group()
  |> sort(columns: ["_time"], desc: ${which === 'last'})
  |> limit(n: 1)`;
    let timeMs: number | undefined;
    await read(query, ['_time'], ([time]) => {
      timeMs = parseTimestamp(time!).timeMs;
    });
    return timeMs;
  };
  const [requests, rollups, ledgers] = [
    ['request_metrics', 'size'],
    ['request_rollup', 'count'],
    ['collector_ledger', 'lines'],
  ] as const;
  const [oldestRequestMs, oldestRollupMs, newestMs] = await Promise.all([
    timeOf('first', [requests]),
    timeOf('first', [rollups]),
    timeOf('last', [requests, rollups, ledgers]),
  ]);
  return { oldestRequestMs, oldestRollupMs, newestMs };
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
  if (!ledgerAccounts.every(([, account]) => values.has(account))) return undefined;
  const byReason = (account: string): Record<string, number> =>
    Object.fromEntries(newest.filter((count) => count.account === account).map(({ reason, value }) => [reason, value]));
  const value = (account: (typeof ledgerAccounts)[number][1]): number => values.get(account)!;
  return {
    collector: newest[0]!.collector,
    timeMs,
    received: value('received'),
    accepted: value('accepted'),
    runtime: value('runtime'),
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
