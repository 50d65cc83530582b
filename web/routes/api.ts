/** The API: names and shapes that users depend on are in `answers.ts`. */
import type Router from '@koa/router';
import type { Context } from 'koa';
import { caddySource } from '../../shared/request-event.js';
import { caddyLevels, type CaddyLevel } from '../../shared/caddy-event.js';
import { topDimensions } from '../../shared/top-list/top-row.js';
import { busy } from '../middleware/admission.js';
import { Problem } from '../problem.js';
import { filterNames, QueryError, type DashboardQuery } from '../query/query.js';
import { readEvents } from '../query/read-events.js';
import { pairedPages, readLatest, readPairs, streamLatest } from '../query/read-requests.js';
import { readSites, readSiteWindows } from '../query/read-sites.js';
import { isOfRequests, readTopLists } from '../query/read-top-lists.js';
import { readSampled, readTraffic } from '../query/read-traffic.js';
import type { Reads } from '../query/reads.js';
import { afterOf, parseSitePage, type SitePage } from '../query/sites.js';
import { agentDimensions, exactList, isOfAgents, listOf, type TopList } from '../stats/top-lists.js';
import {
  eventAnswer,
  eventCsvRow,
  ledgerAnswer,
  ledgerCsvRow,
  requestsAnswer,
  seriesAnswer,
  siteAnswer,
  siteSeriesAnswer,
  summaryAnswer,
  topAnswer,
} from './answers.js';
import { answerRows, csvType, extensions, queryOf, readsOf, signalOf, textOf, type RouteParts } from './context.js';
import { rowStream, RowStreams } from './row-stream.js';

type ApiParts = Pick<RouteParts, 'reads' | 'clientIp' | 'now'>;

/** Number of rows in `/api/requests`, `/api/top/…` and `/api/sites` unless `limit` is given. */
const rowsDefault = 100;
/** Maximum number of rows that are sent in one piece, with an ETag. More are streamed in pages. */
const heldRowsMax = 500;

/** Dimensions that have a list. */
const dimensions = [...topDimensions, 'host', 'method', ...agentDimensions] as const;
type Dimension = (typeof dimensions)[number];

const latencyColumns = ['duration_ms.mean', 'duration_ms.p50', 'duration_ms.p95', 'duration_ms.p99'];
const seriesColumns = ['time', 'source', 'requests', 'errors', 'bytes', ...latencyColumns, 'statuses'];
const siteSeriesColumns = ['time', 'source', 'host', 'requests', 'errors', 'bytes', ...latencyColumns, 'statuses'];
const siteColumns = [
  ...['source', 'host', 'requests', 'errors', 'client_errors', 'bytes', ...latencyColumns],
  ...['last_request', 'spark'],
];
const exactColumns = ['value', 'count', 'share', 'errors', 'bytes', 'duration_ms.mean', 'duration_ms.p95'];
const topColumns = [...exactColumns, 'count_max'];
const requestColumns = [
  ...['time', 'source', 'method', 'host', 'uri', 'status', 'duration_ms', 'size', 'bytes_read', 'endpoint'],
  ...['client_ip', 'user_agent', 'referrer', 'protocol', 'tls', 'upstream_ms', 'request_id'],
  ...['pair.edge_ms', 'pair.app_ms', 'pair.outside_ms', 'error', 'error_id', 'upstream', 'retries', 'content_type'],
];
const eventColumns = [
  ...['time', 'last', 'count', 'level', 'logger', 'message', 'error', 'reason', 'host', 'method', 'uri', 'status'],
  ...['error_id', 'upstream', 'fields'],
];
const ledgerColumns = [
  ...['collector', 'received', 'accepted', 'runtime', 'rejected', 'dropped', 'stored', 'spooled', 'in_memory'],
  ...['dead_lettered', 'warnings', 'last_line', 'events', 'other'],
];

/** Adds `/api/…`. */
export function addApiRoutes(router: Router, parts: ApiParts): void {
  router.get('/api/ping', (ctx) => {
    ctx.body = { message: 'pong', pong: true };
  });
  addSummary(router, parts);
  addSites(router, parts);
  addSeries(router, parts);
  addTopLists(router, parts);
  addRequests(router, parts);
  addEvents(router, parts);
  addLedger(router, parts);
}

function addSummary(router: Router, parts: ApiParts): void {
  router.get('/api/summary', async (ctx) => {
    const reads = readsOf(ctx, parts.reads);
    const query = queryOf(ctx, parts);
    const nowMs = parts.now();
    const [traffic, topLists] = await Promise.all([
      readTraffic(reads, query, { nowMs }),
      readTopLists(reads, query, { dimensions: [], nowMs }),
    ]);
    ctx.body = summaryAnswer(traffic, topLists);
  });
}

function addSites(router: Router, parts: ApiParts): void {
  for (const extension of extensions) {
    router.get(`/api/sites${extension}`, async (ctx) => {
      const query = queryOf(ctx, parts);
      const page = sitePageOf(ctx, query);
      const { sites, hasMore } = await readSites(readsOf(ctx, parts.reads), query, page, parts.now());
      setNext(ctx, hasMore, sites.at(-1));
      if (extension === '') {
        ctx.body = sites.map(siteAnswer);
        return;
      }
      const rows = sites.map((site) => ({ ...siteAnswer(site), spark: site.spark.join(' ') }));
      answerRows(ctx, extension, rows, siteColumns);
    });
  }
}

function addSeries(router: Router, parts: ApiParts): void {
  for (const extension of extensions) {
    router.get(`/api/series${extension}`, async (ctx) => {
      const by = textOf(ctx.query['by']);
      if (by !== undefined && by !== 'host') throw new QueryError('by', by, 'host');
      const reads = readsOf(ctx, parts.reads);
      const query = queryOf(ctx, parts);
      if (by === 'host') {
        const { windows, last, hasMore } = await readSiteWindows(reads, query, sitePageOf(ctx, query), parts.now());
        setNext(ctx, hasMore, last);
        answerRows(ctx, extension, windows.map(siteSeriesAnswer), siteSeriesColumns);
        return;
      }
      const traffic = await readTraffic(reads, query, { nowMs: parts.now() });
      ctx.set('X-Complete', String(traffic.complete));
      answerRows(ctx, extension, traffic.windows.map(seriesAnswer), seriesColumns);
    });
  }
}

function addTopLists(router: Router, parts: ApiParts): void {
  for (const extension of extensions) {
    for (const dimension of dimensions) {
      router.get(`/api/top/${dimension}${extension}`, async (ctx) => {
        const query = queryOf(ctx, parts);
        const { list, complete } = await readList(readsOf(ctx, parts.reads), dimension, query, parts.now());
        ctx.set('X-Complete', String(complete));
        const columns = isInRollups(dimension) ? exactColumns : topColumns;
        answerRows(ctx, extension, topAnswer(list, query.limit ?? rowsDefault), columns);
      });
    }
  }
  router.get('/api/top/:dimension', (ctx) => {
    const name = JSON.stringify(ctx.path.slice('/api/top/'.length).slice(0, 100));
    throw new Problem(
      404,
      'Not found',
      `There is no list by ${name}; there are lists by ${dimensions.join(', ')}, each also with .csv.`,
    );
  });
}

function isInRollups(dimension: Dimension): dimension is 'host' | 'method' {
  return dimension === 'host' || dimension === 'method';
}

/** Reads one list of the first source. A list of all would count requests twice that pass through Caddy and an app. */
async function readList(
  reads: Reads,
  dimension: Dimension,
  query: DashboardQuery,
  nowMs: number,
): Promise<{ list: TopList; complete: boolean }> {
  if (dimension === 'country') refuseCountryFilter(query);
  if (isInRollups(dimension)) {
    const hostsMax = dimension === 'host' ? (query.limit ?? rowsDefault) : 0;
    const { hosts, methods, complete } = await readTraffic(reads, query, { nowMs, hostsMax });
    return { list: dimension === 'host' ? exactList(hosts.figures, hosts) : exactList(methods), complete };
  }
  const [traffic, topLists] = await Promise.all([
    readTraffic(reads, query, { nowMs }),
    readTopLists(reads, query, { dimensions: [isOfAgents(dimension) ? 'user_agent' : dimension], nowMs }),
  ]);
  const [source = caddySource] = traffic.sources.keys();
  const listsAll =
    topLists.ofNewest === undefined &&
    topLists.retainedFromMs === undefined &&
    (traffic.sampled === undefined || !isOfRequests(query.filter));
  return { list: listOf(topLists.bySource.get(source), dimension), complete: traffic.complete && listsAll };
}

function refuseCountryFilter({ given }: DashboardQuery): void {
  const name = filterNames.find((each) => each !== 'source' && given[each] !== undefined);
  if (name === undefined) return;
  throw new QueryError(name, given[name]!, 'none for countries, which raw requests do not have: leave it out');
}

function addRequests(router: Router, parts: ApiParts): void {
  const streams = new RowStreams();
  for (const extension of extensions) {
    router.get(`/api/requests${extension}`, async (ctx) => {
      const query = queryOf(ctx, parts);
      const reads = readsOf(ctx, parts.reads);
      const limit = query.limit ?? rowsDefault;
      const isHeld = limit <= heldRowsMax;
      const [found, sampled] = await Promise.all([
        isHeld ? readLatest(reads, query, rowsDefault) : [],
        readSampled(reads, query, parts.now()),
      ]);
      ctx.set('X-Complete', String(sampled === undefined));
      if (sampled !== undefined) ctx.set('X-Sampled', `${sampled.kept}/${sampled.of}`);
      if (isHeld) {
        const requests = found.slice(0, limit);
        answerRows(ctx, extension, requestsAnswer(requests, await readPairs(reads, query, requests)), requestColumns);
        return;
      }
      const sending = streams.open(signalOf(ctx));
      if (sending === undefined) throw busy('As many large answers as can be sent at once are on their way.');
      const rows = pairedPages(reads, query, streamLatest(reads, { ...query, limit }), requestsAnswer);
      const first = await rows.next(); // an immediate error gets its own status
      ctx.body = rowStream(extension === '' ? 'json' : 'csv', requestColumns, andThen(first, rows), sending);
      ctx.type = extension === '' ? 'json' : csvType;
    });
  }
}

async function* andThen<Page>(first: IteratorResult<Page>, rest: AsyncGenerator<Page>): AsyncGenerator<Page> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}

function addEvents(router: Router, parts: ApiParts): void {
  for (const extension of extensions) {
    router.get(`/api/events${extension}`, async (ctx) => {
      const query = queryOf(ctx, parts);
      const events = await readEvents(readsOf(ctx, parts.reads), query, {
        levels: levelsOf(textOf(ctx.query['level'])),
        logger: textOf(ctx.query['logger']),
        limit: query.limit ?? rowsDefault,
      });
      if (extension === '') ctx.body = events.map(eventAnswer);
      else answerRows(ctx, extension, events.map(eventCsvRow), eventColumns);
    });
  }
}

/** Parses `level=warn,error`. */
function levelsOf(text: string | undefined): readonly CaddyLevel[] | undefined {
  if (text === undefined) return undefined;
  return text.split(',').map((name) => {
    const level = caddyLevels.find((each) => each === name);
    if (level === undefined) throw new QueryError('level', text, `a list of ${caddyLevels.join(', ')}`);
    return level;
  });
}

function addLedger(router: Router, parts: ApiParts): void {
  router.get('/api/ledger', async (ctx) => {
    ctx.body = ledgerAnswer(await readsOf(ctx, parts.reads).readLedgers(queryOf(ctx, parts)));
  });

  router.get('/api/ledger.csv', async (ctx) => {
    const ledgers = await readsOf(ctx, parts.reads).readLedgers(queryOf(ctx, parts));
    answerRows(ctx, '.csv', ledgers.map(ledgerCsvRow), ledgerColumns);
  });
}

/** The page of sites that a request asks for. */
function sitePageOf(ctx: Context, { limit }: DashboardQuery): SitePage {
  return parseSitePage({ sort: textOf(ctx.query['sort']), after: textOf(ctx.query['after']) }, limit ?? rowsDefault);
}

/** Sets `X-Next` to the cursor of the next page, if there is one. */
function setNext(
  ctx: Context,
  hasMore: boolean,
  last: { readonly source: string; readonly host: string } | undefined,
): void {
  if (hasMore && last !== undefined) ctx.set('X-Next', afterOf(last));
}
