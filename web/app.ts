/** The web app, put together from its parts; no sockets here. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import Router from '@koa/router';
import Koa, { type Context, type Middleware } from 'koa';
import compress from 'koa-compress';
import helmet from 'koa-helmet';
import { messageOf } from '../shared/errors.js';
import type { Log } from '../shared/log.js';
import type { Recorder } from '../shared/record/recorder.js';
import { caddySource, dashboardSource } from '../shared/request-event.js';
import { topDimensions } from '../shared/top-list/top-row.js';
import { admission, busy } from './middleware/admission.js';
import { timeChartDocument } from './chart/time-chart.js';
import type { WebConfig } from './config.js';
import {
  ledgerAnswer,
  ledgerCsvRow,
  requestsAnswer,
  seriesAnswer,
  summaryAnswer,
  topAnswer,
  siteAnswer,
  siteSeriesAnswer,
} from './routes/answers.js';
import {
  chartedPairs,
  chartedSources,
  chartKinds,
  chartOf,
  chartRow,
  pairChartKinds,
  type Charted,
  type ChartKind,
} from './pages/charts.js';
import { csv, type CsvValue } from './routes/csv.js';
import {
  filterNames,
  parseQuery,
  parseUsable,
  QueryError,
  unknownParameters,
  type DashboardQuery,
} from './query/query.js';
import {
  pairedPages,
  pingStore,
  readLatest,
  readLedgers,
  readPairs,
  readSampled,
  readTopLists,
  readTraffic,
  streamLatest,
  type Reads,
  type Traffic,
} from './query/read.js';
import { readSites, readSiteWindows } from './query/read-sites.js';
import { afterOf, parseSitePage, type SitePage } from './query/sites.js';
import { agentDimensions, exactList, isOfAgents, isOfRequests, listOf, type TopList } from './query/top-lists.js';
import { topRowsMax } from './pages/top-panels.js';
import { dashboardView, showsOwn } from './pages/view-model.js';
import { isOpenThroughProxy, probes, refuseOtherNames, refuseOtherSites, requirePassword } from './auth/guard.js';
import { createWebMetrics } from './metrics.js';
import { answerErrors, Problem } from './problem.js';
import { renderViews, type Asset, type Assets } from './render.js';
import { measureRequests } from './middleware/request-metrics.js';
import { rowStream, RowStreams } from './routes/row-stream.js';

/** What the web app is made from. */
export interface WebAppOptions {
  readonly config: Pick<WebConfig, 'password' | 'loopbackNamesOnly' | 'clientIp' | 'connectHint'>;
  /** Of the store, with what is kept of it. */
  readonly reads: Reads;
  /** Takes the app's own requests. */
  readonly recorder: Pick<Recorder, 'record'>;
  readonly log: Log;
  readonly assets: Assets;
  /** The clock, in milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
  /** A clock in milliseconds that never steps. Default: `performance.now`. */
  readonly monotonicMs?: (() => number) | undefined;
}

/** Raw requests on the page, and rows in `/api/requests` and `/api/top/…` where no `limit` is given. */
const latestOnPage = 20;
const latestInApi = 100;
/** Rows that are answered in one piece, with an ETag. More are sent page by page. */
const heldRowsMax = 500;
/** The most raw requests on the page: ten thousand were 13 MB, and six seconds in which nobody else was answered. */
const rowsOnPageMax = 500;
/** Raw requests that the lists of the page are made from under a filter; the API reads more. */
const listedOnPageMax = 5000;

/** Makes the Koa app. */
export function createWebApp({
  config,
  reads,
  recorder,
  log,
  assets,
  now = Date.now,
  monotonicMs,
}: WebAppOptions): Koa {
  const metrics = createWebMetrics({
    storeUp: () =>
      pingStore(reads.store).then(
        () => true,
        () => false,
      ),
  });
  const app = new Koa();
  app.on('error', (error: NodeJS.ErrnoException) => {
    if (!isClientGone(error)) log.error(`Cannot finish an answer: ${messageOf(error)}`);
  });
  app.use(securityHeaders());
  app.use(refuseOtherSites({ log })); // before the recorder too: other sites are to write no rows
  app.use(measured({ metrics, recorder }));
  app.use(compress({ zstd: false }));
  app.use(revalidation());
  app.use(renderViews());
  app.use(answerErrors({ log, assets }));
  if (config.loopbackNamesOnly === true) app.use(refuseOtherNames({ log }));
  if (config.password !== undefined) app.use(requirePassword(config.password, { log, monotonicMs }));
  app.use(admission());
  const router = routes({ reads, assets, metrics, connectHint: config.connectHint, clientIp: config.clientIp, now });
  app.use(router.routes());
  app.use(router.allowedMethods());
  return app;
}

/**
 * Measures requests, and records all but the polls of an open page: they would be new requests to show, so that no poll
 * could ever be told that nothing has changed.
 */
function measured({
  metrics,
  recorder,
}: {
  metrics: ReturnType<typeof createWebMetrics>;
  recorder: Pick<Recorder, 'record'>;
}): Middleware {
  const every = measureRequests({
    source: dashboardSource,
    recorder: {
      record(event) {
        metrics.observe(event);
        // Probes come by the clock: counted with the rest, they would be most of a quiet site's traffic.
        return probes.has(event.endpoint) || recorder.record(event);
      },
    },
  });
  const poll = measureRequests({
    source: dashboardSource,
    recorder: {
      record(event) {
        metrics.observe(event);
        return true;
      },
    },
  });
  return async (ctx, next) => {
    await (ctx.get('X-Poll') === '' ? every : poll)(ctx, next);
  };
}

interface RouteParts {
  readonly reads: Reads;
  readonly assets: Assets;
  readonly metrics: ReturnType<typeof createWebMetrics>;
  readonly connectHint: readonly string[];
  readonly clientIp: WebConfig['clientIp'];
  readonly now: () => number;
}

function routes({ reads: allReads, assets, metrics, connectHint, clientIp, now }: RouteParts): Router {
  const router = new Router();
  const streams = new RowStreams();
  const signalOf = (ctx: Context): AbortSignal => ctx.state['signal'] as AbortSignal;
  /** The reads of one answer: they are cancelled when its client has gone. */
  const readsOf = (ctx: Context): Reads => ({ ...allReads, signal: signalOf(ctx) });
  const queryOf = (ctx: Context, raw = ctx.query): DashboardQuery => {
    const ignored = unknownParameters(raw);
    if (ignored.length > 0)
      ctx.set(
        'X-Ignored-Parameters',
        ignored
          .map((name) => encodeURIComponent(name.toWellFormed()))
          .join(', ')
          .slice(0, 500),
      );
    return parseQuery(raw, now(), { clientIp });
  };

  /** One list, of the first source: what passes through both edge and app would count twice. */
  const readList = async (
    reads: Reads,
    dimension: Dimension,
    query: DashboardQuery,
  ): Promise<{ list: TopList; complete: boolean }> => {
    const untold =
      dimension === 'country'
        ? filterNames.find((name) => name !== 'source' && query.given[name] !== undefined)
        : undefined;
    if (untold !== undefined)
      throw new QueryError(
        untold,
        query.given[untold]!,
        'none for countries, which are not stored with single requests: leave it out',
      );
    const inRollups = dimension === 'host' || dimension === 'method';
    const needed = inRollups ? [] : isOfAgents(dimension) ? ['user_agent' as const] : [dimension];
    const [traffic, topLists] = await Promise.all([
      readTraffic(reads, query, { nowMs: now(), hostsMax: dimension === 'host' ? (query.limit ?? latestInApi) : 0 }),
      inRollups ? undefined : readTopLists(reads, query, { dimensions: needed, nowMs: now() }),
    ]);
    if (inRollups)
      return {
        list: dimension === 'host' ? exactList(traffic.hosts.figures, traffic.hosts) : exactList(traffic.methods),
        complete: traffic.complete,
      };
    const [source] = traffic.sources.keys();
    const listsAll =
      topLists?.ofNewest === undefined &&
      topLists?.retainedFromMs === undefined &&
      (traffic.sampled === undefined || !isOfRequests(query.filter));
    return {
      list: listOf(topLists?.bySource.get(source ?? caddySource), dimension),
      complete: traffic.complete && listsAll,
    };
  };

  /** Whether the last page showed the dashboard's own requests: the next one will as well, most likely. */
  let showedOwn = false;

  router.get('/', async (ctx) => {
    const reads = readsOf(ctx);
    const { query, problems } = parseUsable(ctx.query, now(), { rowsMax: rowsOnPageMax, clientIp });
    const readRows = async (withOwn: boolean) => {
      const { filter } = query;
      const latest = await readLatest(
        reads,
        withOwn || filter.source !== undefined
          ? query
          : { ...query, filter: { ...filter, exceptSource: dashboardSource } },
        latestOnPage,
      );
      return { latest, pairs: await readPairs(reads, query, latest), withOwn };
    };
    const [traffic, topLists, read] = await Promise.all([
      readTraffic(reads, query, {
        nowMs: now(),
        withPrevious: query.compare,
        withRecent: true,
        hostsMax: topRowsMax,
        withPairs: true,
      }),
      readTopLists(reads, query, { dimensions: topDimensions, requestsMax: listedOnPageMax, nowMs: now() }),
      readRows(showedOwn),
    ]);
    showedOwn = showsOwn(query, traffic);
    const { latest, pairs } = read.withOwn === showedOwn ? read : await readRows(showedOwn);
    const view = dashboardView({
      query,
      traffic,
      topLists,
      latest,
      pairs,
      nowMs: now(),
      connectHint,
      clientIp,
      problems,
      ignored: unknownParameters(ctx.query),
      isOpenThroughProxy: isOpenThroughProxy(ctx),
    });
    if (problems.length > 0) {
      ctx.status = 400;
      await ctx.render('dashboard', { assets, view });
      return;
    }
    // Over what the page says, so that a page that has not changed need not be rendered.
    const etag = etagOf(JSON.stringify([assets.stylesheet.url, assets.script.url, view]));
    ctx.set('ETag', etag);
    ctx.set('Cache-Control', revalidate);
    ctx.status = 200;
    if (ctx.fresh) ctx.status = 304;
    else await ctx.render('dashboard', { assets, view, etag });
  });

  router.get('/api/ping', (ctx) => {
    ctx.body = { pong: true };
  });

  router.get('/api/summary', async (ctx) => {
    const reads = readsOf(ctx);
    const query = queryOf(ctx);
    ctx.body = summaryAnswer(
      ...(await Promise.all([
        readTraffic(reads, query, { nowMs: now() }),
        readTopLists(reads, query, { dimensions: [], nowMs: now() }),
      ])),
    );
  });

  for (const extension of ['', '.csv'] as const) {
    router.get(`/api/sites${extension}`, async (ctx) => {
      const query = queryOf(ctx);
      const { sites, hasMore } = await readSites(readsOf(ctx), query, sitePageOf(ctx, query), now());
      setNext(ctx, hasMore, sites.at(-1));
      if (extension === '') ctx.body = sites.map(siteAnswer);
      else
        answerRows(
          ctx,
          extension,
          sites.map((site) => ({ ...siteAnswer(site), spark: site.spark.join(' ') })),
          siteColumns,
        );
    });

    router.get(`/api/series${extension}`, async (ctx) => {
      const by = textOf(ctx.query['by']);
      if (by !== undefined && by !== 'host') throw new QueryError('by', by, 'host');
      if (by === 'host') {
        const query = queryOf(ctx);
        const { windows, last, hasMore } = await readSiteWindows(readsOf(ctx), query, sitePageOf(ctx, query), now());
        setNext(ctx, hasMore, last);
        answerRows(ctx, extension, windows.map(siteSeriesAnswer), siteSeriesColumns);
        return;
      }
      const traffic = await readTraffic(readsOf(ctx), queryOf(ctx), { nowMs: now() });
      ctx.set('X-Complete', String(traffic.complete));
      answerRows(ctx, extension, traffic.windows.map(seriesAnswer), seriesColumns);
    });

    for (const dimension of dimensions) {
      router.get(`/api/top/${dimension}${extension}`, async (ctx) => {
        const query = queryOf(ctx);
        const { list, complete } = await readList(readsOf(ctx), dimension, query);
        ctx.set('X-Complete', String(complete));
        answerRows(
          ctx,
          extension,
          topAnswer(list, query.limit ?? latestInApi),
          dimension === 'host' || dimension === 'method' ? exactColumns : topColumns,
        );
      });
    }

    router.get(`/api/requests${extension}`, async (ctx) => {
      const query = queryOf(ctx);
      const reads = readsOf(ctx);
      const limit = query.limit ?? latestInApi;
      const isHeld = limit <= heldRowsMax;
      const [found, sampled] = await Promise.all([
        isHeld ? readLatest(reads, query, latestInApi) : [],
        readSampled(reads, query, now()),
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
      const first = await rows.next(); // what goes wrong at once is answered with its own status
      ctx.body = rowStream(extension === '' ? 'json' : 'csv', requestColumns, andThen(first, rows), sending);
      ctx.type = extension === '' ? 'json' : csvType;
    });
  }

  router.get('/api/top/:dimension', (ctx) => {
    throw new Problem(
      404,
      'Not found',
      `There is no list by ${JSON.stringify(ctx.path.slice('/api/top/'.length).slice(0, 100))}; there are lists by ${dimensions.join(', ')}, each also with .csv.`,
    );
  });

  router.get('/api/ledger', async (ctx) => {
    ctx.body = ledgerAnswer(await readLedgers(readsOf(ctx), queryOf(ctx)));
  });

  router.get('/api/ledger.csv', async (ctx) => {
    answerRows(ctx, '.csv', (await readLedgers(readsOf(ctx), queryOf(ctx))).map(ledgerCsvRow), ledgerColumns);
  });

  for (const kind of chartKinds) chartRoutes(kind, queryOf, chartedSources);
  // A filter by source would leave nothing to compare with.
  for (const kind of pairChartKinds)
    chartRoutes(kind, (ctx) => queryOf(ctx, { ...ctx.query, source: undefined }), chartedPairs, { isOfPairs: true });

  function chartRoutes<Window extends { readonly timeMs: number }>(
    kind: ChartKind<Window>,
    readQueryOf: (ctx: Context) => DashboardQuery,
    chartedOf: (traffic: Traffic) => Charted<Window>[],
    { isOfPairs = false } = {},
  ): void {
    const read = async (ctx: Context, { withPrevious = false } = {}) => {
      const {
        filter: { source },
        compare,
      } = queryOf(ctx);
      const traffic = await readTraffic(readsOf(ctx), readQueryOf(ctx), {
        nowMs: now(),
        withPrevious: withPrevious && compare,
        withPairs: isOfPairs,
      });
      return {
        source,
        traffic,
        charted: chartedOf(traffic).filter(({ name }) => source === undefined || name === source),
      };
    };
    const rowsOf = async (ctx: Context): Promise<ReturnType<typeof chartRow>[]> => {
      const {
        traffic: { stepMs, firstMs },
        charted,
      } = await read(ctx);
      const windows = charted.flatMap(({ name, windows: some }) => some.map((window) => ({ name, window })));
      return windows
        .sort((a, b) => a.window.timeMs - b.window.timeMs)
        .map(({ name, window }) => chartRow(kind, name, window, { stepMs, firstMs, nowMs: now() }));
    };

    // Of the source that is asked for, or else of the first one.
    router.get(`/chart/${kind.name}.svg`, async (ctx) => {
      const { source, traffic, charted } = await read(ctx, { withPrevious: true });
      const [first = { name: source ?? caddySource, windows: [], before: undefined }] = charted;
      ctx.set('Content-Security-Policy', `default-src 'none'; style-src ${assets.styleHash}`);
      ctx.type = 'image/svg+xml';
      ctx.body = timeChartDocument(
        chartOf(kind, first, traffic, { id: kind.name, nowMs: now() }),
        assets.stylesheet.body,
      );
    });

    router.get(`/chart/${kind.name}.csv`, async (ctx) => {
      answerRows(ctx, '.csv', await rowsOf(ctx), ['time', 'source', ...kind.series.map(({ label }) => label)]);
    });

    router.get(`/chart/${kind.name}.json`, async (ctx) => {
      ctx.body = await rowsOf(ctx);
    });
  }

  for (const asset of [assets.stylesheet, assets.icon, assets.script]) router.get(asset.url, serveAsset(asset));

  router.get('/health', (ctx) => {
    ctx.body = { status: 'ok' };
  });

  router.get('/ready', async (ctx) => {
    await pingStore(allReads.store);
    ctx.body = { status: 'ready' };
  });

  router.get('/metrics', async (ctx) => {
    ctx.body = await metrics.text();
    ctx.set('Content-Type', metrics.contentType);
  });

  return router;
}

/** The page of the sites that a request asks for. */
function sitePageOf(ctx: Context, { limit }: DashboardQuery): SitePage {
  return parseSitePage({ sort: textOf(ctx.query['sort']), after: textOf(ctx.query['after']) }, limit ?? sitesInAnswer);
}

const sitesInAnswer = 100;

/** A parameter that is given once; `undefined` if it is empty. */
function textOf(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** Sets `X-Next` to the cursor of the next page, if there is one. */
function setNext(
  ctx: Context,
  hasMore: boolean,
  last: { readonly source: string; readonly host: string } | undefined,
): void {
  if (hasMore && last !== undefined) ctx.set('X-Next', afterOf(last));
}

const siteColumns = [
  'source',
  'host',
  'requests',
  'errors',
  'client_errors',
  'bytes',
  'duration_ms.mean',
  'duration_ms.p50',
  'duration_ms.p95',
  'duration_ms.p99',
  'last_request',
  'spark',
];
const siteSeriesColumns = [
  'time',
  'source',
  'host',
  'requests',
  'errors',
  'bytes',
  'duration_ms.mean',
  'duration_ms.p50',
  'duration_ms.p95',
  'duration_ms.p99',
  'statuses',
];
const seriesColumns = [
  'time',
  'source',
  'requests',
  'errors',
  'bytes',
  'duration_ms.mean',
  'duration_ms.p50',
  'duration_ms.p95',
  'duration_ms.p99',
  'statuses',
];
const exactColumns = ['value', 'count', 'share', 'errors', 'bytes', 'duration_ms.mean', 'duration_ms.p95'];
const topColumns = [...exactColumns, 'count_max'];

/** What there are lists by. */
const dimensions = [...topDimensions, 'host', 'method', ...agentDimensions] as const;
type Dimension = (typeof dimensions)[number];
const requestColumns = [
  'time',
  'source',
  'method',
  'host',
  'uri',
  'status',
  'duration_ms',
  'size',
  'bytes_read',
  'endpoint',
  'client_ip',
  'user_agent',
  'referrer',
  'protocol',
  'tls',
  'upstream_ms',
  'request_id',
  'pair.edge_ms',
  'pair.app_ms',
  'pair.outside_ms',
];
const ledgerColumns = [
  'collector',
  'received',
  'accepted',
  'runtime',
  'rejected',
  'dropped',
  'stored',
  'spooled',
  'in_memory',
  'dead_lettered',
  'warnings',
  'last_line',
];

function answerRows(
  ctx: Context,
  extension: '' | '.csv',
  rows: readonly Readonly<Record<string, CsvValue>>[],
  columns: readonly string[],
): void {
  if (extension === '') {
    ctx.body = rows;
    return;
  }
  ctx.body = csv(columns, rows);
  ctx.set('Content-Type', csvType);
}

const csvType = 'text/csv; charset=utf-8; header=present';

async function* andThen<Page>(first: IteratorResult<Page>, rest: AsyncGenerator<Page>): AsyncGenerator<Page> {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}

function serveAsset({ body, type }: Asset): Middleware {
  return (ctx) => {
    ctx.set('Cache-Control', 'public, max-age=31536000, immutable');
    ctx.body = body;
    ctx.set('Content-Type', type);
  };
}

/** May be kept, by the browser alone, and has to be asked for again with its ETag. */
const revalidate = 'private, no-cache';

/**
 * Gives what the API and the charts answer with an ETag over its body; a client that has it already is told so with
 * 304.
 */
function revalidation(): Middleware {
  return async (ctx, next) => {
    await next();
    if (ctx.status !== 200 || !/^\/(?:api|chart)\//.test(ctx.path)) return;
    ctx.set('Cache-Control', revalidate);
    if (ctx.body instanceof Readable) return; // not known yet
    ctx.set('ETag', etagOf(typeof ctx.body === 'string' ? ctx.body : JSON.stringify(ctx.body)));
    if (ctx.fresh) ctx.status = 304;
  };
}

/** Weak, since the same content may be sent compressed in several ways. */
function etagOf(content: string): string {
  return `W/"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`;
}

/**
 * A strict policy: one style sheet, one icon, one script that asks for this page again, forms that lead here. The page
 * may be served over plain HTTP, so nothing here makes browsers insist on HTTPS; a proxy in front can.
 */
function securityHeaders(): Middleware {
  const headers = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        'default-src': ["'none'"],
        'style-src': ["'self'"],
        'img-src': ["'self'"],
        'script-src': ["'self'"],
        'connect-src': ["'self'"],
        'form-action': ["'self'"],
        'base-uri': ["'none'"],
        'frame-ancestors': ["'none'"],
      },
    },
    strictTransportSecurity: false,
    // Browsers ignore these over plain HTTP, and complain in the console.
    crossOriginOpenerPolicy: false,
    originAgentCluster: false,
  });
  return async (ctx, next) => {
    ctx.set('Cache-Control', 'no-store');
    await headers(ctx, next);
  };
}

function isClientGone({ code }: NodeJS.ErrnoException): boolean {
  return code === 'ECONNRESET' || code === 'EPIPE' || code === 'ECONNABORTED' || code === 'ERR_STREAM_PREMATURE_CLOSE';
}
