/** The page, and the files that it links to. */
import type Router from '@koa/router';
import { dashboardSource } from '../../shared/request-event.js';
import { topDimensions } from '../../shared/top-list/top-row.js';
import { isOpenThroughProxy } from '../auth/guard.js';
import { etagOf, mustRevalidate } from '../middleware/revalidation.js';
import { topRowsMax } from '../pages/top-panels.js';
import { dashboardView, showsOwn } from '../pages/view-model.js';
import { parseUsable, unknownParameters } from '../query/query.js';
import { readEvents } from '../query/read-events.js';
import { readLatest, readPairs } from '../query/read-requests.js';
import { readTopLists } from '../query/read-top-lists.js';
import { readTraffic } from '../query/read-traffic.js';
import { readsOf, type RouteParts } from './context.js';

/** Number of raw requests on the page unless `limit` is given. */
const latestOnPage = 20;
/** Maximum number of raw requests on the page. 10,000 made 13 MB, and blocked all other responses for six seconds. */
const rowsOnPageMax = 500;
/** Maximum number of rows of events from which the page lists problems. */
const eventsOnPageMax = 2000;

/** Adds `/` and the assets. */
export function addPageRoutes(
  router: Router,
  { reads: allReads, assets, connectHint, clientIp, now }: RouteParts,
): void {
  /** Whether the last page showed the dashboard's own requests. The next one most likely does as well. */
  let showedOwn = false;

  router.get('/', async (ctx) => {
    const reads = readsOf(ctx, allReads);
    const { query, problems } = parseUsable(ctx.query, now(), { rowsMax: rowsOnPageMax, clientIp });
    const readRows = async (withOwn: boolean) => {
      const { filter } = query;
      const ofOthers = { ...query, filter: { ...filter, exceptSource: dashboardSource } };
      const latest = await readLatest(reads, withOwn || filter.source !== undefined ? query : ofOthers, latestOnPage);
      return { latest, pairs: await readPairs(reads, query, latest), withOwn };
    };
    const [traffic, topLists, read, events] = await Promise.all([
      readTraffic(reads, query, {
        nowMs: now(),
        withPrevious: query.compare,
        withRecent: true,
        hostsMax: topRowsMax,
        withPairs: true,
      }),
      readTopLists(reads, query, { dimensions: topDimensions, nowMs: now() }),
      readRows(showedOwn),
      readEvents(reads, query, { limit: eventsOnPageMax }),
    ]);
    showedOwn = showsOwn(query, traffic);
    const { latest, pairs } = read.withOwn === showedOwn ? read : await readRows(showedOwn);
    const view = dashboardView({
      query,
      traffic,
      topLists,
      latest,
      pairs,
      events,
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
    // Hashes the view, so that an unchanged page need not be rendered.
    const etag = etagOf(JSON.stringify([assets.stylesheet.url, assets.script.url, view]));
    ctx.set('ETag', etag);
    ctx.set('Cache-Control', mustRevalidate);
    ctx.status = 200;
    if (ctx.fresh) ctx.status = 304;
    else await ctx.render('dashboard', { assets, view, etag });
  });

  router.get('/assets/:file', (ctx) => {
    const asset = [assets.stylesheet, assets.icon, assets.script].find(({ url }) => url === ctx.path);
    if (asset === undefined) return; // 404
    ctx.set('Cache-Control', 'public, max-age=31536000, immutable');
    ctx.body = asset.body;
    ctx.set('Content-Type', asset.type);
  });
}
