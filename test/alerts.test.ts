/** Alerts of the whole program. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { caddyLine } from '../demo/caddy-line.js';
import { freePorts } from './ports.js';
import { startProgram } from './program.js';
import { sendTcp } from './sample.js';
import { until } from './until.js';
import { event } from './web-samples.js';

test('with ALERT_WEBHOOK the program posts an alert when a site fails, and never logs the secrets of the URL', async (t) => {
  const bodies: string[] = [];
  const receiver = createServer(
    (request, response) =>
      void text(request).then((body) => {
        bodies.push(`${request.url!} ${body}`);
        response.end();
      }),
  ).listen(0, '127.0.0.1');
  await once(receiver, 'listening');
  t.teardown(() => receiver.close());
  const [port, http, web] = (await freePorts(3)) as [number, number, number];
  const url = `http://127.0.0.1:${web}`;
  const program = await startProgram(
    ['start'],
    {
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
      ALERT_WEBHOOK: `http://who:s3cret@127.0.0.1:${(receiver.address() as AddressInfo).port}/hooks/s3cret`,
      DASHBOARD_URL: 'https://stats.example/caddy/',
    },
    [`${url}/ready`],
  );
  const lines = Array.from({ length: 200 }, (_, at) =>
    caddyLine(event({ timeMs: Date.now(), durationMs: 1, status: at < 20 ? 500 : 200 })),
  );
  await sendTcp(port, Buffer.from(`${lines.join('\n')}\n`), [65_536]);
  const first = await until('an alert is posted', () => bodies[0]);
  t.true(first.startsWith('/hooks/s3cret {'));
  t.like(JSON.parse(first.slice(first.indexOf('{'))), {
    status: 'firing',
    kind: 'errors',
    source: 'caddy',
    value: 0.1,
  });
  t.true(first.includes('"url":"https://stats.example/caddy/?from='));
  t.is(await program.stop(), 0);
  t.regex(program.stderr(), /info web: Firing: 10/);
  t.false((program.stdout() + program.stderr()).includes('s3cret'));
});
