/** Reads the latest requests, and the other halves of pairs. */
import { rfc3339, type RequestEvent } from '../../shared/request-event.js';
import { seriesKey } from '../../shared/rollup/rollup.js';
import { isServerError, serverErrors } from '../../shared/status.js';
import type { Filter } from '../../shared/store/store.js';
import { requestPairs, type RequestPairs } from '../stats/request-pairs.js';
import type { DashboardQuery } from './query.js';
import type { Reads } from './reads.js';

/** Maximum time between the log entries of Caddy and the app for one request, in milliseconds. */
const halvesApartMsMax = 10_000;
/** Maximum number of requests to search for the other halves of pairs, in addition to twice the rows. */
const othersMax = 1000;

/**
 * Reads the latest requests of a query, newest first. With `errorsFirst`, they follow up to `limit` of the latest
 * errors (5xx). Throws a `StoreError`.
 */
export async function readLatest(
  reads: Reads,
  { fromMs, toMs, filter, errorsFirst, ...query }: DashboardQuery,
  limitDefault: number,
): Promise<RequestEvent[]> {
  const limit = query.limit ?? limitDefault;
  const read = (of: Filter): Promise<RequestEvent[]> => reads.readRequests({ fromMs, toMs, filter: of, limit });
  if (!putsErrorsFirst({ errorsFirst, filter })) return read(filter);
  const [errors, latest] = await Promise.all([read({ ...filter, status: serverErrors }), read(filter)]);
  return [...errors, ...latest.filter(({ status }) => !isServerError(status))];
}

/** Streams the rows of `readLatest` in pages, at most `limit` rows in total. Not cached. Throws a `StoreError`. */
export async function* streamLatest(
  reads: Reads,
  { fromMs, toMs, filter, limit, errorsFirst }: DashboardQuery & { readonly limit: number },
): AsyncGenerator<readonly RequestEvent[]> {
  let left = limit;
  const stream = async function* (
    of: Filter,
    isWanted: (status: number) => boolean = () => true,
  ): AsyncGenerator<readonly RequestEvent[]> {
    for await (const page of reads.streamRequests({ fromMs, toMs, filter: of, limit })) {
      const rows = page.filter(({ status }) => isWanted(status)).slice(0, left);
      left -= rows.length;
      if (rows.length > 0) yield rows;
      if (left === 0) return;
    }
  };
  if (!putsErrorsFirst({ errorsFirst, filter })) {
    yield* stream(filter);
    return;
  }
  yield* stream({ ...filter, status: serverErrors });
  if (left > 0) yield* stream(filter, (status) => !isServerError(status));
}

/** A filter by status selects either errors or other requests. */
function putsErrorsFirst({ errorsFirst, filter }: Pick<DashboardQuery, 'errorsFirst' | 'filter'>): boolean {
  return errorsFirst && filter.status === undefined;
}

/**
 * Returns the pairs among requests, by request id. A filter usually excludes one half of a pair, which is then searched
 * among all requests of about the same time. Throws a `StoreError`.
 */
export async function readPairs(
  reads: Reads,
  { filter }: DashboardQuery,
  requests: readonly RequestEvent[],
): Promise<RequestPairs> {
  const timesMs = requests.filter(({ requestId }) => requestId !== '').map(({ timeMs }) => timeMs);
  if (timesMs.length === 0 || Object.keys(filter).length === 0) return requestPairs(requests);
  const { requestId } = filter;
  const others = await reads.readRequests({
    fromMs: Math.min(...timesMs) - halvesApartMsMax,
    toMs: Math.max(...timesMs) + halvesApartMsMax + 1,
    filter: requestId === undefined ? {} : { requestId },
    limit: 2 * requests.length + othersMax,
  });
  const known = new Set(requests.map(rowKey));
  return requestPairs([...requests, ...others.filter((other) => !known.has(rowKey(other)))]);
}

/**
 * Turns pages of requests into rows with their pairs. Without a filter, the other half of a request is on the same or
 * an adjacent page; with a filter, see `readPairs`. Throws a `StoreError`.
 */
export async function* pairedPages<Row>(
  reads: Reads,
  query: DashboardQuery,
  pages: AsyncIterable<readonly RequestEvent[]>,
  rowsOf: (requests: readonly RequestEvent[], pairs: RequestPairs) => Row[],
): AsyncGenerator<Row[]> {
  let before: readonly RequestEvent[] = [];
  let page: readonly RequestEvent[] | undefined;
  const paired = async (requests: readonly RequestEvent[], after: readonly RequestEvent[]): Promise<Row[]> => {
    const isFiltered = Object.keys(query.filter).length > 0;
    return rowsOf(
      requests,
      isFiltered ? await readPairs(reads, query, requests) : requestPairs([...before, ...requests, ...after]),
    );
  };
  for await (const after of pages) {
    if (page !== undefined) {
      yield await paired(page, after);
      before = page;
    }
    page = after;
  }
  if (page !== undefined) yield await paired(page, []);
}

function rowKey(request: RequestEvent): string {
  return JSON.stringify([rfc3339(request), seriesKey(request), request.endpoint]);
}
