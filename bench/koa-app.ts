/**
 * The app of the middleware's benchmark: `node dist/bench/koa-app.js PORT PLAIN_PORT`, the same with the middleware and
 * without. What it measures is recorded, and stored in memory only.
 */
import Koa from 'koa';
import { createLog } from '../shared/log.js';
import { ObjectEncoder } from '../shared/record/batch-builder.js';
import { createRecorder } from '../shared/record/recorder.js';
import { requestMetrics } from '../web/middleware/request-metrics.js';

const [port, plainPort] = process.argv.slice(2).map(Number);
const log = createLog('bench', { write: () => undefined });
const recorder = createRecorder({
  store: { write: () => Promise.resolve(0), mergesRollups: false, createBatchEncoder: () => new ObjectEncoder() },
  log,
  name: 'bench',
  hostsMax: 200,
  clientIp: 'truncated',
});
new Koa().use(requestMetrics({ recorder })).use(hello).listen(port, '127.0.0.1');
new Koa().use(hello).listen(plainPort, '127.0.0.1');

function hello(ctx: Koa.Context): void {
  ctx.body = 'hello';
}
