/**
 * The whole page as it was, from the demo's traffic at a fixed time: `page.golden.html` can be opened in a browser,
 * once the style sheet is built.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import test from 'ava';
import Koa from 'koa';
import { createTraffic } from '../../demo/traffic.js';
import { alignRange, levelFor } from '../../shared/time-range.js';
import { topListsOfRequests } from '../../shared/top-list/top-lists-of-requests.js';
import type { TopKind } from '../../shared/top-list/top-row.js';
import { compareWithGolden } from '../../test/golden.js';
import { ledger } from '../../test/web-samples.js';
import { renderViews } from '../render.js';
import { fold, isComplete } from '../stats/fold.js';
import { parseQuery } from '../query/query.js';
import { requestPairs } from '../stats/request-pairs.js';
import { rollUp } from '../../shared/rollup/rollup-aggregator.js';
import type { Traffic } from '../query/read-traffic.js';
import { readTopListsFrom } from '../query/read-top-lists.js';
import { dashboardView } from './view-model.js';

const nowMs = Date.UTC(2026, 10, 23, 20, 0, 30);

/** The demo's incident is in it. */
const given = { from: 'now-6h', method: 'GET', refresh: 'off' };

test('the page of six hours with an incident matches page.golden.html', async (t) => {
  const query = parseQuery(given, nowMs);
  const level = levelFor(query, nowMs);
  const range = alignRange(query, level);
  const demo = createTraffic({ seed: 1, requestsPerDay: 20_000, startMs: nowMs });
  const requests = Array.from({ length: 12 * 3600 }, (_, at) => demo.requestsOf(at - 12 * 3600))
    .flat()
    .flatMap(({ edge, app }) => [edge, ...(app === undefined ? [] : [app])])
    .filter(({ method }) => method === 'GET')
    .reverse();
  const before = { fromMs: 2 * range.fromMs - range.toMs, toMs: range.fromMs };
  const within = ({ fromMs, toMs }: typeof before) =>
    requests.filter(({ timeMs }) => timeMs >= fromMs && timeMs < toMs);
  const ledgers = [
    ledger({
      timeMs: nowMs,
      received: 5000,
      accepted: 4990,
      runtime: 8,
      rejected: { 'not-json': 2 },
      stored: 4990,
      lastLineMs: nowMs - 1200,
    }),
  ];
  const traffic: Traffic = {
    range,
    stepMs: level * 1000,
    ledgers,
    bounded: false,
    firstMs: 0,
    newestMs: 0,
    retainedFromMs: undefined,
    rollupsFromMs: undefined,
    sampled: undefined,
    recent: undefined,
    complete: isComplete(ledgers, { bounded: false }),
    previous: fold(rollUp(within(before), level, 'host'), { fromMs: before.fromMs, stepMs: level * 1000 }),
    ...fold(rollUp(within(range), level, 'host'), { fromMs: range.fromMs, stepMs: level * 1000 }),
  };
  const reader = {
    readTopWindows: () => Promise.resolve([]),
    topListsOfRequests: ({ kinds, valuesMax }: { kinds: readonly TopKind[]; valuesMax: number }) =>
      Promise.resolve({ bySource: topListsOfRequests(within(range), { kinds, valuesMax }), ofNewest: undefined }),
  };
  const topLists = await readTopListsFrom(reader, query, {
    dimensions: ['path', 'referrer', 'user_agent', 'client'],
    valuesMax: 1000,
    nowMs,
  });
  const latest = within(range).slice(0, 12);
  const view = dashboardView({ query, traffic, topLists, latest, pairs: requestPairs(latest), nowMs, connectHint: [] });
  await compareWithGolden(
    t,
    'web/pages/page.golden.html',
    await render({
      view,
      etag: 'W/"golden"',
      assets: {
        stylesheet: { url: '../../dist/public/main.css' },
        icon: { url: '../../views/icon.svg', type: 'image/svg+xml' },
        script: { url: '' },
      },
    }),
  );
});

/** Renders the page as the web app does, with a line for each block, so that a difference can be read. */
async function render(locals: Record<string, unknown>): Promise<string> {
  const app = new Koa();
  app.use(renderViews());
  app.use(async (ctx) => {
    await ctx.render('dashboard', locals);
  });
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    const html = await (await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`)).text();
    return `${html.replaceAll(/<(?:section|article|figure|tr|dl|details|header|main|nav|form|footer|link|title)\b/g, '\n$&')}\n`;
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
