/** The app of the middleware's benchmark: `node dist/bench/koa-app.js PORT (measured | plain)`. What it measures is recorded, and stored in memory only. */
import Koa from 'koa';
import { createLog } from '../shared/log.js';
import { createRecorder } from '../shared/recorder.js';
import { requestMetrics } from '../web/request-metrics.js';

const [port, kind] = process.argv.slice(2);
const app = new Koa();
if (kind === 'measured') {
  const log = createLog('bench', { write: () => undefined });
  app.use(requestMetrics({ recorder: createRecorder({ store: { write: () => Promise.resolve(0) }, log, name: 'bench', hostsMax: 200, clientIp: 'truncated' }) }));
}
app.use((ctx) => { ctx.body = 'hello'; });
app.listen(Number(port), '127.0.0.1');
