import { inflateSync } from 'node:zlib';
import { BIGINT, INTEGER, VARCHAR, type DuckDBBlobValue, type DuckDBType, type DuckDBValue } from '@duckdb/node-api';
import { importedBytes, type ImportedRow } from '../../record/imported-requests.js';
import { nextTurn } from '../../next-turn.js';
import { bucketOfDurationSql, Histogram } from '../../sketch/histogram.js';
import { splitNanoseconds, type RequestEvent } from '../../request-event.js';
import { methodWithoutLatency, serverErrors, statusesWithoutLatency } from '../../status.js';
import {
  emptyAggregate,
  levels,
  unpackCells,
  windowStart,
  type Cell,
  type Level,
  type RollupRow,
  type RowKey,
} from '../../rollup/rollup.js';
import {
  requestDimensions,
  type RequestDimension,
  type TopKind,
  type TopLevel,
  type TopRow,
} from '../../top-list/top-row.js';
import { byCount, shortValue, valueLengthMax, type TopEntry } from '../../sketch/space-saving.js';
import {
  addHostCells,
  addHostCounts,
  filteredRow,
  readsByClass,
  filtersCells,
  refuseRollups,
  rowFilter,
  matchesCell,
  wholeWindows,
} from '../rollups-query.js';
import type {
  Filter,
  HostCounts,
  HostCountsQuery,
  ImportSummary,
  LedgerSnapshot,
  RollupsQuery,
  Store,
  StoredWindows,
  TimeRange,
  TopListsQuery,
} from '../store.js';
import { texts } from './columns.js';
import type { OpenSnapshot } from './open-windows.js';
import type { Query, Read } from './read-pool.js';
import { levelSql } from './rollup-folds.js';
import { rollupTables } from './rollup-tables.js';

/** Maximum number of rows per page. Bounds the memory of a read, however many windows and series its range has. */
const rollupRowsPerPage = 20_000;
/** Top lists per page. One takes 5 to 15 kB. */
const topRowsPerPage = 2000;
/** Target size of a page of requests: sixteen concurrent answers with URIs of 8 kB then take about 10 MB. */
const requestPageCharactersMax = 262_144;
/** Rows in the first page of requests, when their length is still unknown. */
const firstRequests = 64;
const requestsPerPageMax = 1024;
/** Up to this limit, DuckDB sorts before it reads the other columns: its default of `late_materialization_max_rows`. */
const lateRowsMax = 50;

/** See `Store.streamRollups`. `open` has the rows of open windows. */
export async function* streamRollups(
  read: Read,
  rollupsQuery: RollupsQuery,
  open: OpenSnapshot,
  rowsPerPage = rollupRowsPerPage,
): AsyncGenerator<RollupRow[]> {
  const { level, scope, filter, hosts } = rollupsQuery;
  refuseRollups(rollupsQuery);
  const { fromMs, toMs } = wholeWindows(rollupsQuery, level);
  const conditionsOf = (values: BoundValues): string[] => [
    levelSql({ scope, level }, open.folded, values),
    `closed <= ${values.add(BigInt(open.closedMax), BIGINT)}`,
    ...conditions(rowFilter(filter), values),
    ...(hosts === undefined
      ? []
      : [`host IN (${[...hosts.map((host) => values.add(host, VARCHAR)), 'NULL'].join(', ')})`]),
  ];
  const readPage = async (query: Query, page: TimeRange, rowsMax: number): Promise<Page<RollupRow>> => {
    const closed = await rollupsBetween(
      query,
      { ...page, level, scope, byClass: readsByClass(rollupsQuery) },
      conditionsOf,
      rowsMax,
    );
    const rows = [
      ...closed.flatMap((row) => filteredRow(row, filter)),
      ...open.rows.filter(({ windowMs }) => windowMs >= page.fromMs && windowMs < page.toMs),
    ];
    return { rows, rowsRead: closed.length };
  };
  yield* inPages(read, rollupTables[scope], { fromMs, toMs }, { level, conditionsOf, rowsPerPage, readPage });
}

async function rollupsBetween(
  query: Query,
  { level, scope, byClass = false, ...range }: TimeRange & Pick<RollupsQuery, 'level' | 'scope' | 'byClass'>,
  conditionsOf: ConditionsOf,
  rowsMax: number,
): Promise<RollupRow[]> {
  const values = new BoundValues();
  const where = [...windowsIn(range, values), ...conditionsOf(values)];
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, ${texts('source')}, ${byClass ? "CASE WHEN classes = '' THEN cells ELSE classes END" : 'cells'}${scope === 'host' ? `, ${texts('host')}` : ''} FROM ${rollupTables[scope]} WHERE ${where.join(' AND ')} ${limitSql(rowsMax, values)}`,
  );
  const [windowMs, source, cells, host] = columns as [bigint[], string[], string[], string[]?];
  return await inTurns(windowMs, (start, at) => ({
    level,
    windowMs: windowStart(Number(start), level),
    rowId: 0,
    source: source[at]!,
    host: host?.[at],
    cells: unpackCells(cells[at]!),
  }));
}

/** See `Store.countHosts`. Adds to `counts`, which holds those of open windows by `hostKey`. */
export async function countHosts(
  query: Query,
  { parts, filter }: HostCountsQuery,
  open: OpenSnapshot,
  counts: Map<string, HostCounts>,
): Promise<HostCounts[]> {
  const values = new BoundValues();
  const inParts = parts.map(({ level, ...range }) =>
    [levelSql({ scope: 'host', level }, open.folded, values), ...windowsIn(range, values)].join(' AND '),
  );
  const where = [
    `(${inParts.map((part) => `(${part})`).join(' OR ')})`,
    `closed <= ${values.add(BigInt(open.closedMax), BIGINT)}`,
    ...conditions(rowFilter(filter), values),
  ].join(' AND ');
  if (parts.length > 0 && filtersCells(filter)) {
    // In chunks: the cells of thousands of hosts would not fit into memory.
    for await (const chunk of values.chunksOf(
      query,
      `SELECT ${texts('source', 'host')}, cells FROM host_rollup WHERE ${where}`,
    )) {
      const [sources = [], hosts, cells] = chunk as [string[]?, string[]?, string[]?];
      await inTurns(sources, (source, at) => {
        const admitted = unpackCells(cells![at]!).filter((cell) => matchesCell(filter, cell));
        if (admitted.length > 0) addHostCells(counts, { source, host: hosts![at]! }, admitted);
      });
    }
  } else if (parts.length > 0) {
    const columns = await values.columnsOf(
      query,
      `SELECT ${texts('source', 'host')}, sum(requests)::BIGINT, sum(errors)::BIGINT, sum(client_errors)::BIGINT, sum(size_sum) FROM host_rollup WHERE ${where} GROUP BY source, host`,
    );
    const [source = [], host, requests, errors, clientErrors, bytes] = columns as [
      string[]?,
      string[]?,
      bigint[]?,
      bigint[]?,
      bigint[]?,
      number[]?,
    ];
    for (const [at, name] of source.entries()) {
      addHostCounts(counts, {
        source: name,
        host: host![at]!,
        requests: Number(requests![at]!),
        errors: Number(errors![at]!),
        clientErrors: Number(clientErrors![at]!),
        bytes: bytes![at]!,
      });
    }
  }
  return [...counts.values()];
}

/** See `Store.readImported`. */
export async function readImported(query: Query, range: TimeRange): Promise<ImportedRow[]> {
  const values = new BoundValues();
  const columns = await values.columnsOf(
    query,
    `SELECT import_id, window_ms, row_id, ${texts('source')}, packed FROM imported_request WHERE ${windowsIn(range, values).join(' AND ')}`,
  );
  const [importId, windowMs, rowId, source, packed] = columns as [
    bigint[],
    bigint[],
    bigint[],
    string[],
    DuckDBBlobValue[],
  ];
  return await inTurns(
    windowMs,
    (start, at) => ({
      importId: Number(importId[at]!),
      windowMs: Number(start),
      rowId: Number(rowId[at]!),
      source: source[at]!,
      packed: Buffer.from(packed[at]!.bytes).toString('base64'),
    }),
    topRowsPerTurn,
  );
}

/** See `Store.listImports`. */
export async function listImports(query: Query): Promise<ImportSummary[]> {
  // By text: DuckDB 1.5.5 groups few integers by their statistics, which are out of date while rows are inserted, and
  // then fails.
  const columns = await new BoundValues().columnsOf(
    query,
    `
    SELECT min(import_id), sum(octet_length(packed))::BIGINT, min(window_ms), max(window_ms) FROM imported_request GROUP BY import_id::VARCHAR ORDER BY 1`,
  );
  const [importId, bytes, first, last] = columns as [bigint[], bigint[], bigint[], bigint[]];
  return importId.map((id, at) => ({
    importId: Number(id),
    requests: Number(bytes[at]!) / importedBytes,
    firstHourMs: Number(first[at]!),
    lastHourMs: Number(last[at]!),
  }));
}

/** See `Store.streamTopLists`. */
export async function* streamTopLists(
  read: Read,
  { level, kinds, filter, ...range }: TopListsQuery,
  rowsPerPage = topRowsPerPage,
): AsyncGenerator<TopRow[]> {
  if (kinds.length === 0) return;
  const conditionsOf = (values: BoundValues): string[] => [
    `level = ${values.add(level, INTEGER)}`,
    `kind IN (${kinds.map((kind) => values.add(kind, VARCHAR)).join(', ')})`,
    ...conditions(filter, values),
  ];
  const readPage = async (query: Query, page: TimeRange, rowsMax: number): Promise<Page<TopRow>> => {
    const rows = await topListsBetween(query, { ...page, level }, conditionsOf, rowsMax);
    return { rows, rowsRead: rows.length };
  };
  yield* inPages(read, 'request_top', range, { level, conditionsOf, rowsPerPage, readPage });
}

async function topListsBetween(
  query: Query,
  { level, ...range }: TimeRange & { level: TopLevel },
  conditionsOf: ConditionsOf,
  rowsMax: number,
): Promise<TopRow[]> {
  const values = new BoundValues();
  const where = [...windowsIn(range, values), ...conditionsOf(values)];
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, row_id, ${texts('source', 'host')}, kind, packed FROM request_top WHERE ${where.join(' AND ')} ${limitSql(rowsMax, values)}`,
  );
  const [windowMs, rowId, source, host, kind, packed] = columns as [
    bigint[],
    bigint[],
    string[],
    string[],
    TopKind[],
    DuckDBBlobValue[],
  ];
  return await inTurns(
    windowMs,
    (start, at) => ({
      level,
      windowMs: Number(start),
      rowId: Number(rowId[at]!),
      source: source[at]!,
      host: host[at]!,
      kind: kind[at]!,
      packed: textOf(packed[at]!),
    }),
    topRowsPerTurn,
  );
}

/** Adds the conditions of a read besides its time range. */
type ConditionsOf = (values: BoundValues) => string[];

function windowsIn({ fromMs, toMs }: TimeRange, values: BoundValues): string[] {
  return [
    `window_ms >= ${values.add(BigInt(Math.ceil(fromMs)), BIGINT)}`,
    `window_ms < ${values.add(BigInt(Math.ceil(toMs)), BIGINT)}`,
  ];
}

function limitSql(rowsMax: number, values: BoundValues): string {
  return rowsMax === Infinity ? '' : `LIMIT ${values.add(BigInt(rowsMax), BIGINT)}`;
}

type PagedTable = 'request_rollup' | 'host_rollup' | 'request_top';

interface Paging<Row> {
  /** The level of the windows that a page has whole. */
  readonly level: number;
  readonly conditionsOf: ConditionsOf;
  readonly rowsPerPage: number;
  /** Reads up to `rowsMax` rows of a range from the table. */
  readonly readPage: (query: Query, range: TimeRange, rowsMax: number) => Promise<Page<Row>>;
}

interface Page<Row> {
  readonly rows: Row[];
  /** Number of rows read from the table: a filter by cells drops some of them, and open windows add others. */
  readonly rowsRead: number;
}

/** Reads a range page by page. Most ranges fit in one page and take a single query. */
async function* inPages<Row>(
  read: Read,
  table: PagedTable,
  range: TimeRange,
  paging: Paging<Row>,
): AsyncGenerator<Row[]> {
  const { rows, rowsRead } = await read((query) => paging.readPage(query, range, paging.rowsPerPage + 1));
  if (rowsRead <= paging.rowsPerPage) {
    yield rows;
    return;
  }
  rows.length = 0; // free them while the pages are read
  for (const page of await pagesOfWindows(read, table, range, paging))
    yield (await read((query) => paging.readPage(query, page, Infinity))).rows;
}

/** Splits a range into pages of whole windows, with at most `rowsPerPage` rows each unless a single window has more. */
async function pagesOfWindows(
  read: Read,
  table: PagedTable,
  range: TimeRange,
  { level, conditionsOf, rowsPerPage }: Pick<Paging<unknown>, 'level' | 'conditionsOf' | 'rowsPerPage'>,
): Promise<TimeRange[]> {
  const values = new BoundValues();
  const where = [...windowsIn(range, values), ...conditionsOf(values)];
  const [windows, counts] = (await read((query) =>
    values.columnsOf(
      query,
      `SELECT window_ms - window_ms % ${level * 1000} AS start, count(*) FROM ${table} WHERE ${where.join(' AND ')} GROUP BY start ORDER BY start`,
    ),
  )) as [bigint[], bigint[]];
  const pages: TimeRange[] = [];
  let { fromMs } = range;
  let rows = 0;
  for (const [at, window] of windows.entries()) {
    const count = Number(counts[at]!);
    if (rows > 0 && rows + count > rowsPerPage) {
      pages.push({ fromMs, toMs: Number(window) });
      fromMs = Number(window);
      rows = 0;
    }
    rows += count;
  }
  return [...pages, { fromMs, toMs: range.toMs }];
}

/** Rows decoded per turn of the event loop: one or two milliseconds of work. */
const rowsPerTurn = 1024;
/** Fewer, since each top list has to be inflated. */
const topRowsPerTurn = 64;

/** Like `map`, but yields to the event loop after every `perTurn` rows. */
async function inTurns<Value, Row>(
  column: readonly Value[],
  make: (value: Value, at: number) => Row,
  perTurn = rowsPerTurn,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [at, value] of column.entries()) {
    if (at > 0 && at % perTurn === 0) await nextTurn();
    rows.push(make(value, at));
  }
  return rows;
}

/** Decodes a stored list or sketch: see `schema.ts`. */
function textOf({ bytes }: DuckDBBlobValue): string {
  return (bytes[0] === zlibFirstByte ? inflateSync(bytes) : Buffer.from(bytes)).toString('utf8');
}

const zlibFirstByte = 0x78;

/**
 * See `Store.streamRequests`. Reads the times of the newest `limit` requests first, then the rows page by page: sorting
 * whole rows, of up to 20 kB each, would exhaust DuckDB's memory.
 */
export async function* streamRequests(
  read: Read,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
  rowsPerPageMax = requestsPerPageMax,
): AsyncGenerator<RequestEvent[]> {
  if (limit <= lateRowsMax) {
    yield await read((query) =>
      newestRequests(query, limit, (values) => requestConditions({ fromMs, toMs, filter }, values)),
    );
    return;
  }
  const times = await read((query) => newestTimes(query, { fromMs, toMs, filter, limit }));
  let rowsPerPage = Math.min(firstRequests, rowsPerPageMax);
  for (let from = 0; from < times.length; ) {
    let to = Math.min(from + rowsPerPage, times.length);
    while (to < times.length && times[to] === times[to - 1]) to += 1; // requests with equal times stay together
    const [newestNs, oldestNs] = [times[from]!, times[to - 1]!];
    const whereOf = (values: BoundValues): string =>
      filterConditions(
        filter,
        [`time_ns BETWEEN ${values.add(oldestNs, BIGINT)} AND ${values.add(newestNs, BIGINT)}`],
        values,
      );
    const rows = to - from;
    const page = await read((query) => newestRequests(query, rows, whereOf));
    rowsPerPage = nextPageRows(page, rowsPerPageMax);
    yield page;
    from = to;
  }
}

/** Estimates the rows of the next page from the length of these. At most doubles: the next requests may be longer. */
function nextPageRows(page: readonly RequestEvent[], rowsMax: number): number {
  if (page.length === 0) return rowsMax; // all were deleted in the meantime
  const characters = page.reduce(
    (sum, { uri, endpoint, userAgent, referrer }) =>
      sum + uri.length + endpoint.length + userAgent.length + referrer.length,
    0,
  );
  const fitting = Math.floor(requestPageCharactersMax / Math.max(1, characters / page.length));
  return Math.max(1, Math.min(fitting, 2 * page.length, rowsMax));
}

async function newestTimes(
  query: Query,
  { fromMs, toMs, filter, limit }: TimeRange & { filter: Filter; limit: number },
): Promise<bigint[]> {
  const values = new BoundValues();
  const where = requestConditions({ fromMs, toMs, filter }, values);
  const [times] = await values.columnsOf(
    query,
    `SELECT time_ns FROM request_metrics WHERE ${where} ORDER BY time_ns DESC LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  return times as bigint[];
}

async function newestRequests(
  query: Query,
  limit: number,
  whereOf: (values: BoundValues) => string,
): Promise<RequestEvent[]> {
  const values = new BoundValues();
  const where = whereOf(values);
  const columns = await values.columnsOf(
    query,
    `SELECT time_ns, ${texts('source', 'host', 'method')}, status_code, ${texts('endpoint')}, duration_ms, size, bytes_read,
       ${texts('uri', 'client_ip', 'user_agent', 'referrer', 'protocol', 'tls')}, upstream_ms, ${texts('request_id')}
     FROM request_metrics WHERE ${where} ORDER BY time_ns DESC LIMIT ${values.add(BigInt(limit), BIGINT)}`,
  );
  const [
    timeNs,
    source,
    host,
    method,
    status,
    endpoint,
    durationMs,
    size,
    bytesRead,
    uri,
    clientIp,
    userAgent,
    referrer,
    protocol,
    tls,
    upstreamMs,
    requestId,
  ] = columns as [
    bigint[],
    string[],
    string[],
    string[],
    number[],
    string[],
    number[],
    bigint[],
    bigint[],
    string[],
    string[],
    string[],
    string[],
    string[],
    string[],
    (number | null)[],
    string[],
  ];
  return await inTurns(timeNs, (time, at) => ({
    ...splitNanoseconds(time),
    source: source[at]!,
    host: host[at]!,
    method: method[at]!,
    status: status[at]!,
    endpoint: endpoint[at]!,
    durationMs: durationMs[at]!,
    size: Number(size[at]!),
    bytesRead: Number(bytesRead[at]!),
    uri: uri[at]!,
    clientIp: clientIp[at]!,
    userAgent: userAgent[at]!,
    referrer: referrer[at]!,
    protocol: protocol[at]!,
    tls: tls[at]!,
    upstreamMs: upstreamMs[at]!,
    requestId: requestId[at]!,
  }));
}

/**
 * See `Store.rollUpRequests`. DuckDB aggregates by window, series and bucket, so all requests are counted and none is
 * returned.
 */
export async function rollUpRequests(
  query: Query,
  { fromMs, toMs, level, scope, filter }: RollupsQuery,
): Promise<{ rows: RollupRow[]; isBounded: boolean }> {
  const values = new BoundValues();
  const lengthMs = BigInt(level) * 1000n;
  const host = scope === 'host' ? 'host, ' : '';
  const columns = await values.columnsOf(
    query,
    `SELECT window_ms, ${texts('source', 'method')}, status_code, bucket, "count", duration_ms_sum, duration_ms_max, size_sum${scope === 'host' ? `, ${texts('host')}` : ''} FROM (
       SELECT time_ns // ${lengthMs * nsPerMs} * ${lengthMs} AS window_ms, source, ${host}method, status_code, ${aggregateSql}
       FROM request_metrics WHERE ${requestConditions({ fromMs, toMs, filter }, values)} GROUP BY ALL
     )`,
  );
  const [windowMs, source, method, status, bucket, count, durationSumMs, durationMaxMs, sizeSum, hosts] = columns as [
    bigint[],
    string[],
    string[],
    number[],
    (number | null)[],
    bigint[],
    number[],
    number[],
    number[],
    string[]?,
  ];
  const rows = new Map<string, RollupRow & { readonly cells: Cell[] }>();
  const cells = new Map<string, Cell>();
  for (const [at, start] of windowMs.entries()) {
    const rowKey = `${start}\n${source[at]!}\n${hosts?.[at]}`;
    const cellKey = `${rowKey}\n${status[at]!}\n${method[at]!}`;
    let cell = cells.get(cellKey);
    if (cell === undefined) {
      cells.set(cellKey, (cell = { method: method[at]!, status: status[at]!, ...emptyAggregate() }));
      let row = rows.get(rowKey);
      if (row === undefined)
        rows.set(
          rowKey,
          (row = { level, windowMs: Number(start), rowId: 0, source: source[at]!, host: hosts?.[at], cells: [] }),
        );
      row.cells.push(cell);
    }
    cell.count += Number(count[at]!);
    cell.sizeSum += sizeSum[at]!;
    if (bucket[at] === null) continue;
    cell.durationSumMs += durationSumMs[at]!;
    cell.durationMaxMs = Math.max(cell.durationMaxMs, durationMaxMs[at]!);
    cell.histogram.addBucket(bucket[at]!, Number(count[at]!));
  }
  return { rows: [...rows.values()], isBounded: false };
}

/** Maximum number of requests listed: about a second of work. */
const listedMax = 500_000;

/**
 * See `Store.topListsOfRequests`. DuckDB counts by value and bucket. Of more than `requestsMax` requests it counts the
 * newest, to the nearest thousandth of the range.
 */
export async function topListsOfRequests(
  query: Query,
  { fromMs, toMs, filter, kinds, valuesMax }: Omit<Parameters<Store['topListsOfRequests']>[0], 'requestsMax'>,
  requestsMax = listedMax,
): ReturnType<Store['topListsOfRequests']> {
  const newest = await newestPart(query, { fromMs, toMs, filter }, requestsMax);
  const values = new BoundValues();
  const where = requestConditions({ fromMs: newest.fromMs, toMs, filter }, values);
  const dimensions = requestDimensions.filter((dimension) => kinds.includes(dimension));
  const rowsMax = values.add(BigInt(valuesMax), BIGINT);
  const parts = [
    ...dimensions.map((dimension) => listSql(dimension, rowsMax)),
    ...(kinds.includes('unique_clients')
      ? [
          `SELECT 'unique_clients', source, '', count(DISTINCT client)::DOUBLE, 0, 0, 0, 0, 0, '' FROM matching WHERE client <> '' GROUP BY source`,
        ]
      : []),
  ];
  if (parts.length === 0) return { bySource: new Map(), ofNewest: newest.requests };
  const columns = await values.columnsOf(
    query,
    `WITH matching AS MATERIALIZED (
       SELECT source, method, status_code, duration_ms, size, ${requestDimensions.map((dimension) => `${shortSql(valueSql[dimension])} AS ${dimension}`).join(', ')} FROM request_metrics WHERE ${where}
     )
     SELECT kind, ${texts('source', 'value')}, total, requests, errors, size_sum, duration_ms_sum, duration_ms_max, buckets
     FROM (${parts.join(' UNION ALL ')}) AS parts (kind, source, value, total, requests, errors, size_sum, duration_ms_sum, duration_ms_max, buckets)`,
  );
  const [kind, source, value, total, count, errors, sizeSum, durationSumMs, durationMaxMs, buckets] = columns as [
    (RequestDimension | 'unique_clients')[],
    string[],
    string[],
    number[],
    number[],
    number[],
    number[],
    number[],
    number[],
    string[],
  ];
  const bySource = new Map<
    string,
    { readonly lists: Map<RequestDimension, { readonly total: number; readonly entries: TopEntry[] }>; clients: number }
  >();
  for (const [at, name] of kind.entries()) {
    let ofSource = bySource.get(source[at]!);
    if (ofSource === undefined) bySource.set(source[at]!, (ofSource = { lists: new Map(), clients: 0 }));
    if (name === 'unique_clients') {
      ofSource.clients = total[at]!;
      continue;
    }
    let list = ofSource.lists.get(name);
    if (list === undefined) ofSource.lists.set(name, (list = { total: total[at]!, entries: [] }));
    list.entries.push({
      value: shortValue(value[at]!),
      missedMax: 0,
      count: count[at]!,
      errors: errors[at]!,
      sizeSum: sizeSum[at]!,
      durationSumMs: durationSumMs[at]!,
      durationMaxMs: durationMaxMs[at]!,
      // Decoded on demand: of a thousand values, ten are shown.
      get histogram() {
        return histogramOf(buckets[at]!);
      },
    });
  }
  for (const { lists } of bySource.values()) for (const { entries } of lists.values()) entries.sort(byCount);
  return { bySource, ofNewest: newest.requests };
}

/**
 * Start of the newest part of a range that has at most `requestsMax` requests, and their number; `undefined` if that is
 * the whole range.
 */
async function newestPart(
  query: Query,
  { fromMs, toMs, filter }: TimeRange & { filter: Filter },
  requestsMax: number,
): Promise<{ fromMs: number; requests: number | undefined }> {
  const sliceMs = Math.max(1, Math.ceil((toMs - fromMs) / 1000));
  const values = new BoundValues();
  const [slices, counts] = (await values.columnsOf(
    query,
    `SELECT time_ns // ${BigInt(sliceMs) * nsPerMs} AS slice, count(*) FROM request_metrics WHERE ${requestConditions({ fromMs, toMs, filter }, values)} GROUP BY slice ORDER BY slice DESC`,
  )) as [bigint[], bigint[]];
  let requests = 0;
  for (const [at, slice] of slices.entries()) {
    const more = Number(counts[at]!);
    // Always include the newest slice: otherwise there would be nothing to show.
    if (at > 0 && requests + more > requestsMax) return { fromMs: (Number(slice) + 1) * sliceMs, requests };
    requests += more;
  }
  return { fromMs, requests: undefined };
}

/** `topValueOf` as SQL. */
const valueSql: Readonly<Record<RequestDimension, string>> = {
  path: `split_part(uri, '?', 1)`,
  referrer: `split_part(split_part(referrer, '?', 1), '#', 1)`,
  user_agent: 'user_agent',
  client: 'client_ip',
};

/** `shortValue` as SQL. Counts code points; values that are longer in UTF-16 are truncated when read. */
function shortSql(expression: string): string {
  return `CASE WHEN length(${expression}) > ${valueLengthMax} THEN left(${expression}, ${valueLengthMax - 1}) || '…' ELSE ${expression} END`;
}

/**
 * The top list of each source over `matching`. Ranks values before it counts them by bucket: of hundreds of thousands,
 * only a few are needed.
 */
function listSql(dimension: RequestDimension, rowsMax: string): string {
  return `SELECT '${dimension}', source, ${dimension}, total::DOUBLE, sum("count")::DOUBLE, sum(errors)::DOUBLE, sum(size_sum),
      coalesce(sum(duration_ms_sum) FILTER (bucket IS NOT NULL), 0), coalesce(max(duration_ms_max) FILTER (bucket IS NOT NULL), 0), coalesce(string_agg(bucket || ' ' || "count", ','), '')
    FROM (
      SELECT source, ${dimension}, total, ${aggregateSql}, count(*) FILTER (status_code BETWEEN ${serverErrors.min} AND ${serverErrors.max}) AS errors FROM matching JOIN (
        SELECT source, ${dimension}, sum(count(*)) OVER (PARTITION BY source) AS total FROM matching WHERE ${dimension} <> '' GROUP BY source, ${dimension}
        QUALIFY row_number() OVER (PARTITION BY source ORDER BY count(*) DESC, ${dimension}) <= ${rowsMax}
      ) USING (source, ${dimension}) GROUP BY ALL
    ) GROUP BY source, ${dimension}, total`;
}

/** Parses `-12 3,40 1`: three requests in bucket -12, one in bucket 40. */
function histogramOf(buckets: string): Histogram {
  const histogram = new Histogram();
  for (const [, bucket, count] of buckets.matchAll(/(-?\d+) (\d+)/g))
    histogram.addBucket(Number(bucket), Number(count));
  return histogram;
}

/** Columns that aggregate a group of requests. Group by bucket as well. */
const aggregateSql = `CASE WHEN status_code NOT IN (${statusesWithoutLatency.join(', ')}) AND method <> '${methodWithoutLatency}' THEN ${bucketOfDurationSql('duration_ms')} END AS bucket,
  count(*) AS "count", sum(duration_ms) AS duration_ms_sum, max(duration_ms) AS duration_ms_max, sum(size)::DOUBLE AS size_sum`;

/** See `Store.readStoredWindows`. `open` are the keys of open windows. */
export async function readStoredWindows(
  query: Query,
  open: readonly RowKey[],
): Promise<ReadonlyMap<string, StoredWindows>> {
  const values = new BoundValues();
  const oldestSql = levels.map((level) => `min(window_ms) FILTER (level = ${level})`).join(', ');
  // Bind a value: DuckDB 1.5.5 does not plan a statement without one again, then groups by outdated statistics, and
  // returns wrong sources.
  const all = `window_ms >= ${values.add(0n, BIGINT)}`;
  const [source = [], newestMs = [], ...oldestMs] = (await values.columnsOf(
    query,
    `SELECT ${texts('source')}, max(window_ms), ${oldestSql} FROM request_rollup WHERE ${all} GROUP BY source`,
  )) as [string[]?, bigint[]?, ...(bigint | null)[][]];
  const found = new Map<string, { oldest: Map<Level, number>; newestMs: number }>();
  const add = (name: string, level: Level, windowMs: number): void => {
    let ofSource = found.get(name);
    if (ofSource === undefined) found.set(name, (ofSource = { oldest: new Map(), newestMs: -Infinity }));
    ofSource.oldest.set(level, Math.min(ofSource.oldest.get(level) ?? Infinity, windowMs));
    ofSource.newestMs = Math.max(ofSource.newestMs, windowMs);
  };
  for (const [at, name] of source.entries()) {
    for (const [index, level] of levels.entries()) {
      const windowMs = oldestMs[index]![at];
      if (typeof windowMs === 'bigint') add(name, level, Number(windowMs));
    }
    found.get(name)!.newestMs = Number(newestMs[at]!);
  }
  for (const { source: name, level, windowMs } of open) add(name, level, windowMs);
  // Rows that are not folded yet count at coarser levels, too.
  for (const { oldest } of found.values()) {
    for (const [at, level] of levels.entries()) {
      const finer = oldest.get(levels[at - 1]!);
      if (finer !== undefined) oldest.set(level, Math.min(oldest.get(level) ?? Infinity, windowStart(finer, level)));
    }
  }
  return found;
}

/** See `Store.readLedgers`. */
export async function readLedgers(query: Query, { sinceMs }: { sinceMs: number }): Promise<LedgerSnapshot[]> {
  const values = new BoundValues();
  const columns = await values.columnsOf(
    query,
    `SELECT ${texts('collector')}, time_ms, received, accepted, runtime, rejected, dropped, stored, spooled, in_memory, dead_lettered, last_line_ms, coalesce(warnings, '{}')
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

/** The bound values of one statement. */
class BoundValues {
  readonly #values: DuckDBValue[] = [];
  readonly #types: DuckDBType[] = [];

  /** Binds a value and returns its placeholder, such as `$1`. */
  add(value: DuckDBValue, type: DuckDBType): string {
    this.#types.push(type);
    return `$${this.#values.push(value)}`;
  }

  /** Runs the statement and yields the columns of up to 2,048 rows at a time. */
  chunksOf(query: Query, sql: string): ReturnType<Query> {
    return query(sql, this.#values, this.#types);
  }

  /** Runs the statement and returns the columns of all rows. */
  async columnsOf(query: Query, sql: string): Promise<DuckDBValue[][]> {
    let columns: DuckDBValue[][] | undefined;
    for await (const chunk of this.chunksOf(query, sql)) {
      if (columns === undefined) columns = chunk;
      else for (const [at, column] of columns.entries()) for (const value of chunk[at]!) column.push(value);
    }
    return columns ?? [];
  }
}

/** The conditions on a row of `request_metrics`. */
function requestConditions({ fromMs, toMs, filter }: TimeRange & { filter: Filter }, values: BoundValues): string {
  return filterConditions(
    filter,
    [
      `time_ns >= ${values.add(BigInt(Math.ceil(fromMs)) * nsPerMs, BIGINT)}`,
      `time_ns < ${values.add(BigInt(Math.ceil(toMs)) * nsPerMs, BIGINT)}`,
    ],
    values,
  );
}

function filterConditions(filter: Filter, times: readonly string[], values: BoundValues): string {
  const { path, client, userAgent, referrer, requestId } = filter;
  const found = [...times, ...conditions(filter, values)];
  const addWholeOrStart = (column: string, text: string, marks: readonly string[]): void => {
    const name = values.add(text, VARCHAR);
    found.push(
      `(${[`${column} = ${name}`, ...marks.map((mark) => `starts_with(${column}, ${name} || '${mark}')`)].join(' OR ')})`,
    );
  };
  if (path !== undefined) addWholeOrStart('uri', path, ['?']);
  if (referrer !== undefined) addWholeOrStart('referrer', referrer, ['?', '#']);
  if (client !== undefined) found.push(`client_ip = ${values.add(client, VARCHAR)}`);
  if (userAgent !== undefined) found.push(`user_agent = ${values.add(userAgent, VARCHAR)}`);
  if (requestId !== undefined) found.push(`request_id = ${values.add(requestId, VARCHAR)}`);
  return found.join(' AND ');
}

function conditions({ source, exceptSource, host, method, status }: Filter, values: BoundValues): string[] {
  const found: string[] = [];
  if (source !== undefined) found.push(`source = ${values.add(source, VARCHAR)}`);
  if (exceptSource !== undefined) found.push(`source <> ${values.add(exceptSource, VARCHAR)}`);
  if (host !== undefined) found.push(`host = ${values.add(host, VARCHAR)}`);
  if (method !== undefined) found.push(`method = ${values.add(method, VARCHAR)}`);
  if (status !== undefined)
    found.push(`status_code BETWEEN ${values.add(status.min, INTEGER)} AND ${values.add(status.max, INTEGER)}`);
  return found;
}
