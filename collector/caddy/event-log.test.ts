/** What the loggers of Caddy's events send, on a real Caddy with sites that fail. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { startCaddy, testWithCaddy, type RunningCaddy } from '../../test/caddy.js';
import { startLineServer, type CaddyLine, type LineServer } from '../../test/line-server.js';
import { freePorts } from '../../test/ports.js';
import { until } from '../../test/until.js';
import { createLog } from '../../shared/log.js';
import { callAdmin } from './admin-client.js';
import { entryLines, eventLoggers, handlesErrors } from './event-log.js';
import { startRegistration, type Registration } from './register.js';
import { planRegistration } from './registration-plan.js';

const hosts = ['dead.test', 'cut.test', 'error.test', 'twice.test', 'silent.test'];

for (const handled of ['no server', 'one server', 'every server'])
  testWithCaddy(`sends each error line once, before its access line, where ${handled} has handle_errors`, async (t) => {
    t.timeout(60_000);
    const [sink, ports, upstream] = [await startLineServer(t), await freePorts(2), await startUpstream(t)];
    const caddy = await startCaddy(failingSites(ports, upstream, handled));
    t.teardown(caddy.stop);
    const original = await configOf(caddy);
    const registration = await register(t, caddy, sink);
    const entries = Object.keys((JSON.parse(await configOf(caddy)) as Logging).logging.logs).filter((name) =>
      name.startsWith('caddy-log-sink-'),
    );
    t.is(entries.length, handled === 'no server' ? 2 : 3, entries.join());

    for (const port of ports) for (const host of hosts) await visit(port, host);
    const isOf = (logger: string) => (line: CaddyLine) => `${line.logger}.`.startsWith(`${logger}.`);
    await until(
      'all access lines, and a line of the health checks, are there',
      () =>
        sink.lines.filter(isOf('http.log.access')).length >= 2 * (hosts.length - 1) &&
        sink.lines.some(isOf('http.handlers.reverse_proxy.health_checker.active')),
    );
    await registration.stop();
    t.is(await configOf(caddy), original);
    await caddy.stop(); // Caddy closes its connections, so all lines have been sent
    await until('they are read', () => sink.openConnections() === 0);

    const errors = sink.lines.filter(isOf('http.log.error'));
    const accesses = sink.lines.filter(isOf('http.log.access'));
    for (const [port, at] of ports.map((each, index) => [each, index] as const)) {
      const isAtDebug = handled === 'every server' || (handled === 'one server' && at === 0);
      const of = (lines: readonly CaddyLine[], host: string): CaddyLine[] =>
        lines.filter((line) => line.request!.host === `${host}:${port}`);
      for (const [host, count, reason] of [
        ['dead.test', 1, /connection refused/],
        ['twice.test', 1, /connection refused/],
        ['silent.test', 1, /connection refused/],
        ['error.test', 1, /^out of order$/],
        ['cut.test', 0, /^$/],
      ] as const) {
        const found = of(errors, host);
        t.is(found.length, count, `${host}:${port}`);
        t.is(of(accesses, host).length, host === 'silent.test' ? 0 : 1, `${host}:${port}`);
        if (count === 0) continue;
        t.regex(found[0]!.msg, reason);
        t.is(found[0]!.level, isAtDebug ? 'debug' : 'error');
        if (host === 'silent.test') continue;
        const [access] = of(accesses, host);
        t.is(access!.request!.remote_port, found[0]!.request!.remote_port);
        t.true(sink.lines.indexOf(found[0]!) < sink.lines.indexOf(access!), 'the error line is first');
      }
    }
    const proxy = sink.lines.filter(({ logger }) => logger === 'http.handlers.reverse_proxy');
    t.deepEqual(
      proxy.map(({ msg }) => msg),
      ['aborting with incomplete response', 'aborting with incomplete response'],
    );
    t.deepEqual(
      sink.lines.filter(({ level, logger }) => level === 'debug' && !logger!.startsWith('http.log.error')),
      [],
    );
  });

testWithCaddy('restores the loggers after a reload, in the form that the new configuration needs', async (t) => {
  const [sink, ports, upstream] = [await startLineServer(t), await freePorts(2), await startUpstream(t)];
  const caddy = await startCaddy(failingSites(ports, upstream, 'no server'));
  t.teardown(caddy.stop);
  const registration = await register(t, caddy, sink);
  t.false((await configOf(caddy)).includes('caddy-log-sink-errors-'));
  await caddy.reload(failingSites(ports, upstream, 'every server'));
  await until('it is registered again', async () => (await configOf(caddy)).includes('caddy-log-sink-errors-'));
  await caddy.reload(failingSites(ports, upstream, 'no server'));
  await until('it is registered again', async () => (await configOf(caddy)).includes('caddy-log-sink-events-'));
  t.false((await configOf(caddy)).includes('caddy-log-sink-errors-'));
  await registration.stop();
});

test('plans the loggers of events from the configuration, beside the access log', (t) => {
  const address = 'tcp/127.0.0.1:9514';
  const writer = { output: 'net', address, dial_timeout: 1_000_000_000, soft_start: true };
  const plan = (servers: object, logs: object = {}): unknown => {
    const planned = planRegistration(
      { logging: { logs }, apps: { http: { servers } } },
      { address, places: new Set(['localhost:9514']) },
    );
    return planned.entries ?? planned.message;
  };
  const access = { writer, include: ['http.log.access'] };
  const events = { writer, exclude: ['http.log.access'] };
  const registered = { 'caddy-log-sink-tcp-127.0.0.1-9514': access };
  const edge = { logs: { logger_names: { a: ['one'] } } };
  const errorRoutes = { errors: { routes: [{ handle: [{ handler: 'static_response' }] }] } };
  t.deepEqual(plan({ edge }), { ...registered, 'caddy-log-sink-events-tcp-127.0.0.1-9514': events });
  t.deepEqual(plan({ edge: { ...edge, errors: { routes: [] } } }), {
    ...registered,
    'caddy-log-sink-events-tcp-127.0.0.1-9514': events,
  });
  t.deepEqual(plan({ edge, other: errorRoutes }), {
    ...registered,
    'caddy-log-sink-events-tcp-127.0.0.1-9514': { writer, exclude: ['http.log.access', 'http.log.error'] },
    'caddy-log-sink-errors-tcp-127.0.0.1-9514': { writer, level: 'DEBUG', include: ['http.log.error'] },
  });
  const twice = { logs: { logger_names: { a: ['one', 'two'] } } };
  const once = { 'caddy-log-sink-tcp-127.0.0.1-9514': { ...access, exclude: ['http.log.access.two'] } };
  t.deepEqual(plan({ edge: twice }), {
    ...once,
    'caddy-log-sink-events-tcp-127.0.0.1-9514': { writer, exclude: ['http.log.access', 'http.log.error.two'] },
  });
  t.deepEqual(plan({ edge: { ...twice, ...errorRoutes } }), {
    ...once,
    'caddy-log-sink-events-tcp-127.0.0.1-9514': { writer, exclude: ['http.log.access', 'http.log.error'] },
    'caddy-log-sink-errors-tcp-127.0.0.1-9514': {
      writer,
      level: 'DEBUG',
      include: ['http.log.error'],
      exclude: ['http.log.error.two'],
    },
  });

  t.deepEqual(plan({ edge }, { own: { writer, exclude: ['http.log.access'] } }), registered);
  t.deepEqual(
    plan({ edge }, { own: { writer: { ...writer, address: 'tcp/elsewhere:9514' }, exclude: ['http.log.access'] } }),
    { ...registered, 'caddy-log-sink-events-tcp-127.0.0.1-9514': events },
    'another sink does not count',
  );
  t.regex(String(plan({ edge }, { own: { writer } })), /already writes to this sink through its logger own/);
  t.deepEqual(plan({ edge }, { own: { writer }, ...registered }), {}, 'entries are removed');
});

testWithCaddy('writes entries as a Caddyfile that Caddy adapts to the same entries', async (t) => {
  const [port, nobody] = (await freePorts(2)) as [number, number];
  const address = `tcp/127.0.0.1:${nobody}`;
  const { events, errors } = eventLoggers({ address, handlesErrors: true, repeated: ['http.log.error.two'] });
  const caddy = await startCaddy(
    [
      '{',
      ...entryLines('caddy_events', events),
      ...entryLines('caddy_errors', errors!),
      '}',
      `http://:${port} {`,
      'handle_errors {',
      'respond "failed"',
      '}',
      '}',
      '',
    ].join('\n'),
  );
  t.teardown(caddy.stop);
  const config = JSON.parse(await configOf(caddy)) as Logging;
  t.like(config.logging.logs, { caddy_events: events, caddy_errors: errors });
  t.true(handlesErrors(config));
});

interface Logging {
  readonly logging: { readonly logs: Readonly<Record<string, unknown>> };
}

/** Two servers with sites that fail, each in its own way. `silent.test` skips its access log, `twice.test` has two. */
function failingSites(ports: readonly number[], upstream: number, handled: string): string {
  const closed = 1; // tcpmux, which nothing serves
  const site = (host: string, port: number, ...lines: string[]): string =>
    `http://${host}:${port} {\n\t${lines.join('\n\t')}\n}\n`;
  const log = 'log {\n\t\toutput discard\n\t}';
  return ports
    .flatMap((port, at) => {
      const errors =
        handled === 'every server' || (handled === 'one server' && at === 0)
          ? ['handle_errors {\n\t\trespond "failed"\n\t}']
          : [];
      return [
        site('dead.test', port, log, `reverse_proxy 127.0.0.1:${closed}`),
        site('cut.test', port, log, `reverse_proxy 127.0.0.1:${upstream}`),
        site('error.test', port, log, 'error "out of order" 503', ...errors),
        site(
          'twice.test',
          port,
          `log first${at} {\n\t\toutput discard\n\t}`,
          `log second${at} {\n\t\toutput discard\n\t}`,
          `reverse_proxy 127.0.0.1:${closed}`,
        ),
        site('silent.test', port, log, 'log_skip', `reverse_proxy 127.0.0.1:${closed}`),
        site(
          'checked.test',
          port,
          log,
          `reverse_proxy 127.0.0.1:${closed} {\n\t\thealth_uri /\n\t\thealth_interval 100ms\n\t}`,
        ),
      ];
    })
    .join('');
}

/** An upstream that cuts the body of each response. Resolves to its port. */
async function startUpstream(t: ExecutionContext): Promise<number> {
  const server = createServer((_, response) => {
    response.writeHead(200, { 'content-length': 1000 });
    response.write('half', () => response.destroy());
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
}

async function register(t: ExecutionContext, caddy: RunningCaddy, { port }: LineServer): Promise<Registration> {
  const registration = startRegistration({
    adminUrl: caddy.adminUrl,
    addresses: [{ kind: 'tcp', family: 4, host: '127.0.0.1', port }],
    log: createLog('register', { write: () => undefined }),
    pollMs: 50,
  });
  t.teardown(() => registration.stop());
  await until('it is registered', () => registration.status() === 'registered');
  return registration;
}

async function configOf({ adminUrl }: RunningCaddy): Promise<string> {
  return (await callAdmin(new URL(adminUrl), '/config/')).text;
}

/** Requests the site, whatever comes of it. */
async function visit(port: number, host: string): Promise<void> {
  await new Promise<void>((resolve) => {
    request({ host: '127.0.0.1', port, agent: false, headers: { host: `${host}:${port}` } }, (response) => {
      response.resume().once('close', resolve);
      response.on('error', () => undefined);
    })
      .once('error', () => {
        resolve();
      })
      .end();
  });
}
