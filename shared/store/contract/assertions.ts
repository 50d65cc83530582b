import type { ExecutionContext } from 'ava';
import { rfc3339, type RequestEvent } from '../../request-event.js';
import { rollUp } from '../../rollup/rollup-aggregator.js';
import {
  copyAggregate,
  mergeAggregate,
  type Cell,
  type Level,
  type RollupRow,
  type Scope,
  type Series,
} from '../../rollup/rollup.js';
import { topValueOf, type TopRow } from '../../top-list/top-row.js';
import type { Batch, Filter, Store } from '../store.js';
import { aroundHour, dayMs } from './samples.js';

/** Asserts that the store has the requests, rollup rows and ledger of one batch, and no others. */
export async function holdsOnly(t: ExecutionContext, store: Store, { requests, ledger }: Batch): Promise<void> {
  sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }), [...requests].reverse());
  for (const [level, scope] of [
    [10, 'all'],
    [60, 'host'],
  ] as const)
    await holdsRollups(t, store, [...requests], { level, scope });
  t.deepEqual(await store.readLedgers({ sinceMs: 0 }), ledger === undefined ? [] : [ledger]);
}

/** Asserts that the rollups of a level and scope agree with the requests that match the filter. */
export async function holdsRollups(
  t: ExecutionContext,
  store: Store,
  requests: readonly RequestEvent[],
  { level, scope, filter = {}, hosts }: { level: Level; scope: Scope; filter?: Filter; hosts?: readonly string[] },
): Promise<void> {
  const read = await store.readRollups({
    fromMs: dayMs,
    toMs: dayMs + 86_400_000,
    level,
    scope,
    filter,
    ...(hosts && { hosts }),
  });
  sameRollups(
    t,
    read,
    rollUp(
      requests.filter((one) => takesSeries(filter, one)),
      level,
      scope,
    ),
    JSON.stringify([level, scope, filter]),
  );
}

/** Asserts the same requests in the same order. */
export function sameRequests(
  t: ExecutionContext,
  read: readonly RequestEvent[],
  expected: readonly RequestEvent[],
  about?: string,
): void {
  sameTexts(t, read.map(describeRequest), expected.map(describeRequest), about);
}

/** Asserts the same rows in any order, after adding up those with the same key. */
export function sameRollups(
  t: ExecutionContext,
  read: readonly RollupRow[],
  expected: readonly RollupRow[],
  about?: string,
): void {
  sameTexts(t, describeRollups(read), describeRollups(expected), about);
}

/** Asserts the same rows in any order. */
export function sameTopLists(
  t: ExecutionContext,
  read: readonly TopRow[],
  expected: readonly TopRow[],
  about?: string,
): void {
  const describe = ({ level, windowMs, rowId, source, host, kind, packed }: TopRow): string =>
    JSON.stringify([level, windowMs, rowId, source, host, kind, packed]);
  sameTexts(t, read.map(describe).toSorted(), expected.map(describe).toSorted(), about);
}

/** A short assertion, without a diff of ten thousand rows or 64 KiB. */
function sameTexts(t: ExecutionContext, read: readonly string[], expected: readonly string[], about?: string): void {
  t.is(read.length, expected.length, about);
  const row = expected.findIndex((text, index) => text !== read[index]);
  const [readRow = '', wantedRow = ''] = [read[row], expected[row]];
  let at = 0;
  while (at < wantedRow.length && readRow[at] === wantedRow[at]) at += 1;
  const near = (text: string): string => text.slice(Math.max(0, at - 40), at + 40);
  t.is(near(readRow), near(wantedRow), about);
}

function describeRequest(event: RequestEvent): string {
  const known: Record<keyof RequestEvent, unknown> = {
    timeMs: event.timeMs,
    timeNs: event.timeNs,
    source: event.source,
    host: event.host,
    method: event.method,
    status: event.status,
    durationMs: event.durationMs,
    size: event.size,
    bytesRead: event.bytesRead,
    uri: event.uri,
    endpoint: event.endpoint,
    clientIp: event.clientIp,
    userAgent: event.userAgent,
    referrer: event.referrer,
    protocol: event.protocol,
    tls: event.tls,
    upstreamMs: event.upstreamMs,
    error: event.error,
    errorId: event.errorId,
    upstream: event.upstream,
    retries: event.retries,
    contentType: event.contentType,
    requestId: event.requestId,
  };
  return `${rfc3339(event)} ${JSON.stringify(known)} ${Object.keys(event).length}`;
}

function describeRollups(rows: readonly RollupRow[]): string[] {
  const cells = new Map<string, Cell>();
  for (const { level, windowMs, source, host, cells: ofRow } of rows) {
    for (const { method, status, ...aggregate } of ofRow) {
      const key = JSON.stringify([level, windowMs, source, host ?? null, method, status]);
      const found = cells.get(key);
      if (found === undefined) cells.set(key, { method, status, ...copyAggregate(aggregate) });
      else mergeAggregate(found, aggregate);
    }
  }
  return [...cells]
    .map(([key, cell]) => {
      const { count, sampledOut, durationSumMs, durationMaxMs, sizeSum, histogram } = roundedSum(cell);
      return `${key} ${JSON.stringify({ count, sampledOut, durationSumMs, durationMaxMs, sizeSum, total: histogram.total, histogram: histogram.pack() })}`;
    })
    .toSorted();
}

/** Whether a request matches a filter. */
export function takesRequest(
  { path, client, userAgent, referrer, requestId, error, upstream, ...ofSeries }: Filter,
  one: RequestEvent,
): boolean {
  return (
    takesSeries(ofSeries, one) &&
    (path === undefined || topValueOf.path(one) === path) &&
    (client === undefined || one.clientIp === client) &&
    (userAgent === undefined || one.userAgent === userAgent) &&
    (referrer === undefined || topValueOf.referrer(one) === referrer) &&
    (requestId === undefined || one.requestId === requestId) &&
    (error === undefined || one.error === error) &&
    (upstream === undefined || one.upstream === upstream)
  );
}

/** Whether a series matches the part of a filter that rollup rows have. */
export function takesSeries({ source, exceptSource, host, method, status }: Filter, one: Series): boolean {
  return (
    (source === undefined || one.source === source) &&
    one.source !== exceptSource &&
    (host === undefined || one.host === host) &&
    (method === undefined || one.method === method) &&
    (status === undefined || (one.status >= status.min && one.status <= status.max))
  );
}

/** Rounds sums of durations, which depend on the order of addition. */
export function roundedSum<Row extends { readonly durationSumMs: number }>(row: Row): Row {
  return { ...row, durationSumMs: Number(row.durationSumMs.toPrecision(12)) };
}
