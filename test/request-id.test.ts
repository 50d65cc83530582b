/**
 * One request as the edge and the app saw it, joined by the lines of configuration that docs/koa-middleware.md shows.
 */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import Koa from 'koa';
import { requestMetrics } from '../web/middleware/request-metrics.js';
import { createDecoder } from '../collector/decode/decode.js';
import type { RequestEvent } from '../shared/request-event.js';
import { startCaddy, testWithCaddy } from './caddy.js';
import { freePort } from './ports.js';
import { until } from './until.js';

testWithCaddy('edge and app know a request by the same id, with the lines that the docs show.', async (t) => {
  const shown = /```caddyfile\n([\s\S]*?)```/.exec(await readFile('docs/koa-middleware.md', 'utf8'))?.[1] ?? '';
  t.regex(shown, /log_append request_id/);
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  const ofApp: RequestEvent[] = [];
  const app = new Koa();
  app.use(requestMetrics({ source: 'shop', recorder: { record: (event) => ofApp.push(event) > 0 } }));
  app.use((ctx) => {
    ctx.body = 'hello';
  });
  const server = app.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const port = await freePort();
  const upstream = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const caddy = await startCaddy(
    `http://127.0.0.1:${port} {\n  log {\n    output stderr\n    format json\n  }\n${shown.replace('127.0.0.1:8080', upstream)}\n}`,
  );
  t.teardown(caddy.stop);

  for (const path of ['/a', '/b'])
    t.is(
      await (await fetch(`http://127.0.0.1:${port}${path}`, { headers: { 'X-Request-Id': 'forged' } })).text(),
      'hello',
    );
  const ofEdge = (): RequestEvent[] =>
    caddy
      .stderr()
      .split('\n')
      .flatMap((line) => {
        const decoded = decoder.decode(line, Date.now());
        return decoded.kind === 'request' ? [decoded.event] : [];
      });
  await until('both have told of both requests', () => ofEdge().length === 2 && ofApp.length === 2);
  for (const edge of ofEdge()) {
    t.regex(edge.requestId, /^[0-9a-f]{8}-[0-9a-f-]{27}$/);
    t.deepEqual(
      ofApp.filter(({ requestId }) => requestId === edge.requestId).map(({ uri }) => uri),
      [edge.uri],
    );
  }
});
