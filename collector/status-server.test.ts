import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { text as textOf } from 'node:stream/consumers';
import test from 'ava';
import { freePorts } from '../test/ports.js';
import { startProgram } from '../test/program.js';
import { sendTcp } from '../test/sample.js';
import { until } from '../test/until.js';

interface LedgerPage {
  readonly collectors: Readonly<
    Record<
      string,
      {
        readonly received: number;
        readonly accepted: number;
        readonly rejected: Readonly<Record<string, number>>;
        readonly time_of_arrival: number;
        readonly duration_formats: Readonly<Record<string, { format: string; guessed: boolean }>>;
        readonly rejected_examples: Readonly<Record<string, string>>;
      }
    >
  >;
}

test('/ledger shows duration formats, the number of arrival times, and redacted examples of rejected lines', async (t) => {
  const [tcp, http, web] = (await freePorts(3)) as [number, number, number];
  const program = await startProgram(
    ['start'],
    {
      COLLECTOR_ID: 'edge',
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
      COLLECTOR_TIME_ZONE: 'Europe/Berlin',
    },
    [`http://127.0.0.1:${http}/ready`, `http://127.0.0.1:${web}/health`],
  );
  const lines = ['duration-formats', 'keys-removed'].map((name) =>
    readFileSync(`collector/decode/fixtures/${name}/input.ndjson`, 'utf8'),
  );
  await sendTcp(
    tcp,
    Buffer.from(`${lines.join('')}GET /private?token=hunter2 HTTP/1.1\n{"Cookie":["hunter2"]}\n`),
    [1000],
  );
  const page = await until('all lines are in the ledger', async () => {
    const answer = (await (await fetch(`http://127.0.0.1:${http}/ledger`)).json()) as LedgerPage;
    return answer.collectors['edge']!.received === 28 && answer;
  });
  const {
    accepted,
    rejected,
    time_of_arrival: timeOfArrival,
    duration_formats: formats,
    rejected_examples: examples,
  } = page.collectors['edge']!;
  t.deepEqual(
    { accepted, rejected, timeOfArrival },
    { accepted: 26, rejected: { 'not-json': 1, 'not-caddy': 1 }, timeOfArrival: 4 },
  );
  t.deepEqual(formats['http.log.access.text'], { format: 'string', guessed: false });
  t.deepEqual(formats['http.log.access.milli'], { format: 'ms', guessed: true });
  t.deepEqual(examples, { 'not-json': 'GET /private?… HTTP/1.1', 'not-caddy': '{"Cookie":"…"}' });
  t.regex(await (await fetch(`http://127.0.0.1:${http}/metrics`)).text(), /^caddy_log_sink_time_of_arrival_total 4$/m);
  t.is(await program.stop(), 0);
});

function ask(
  port: number,
  method: string,
  path: string,
  headers: Readonly<Record<string, string>>,
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    request(
      { port, host: '127.0.0.1', method, path, headers: { host: `127.0.0.1:${port}`, ...headers } },
      (response) => {
        textOf(response).then((text) => resolve({ status: response.statusCode!, text }), reject);
      },
    )
      .on('error', reject)
      .end();
  });
}

for (const { listens, knowsNames } of [
  { listens: '127.0.0.1', knowsNames: true },
  { listens: '0.0.0.0', knowsNames: false },
]) {
  test(`refuses pages of other sites${knowsNames ? ' and foreign host names' : ' and accepts any host name'} on ${listens}`, async (t) => {
    const [tcp, http, web] = (await freePorts(3)) as [number, number, number];
    const program = await startProgram(
      ['start'],
      {
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
        COLLECTOR_HTTP: `${listens}:${http}`,
        WEB_LISTEN: `127.0.0.1:${web}`,
      },
      [`http://127.0.0.1:${http}/ready`],
    );
    const paths = [
      ['GET', '/health'],
      ['GET', '/ready'],
      ['GET', '/metrics'],
      ['GET', '/ledger'],
      ['POST', '/import'],
      ['OPTIONS', '/import'],
    ] as const;
    for (const [method, path] of paths) {
      for (const headers of [
        { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' },
        { 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors' },
        { origin: 'http://evil.example' },
        { origin: 'null' },
        { origin: `http://127.0.0.1:${web}` },
      ]) {
        const { status, text } = await ask(http, method, path, headers);
        t.is(status, 403, `${method} ${path}`);
        t.regex(text, /a page of another site sent it/);
      }
    }
    for (const path of ['/health', '/ready', '/metrics', '/ledger']) {
      t.is((await ask(http, 'GET', path, {})).status, 200);
      t.is((await ask(http, 'GET', path, { host: `localhost:${http}` })).status, 200);
      t.is((await ask(http, 'GET', path, { host: 'stats.example', via: '1.1 Caddy' })).status, 200, 'through a proxy');
      const isAllowed = !knowsNames || path === '/health' || path === '/ready';
      t.is((await ask(http, 'GET', path, { host: `collector:${http}` })).status, isAllowed ? 200 : 403, path);
    }
    // If any name is accepted, the import itself refuses the content type.
    const posted = await ask(http, 'POST', '/import', { host: 'evil.example' });
    t.is(posted.status, knowsNames ? 403 : 415);
    if (knowsNames)
      t.regex(posted.text, /Host is \\"evil\.example\\", and COLLECTOR_HTTP is on loopback.*127\.0\.0\.1/);
    t.is(await program.stop(), 0);
  });
}
