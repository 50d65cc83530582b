/** Why requests failed, as a client caused it and as real Caddy logged it: no request may get another one's reason. */
import { once } from 'node:events';
import { createServer, request, Agent, type IncomingMessage } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { type AddressInfo } from 'node:net';
import type { ExecutionContext } from 'ava';
import { entryLines, eventLoggers } from '../collector/caddy/event-log.js';
import type { RequestEvent } from '../shared/request-event.js';
import { logTo, startCaddy, testWithCaddy } from './caddy.js';
import { collectorOfTest } from './collector.js';
import { freePorts } from './ports.js';
import { until } from './until.js';

type Expected = Pick<RequestEvent, 'status' | 'error' | 'upstream' | 'retries'>;

const requestsPerCause = 25;
const streams = 100;

/** What a client can cause, by the path that causes it at the site `up.test`. */
const causes = {
  '/ok': { status: 200, error: '', upstream: 'up' },
  '/500': { status: 500, error: '', upstream: 'up' },
  '/reset': { status: 502, error: 'EOF', upstream: 'up' },
  // Caddy appends nothing to this line, but names the upstream in its warning.
  '/half': { status: 200, error: 'reading: unexpected EOF', upstream: 'up', retries: null },
} as const;

for (const handlesErrors of [false, true])
  testWithCaddy(
    `each failed request has its own reason and upstream, and no other has one, ${handlesErrors ? 'with' : 'without'} handle_errors`,
    async (t) => {
      t.timeout(120_000);
      const collector = await collectorOfTest(t);
      const [port, tlsPort, closedPort] = (await freePorts(3)) as [number, number, number];
      const up = await startUpstream(t);
      const { events, errors } = eventLoggers({ address: collector.address, handlesErrors });
      const dead = `127.0.0.1:${closedPort}`;
      const site = (address: string, body: string): string => `${address} {
  tls internal
  ${logTo(collector.address)}
  log_append upstream_host {http.reverse_proxy.upstream.hostport}
  log_append retries {http.reverse_proxy.retries}
  ${handlesErrors ? 'handle_errors {\n    respond "sorry"\n  }' : ''}
  ${body}
}`;
      const proxyTo = (...upstreams: string[]): string => `reverse_proxy ${upstreams.join(' ')} {
    lb_policy round_robin
    lb_retries ${upstreams.length - 1}
    fail_duration 0
  }`;
      const caddy = await startCaddy(`{
  auto_https disable_redirects
  skip_install_trust
  ${[...entryLines('caddy_events', events), ...(errors ? entryLines('caddy_errors', errors) : [])].join('\n  ')}
}
${site(`http://up.test:${port}`, proxyTo(up)).replace('tls internal', '')}
${site(`http://slow.test:${port}`, proxyTo(up).replace('{', '{\n    transport http {\n      response_header_timeout 300ms\n    }')).replace('tls internal', '')}
${site(`http://dead.test:${port}`, proxyTo(dead)).replace('tls internal', '')}
${site(`http://retry.test:${port}`, proxyTo(dead, up)).replace('tls internal', '')}
${site(`http://error.test:${port}`, 'error "out of order" 503').replace('tls internal', '')}
${site(`https://h2.test:${tlsPort}`, `@dead path /dead*\n  handle @dead {\n    ${proxyTo(dead)}\n  }\n  handle {\n    ${proxyTo(up)}\n  }`)}
`);
      t.teardown(caddy.stop);

      const expected = new Map<string, Expected>();
      const agent = new Agent({ keepAlive: true, maxSockets: 5 });
      t.teardown(() => {
        agent.destroy();
      });
      const visits: Promise<void>[] = [];
      const visit = (host: string, path: string, result: Omit<Expected, 'retries'> & Partial<Expected>): void => {
        expected.set(`${host}${path}`, { retries: 0, ...result });
        visits.push(get(port, `${host}:${port}`, path, agent));
      };
      const refused = `dial tcp ${dead}: connect: connection refused`;
      for (let at = 0; at < requestsPerCause; at += 1) {
        for (const [path, cause] of Object.entries(causes))
          visit('up.test', `${path}?n=${at}`, { ...cause, upstream: up });
        visit('slow.test', `/slow?n=${at}`, {
          status: 504,
          error: 'net/http: timeout awaiting response headers',
          upstream: up,
        });
        visit('dead.test', `/?n=${at}`, { status: 502, error: refused, upstream: dead });
        visit('retry.test', `/ok?n=${at}`, { status: 200, error: '', upstream: up, retries: 1 });
        visit('error.test', `/?n=${at}`, { status: 503, error: 'out of order', upstream: '', retries: null });
      }
      await Promise.all(visits);
      await overHttp2(tlsPort, (at) => {
        const isDead = at % 2 === 1;
        const path = `${isDead ? '/dead' : '/ok'}?n=${at}`;
        expected.set(`h2.test${path}`, {
          ...(isDead ? { status: 502, error: refused, upstream: dead } : { status: 200, error: '', upstream: up }),
          retries: 0,
        });
        return path;
      });

      await until('every request is stored', () => collector.ledger().stored >= expected.size, { waitMsMax: 60_000 });
      const range = { fromMs: Date.now() - 600_000, toMs: Date.now() + 60_000 };
      const requests = await collector.store.readRequests({ ...range, filter: {}, limit: 10_000 });
      t.is(requests.length, expected.size);
      let retried = 0;
      for (const { host, uri, status, error, errorId, upstream, retries } of requests) {
        const key = `${host.replace(/:\d+$/, '')}${uri}`;
        // Which upstream is asked first depends on other requests.
        const isRetried = key.startsWith('retry.test');
        t.deepEqual(
          { status, error, upstream, retries: isRetried && retries === 0 ? 1 : retries },
          expected.get(key)!,
          key,
        );
        if (isRetried) retried += retries!;
        t.is(errorId !== '', error !== '' && error !== causes['/half'].error, key);
      }
      t.is(
        new Set(requests.map(({ errorId }) => errorId).filter((id) => id !== '')).size,
        requests.filter(({ errorId }) => errorId !== '').length,
        'every error id belongs to one request',
      );
      t.true(retried > 0 && retried < requestsPerCause, `${retried} were retried`);
      await until('every refused connection is an event', async () => {
        const stored = await collector.store.readEvents({ ...range, limit: 1000 });
        const ofReason = stored.filter(({ event }) => event.reason === refused);
        return ofReason.reduce((sum, { count }) => sum + count, 0) === requestsPerCause + streams / 2;
      });
      const { received, accepted, runtime, rejected, dropped } = collector.ledger();
      t.deepEqual({ received: accepted + runtime, rejected, dropped }, { received, rejected: {}, dropped: {} });
    },
  );

/** An upstream that answers, fails, hangs and breaks off, as the path asks. Resolves to its address. */
async function startUpstream(t: ExecutionContext): Promise<string> {
  const server = createServer((asked, answer) => {
    const { pathname } = new URL(asked.url!, 'http://localhost');
    if (pathname === '/reset') asked.socket.destroy();
    else if (pathname === '/half')
      answer.writeHead(200, { 'content-length': '1000' }).write('half', () => asked.socket.end());
    else if (pathname !== '/slow') answer.writeHead(pathname === '/500' ? 500 : 200).end('answer');
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Asks over HTTP/1.1, over a connection that other requests share, unless Caddy breaks it off. */
async function get(port: number, host: string, path: string, agent: Agent): Promise<void> {
  const isBroken = path.startsWith('/half');
  const asked = request({ host: '127.0.0.1', port, path, headers: { host }, agent: isBroken ? false : agent }).end();
  try {
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    answer.resume();
    await once(answer, 'close');
  } catch (error) {
    if (!isBroken) throw error;
  }
}

/** Asks for the given paths over one HTTP/2 connection at the same time. */
async function overHttp2(port: number, pathOf: (at: number) => string): Promise<void> {
  const session = connectHttp2(`https://127.0.0.1:${port}`, { rejectUnauthorized: false, servername: 'h2.test' });
  await once(session, 'connect');
  await Promise.all(
    Array.from({ length: streams }, async (_, at) => {
      const stream = session.request({ ':path': pathOf(at), ':authority': `h2.test:${port}` });
      stream.resume();
      await once(stream, 'close');
    }),
  );
  session.close();
}
