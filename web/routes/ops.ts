/** What monitoring asks for. */
import type Router from '@koa/router';
import type { WebMetrics } from '../metrics.js';
import type { RouteParts } from './context.js';

/** Adds `/health`, `/ready` and `/metrics`. */
export function addOpsRoutes(
  router: Router,
  { reads, metrics }: Pick<RouteParts, 'reads'> & { readonly metrics: WebMetrics },
): void {
  router.get('/health', (ctx) => {
    ctx.body = { status: 'ok' };
  });

  router.get('/ready', async (ctx) => {
    await reads.ping();
    ctx.body = { status: 'ready' };
  });

  router.get('/metrics', async (ctx) => {
    ctx.body = await metrics.text();
    ctx.set('Content-Type', metrics.contentType);
  });
}
