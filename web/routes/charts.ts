/** Each chart of the page by itself: as SVG, CSV and JSON. */
import type Router from '@koa/router';
import type { Context } from 'koa';
import { caddySource } from '../../shared/request-event.js';
import { timeChartDocument } from '../chart/time-chart.js';
import { chartKinds, pairChartKinds, type ChartKind } from '../pages/chart-kinds.js';
import { chartedPairs, chartedSources, chartOf, chartRow, type Charted } from '../pages/charts.js';
import type { DashboardQuery } from '../query/query.js';
import { readTraffic, type Traffic } from '../query/read-traffic.js';
import { answerRows, queryOf, readsOf, type RouteParts } from './context.js';

type ChartRouteParts = Pick<RouteParts, 'reads' | 'assets' | 'clientIp' | 'now'>;

/** Adds `/chart/NAME.svg`, `.csv` and `.json` for every chart. */
export function addChartRoutes(router: Router, parts: ChartRouteParts): void {
  for (const kind of chartKinds) {
    addChart(router, parts, kind, { queryFor: (ctx) => queryOf(ctx, parts), chartedOf: chartedSources });
  }
  for (const kind of pairChartKinds) {
    addChart(router, parts, kind, {
      // A filter by source would leave nothing to compare.
      queryFor: (ctx) => queryOf(ctx, parts, { ...ctx.query, source: undefined }),
      chartedOf: chartedPairs,
      isOfPairs: true,
    });
  }
}

/** How a chart gets its data. */
interface ChartData<Window extends { readonly timeMs: number }> {
  readonly queryFor: (ctx: Context) => DashboardQuery;
  readonly chartedOf: (traffic: Traffic) => Charted<Window>[];
  /** Whether it compares Caddy with an app. */
  readonly isOfPairs?: boolean;
}

function addChart<Window extends { readonly timeMs: number }>(
  router: Router,
  parts: ChartRouteParts,
  kind: ChartKind<Window>,
  { queryFor, chartedOf, isOfPairs = false }: ChartData<Window>,
): void {
  const { reads, assets, now } = parts;
  const read = async (ctx: Context, { withPrevious = false } = {}) => {
    const {
      filter: { source },
      compare,
    } = queryOf(ctx, parts);
    const traffic = await readTraffic(readsOf(ctx, reads), queryFor(ctx), {
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

  // The source asked for, or the first one.
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
