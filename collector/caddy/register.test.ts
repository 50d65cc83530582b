import { createServer, request, type Server } from 'node:http';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { AddressInfo } from 'node:net';
import test, { type ExecutionContext } from 'ava';
import { startCaddy, testWithCaddy, type RunningCaddy } from '../../test/caddy.js';
import { collectorOfTest, type TestCollector } from '../../test/collector.js';
import { freePort } from '../../test/ports.js';
import { temporaryFolder } from '../../test/program.js';
import { until } from '../../test/until.js';
import { ConfiguredHosts } from '../../shared/record/configured-hosts.js';
import { UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { adminUrlFrom, callAdmin } from './admin-client.js';
import { check } from './check/check.js';
import { startRegistration, type Registration, type RegistrationOptions } from './register.js';
import { planRegistration } from './registration-plan.js';

testWithCaddy(
  'counts each request once, registers again after a reload, and restores the configuration byte for byte',
  async (t) => {
    t.timeout(60_000);
    const [collector, port] = [await collectorOfTest(t), await freePort()];
    const caddyfile = `http://127.0.0.1:${port}, http://localhost:${port} {\n\tlog {\n\t\toutput discard\n\t}\n\trespond "hello"\n}\n`;
    const caddy = await caddyOfTest(t, caddyfile);
    const original = await configOf(caddy);
    const { registration, logged } = register(t, caddy, collector);

    await until('it is registered', () => registration.status() === 'registered');
    await send(`http://127.0.0.1:${port}/`, 500);
    await until('500 requests came', () => collector.ledger().accepted === 500);

    // Without its logger, as the file has it, and with one byte more, so that Caddy loads it.
    await caddy.reload(caddyfile.replace('hello', 'hello again'));
    await until('it is registered again', async () => (await configOf(caddy)).includes('caddy-log-sink'));
    await send(`http://127.0.0.1:${port}/`, 500);
    await until('500 more came', () => collector.ledger().accepted === 1000);

    await caddy.reload(caddyfile);
    await until('it is registered a third time', async () => (await configOf(caddy)).includes('caddy-log-sink'));
    await registration.stop();
    t.is(registration.status(), 'stopped');
    t.is(await configOf(caddy), original);
    await send(`http://127.0.0.1:${port}/`, 20);
    t.is(collector.ledger().accepted, 1000);
    t.is(logged().filter((line) => line.includes('Registered with Caddy')).length, 1, 'the message is not repeated');
  },
);

testWithCaddy('adds the logger to a configuration without logging, and leaves no empty objects behind', async (t) => {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(t, {
    apps: {
      http: {
        servers: {
          edge: {
            listen: [`127.0.0.1:${port}`],
            logs: {},
            routes: [{ handle: [{ handler: 'static_response', body: 'hello' }] }],
          },
        },
      },
    },
  });
  const original = await configOf(caddy);
  t.false(original.includes('logging'));
  const { registration } = register(t, caddy, collector);
  await until('it is registered', () => registration.status() === 'registered');
  await send(`http://127.0.0.1:${port}/`, 10);
  await until('10 requests came', () => collector.ledger().accepted === 10);
  await registration.stop();
  t.is(await configOf(caddy), original);
});

testWithCaddy('preserves concurrent changes of the configuration', async (t) => {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(t, {
    apps: { http: { servers: { edge: { listen: [`127.0.0.1:${port}`], logs: {} } } } },
  });
  const { registration } = register(t, caddy, collector);
  await until('it is registered', () => registration.status() === 'registered' || registration.status() === 'waiting');
  await callAdmin(new URL(caddy.adminUrl), '/config/logging/logs/other', {
    method: 'PUT',
    body: { writer: { output: 'discard' }, include: ['tls'] },
  });
  await registration.stop();
  t.deepEqual((JSON.parse(await configOf(caddy)) as { logging?: unknown }).logging, {
    logs: { other: { writer: { output: 'discard' }, include: ['tls'] } },
  });
});

testWithCaddy('gets one line per request from a site with two logs', async (t) => {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(
    t,
    `http://127.0.0.1:${port} {\n\tlog first {\n\t\toutput discard\n\t}\n\tlog second {\n\t\toutput discard\n\t}\n\trespond "hello"\n}\n`,
  );
  const { registration } = register(t, caddy, collector);
  await until('it is registered', () => registration.status() === 'registered');
  await send(`http://127.0.0.1:${port}/`, 50);
  await registration.stop(); // Caddy closes its connection, so all lines have come
  await until('the connection is drained', () => collector.ledger().accepted >= 50);
  t.is(collector.ledger().accepted, 50);
});

testWithCaddy('does not change a Caddy that already writes to the sink, and logs a warning', async (t) => {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(
    t,
    `http://127.0.0.1:${port} {\n\tlog {\n\t\toutput net ${collector.address.replace('127.0.0.1', 'localhost')} {\n\t\t\tsoft_start\n\t\t}\n\t}\n\trespond "hello"\n}\n`,
  );
  const original = await configOf(caddy);
  const { registration, logged } = register(t, caddy, collector);
  await until('that is seen', () => registration.status() === 'not-needed');
  t.is(await configOf(caddy), original);
  t.regex(logged().join(''), /already writes to this sink through its logger log0/);
  await registration.stop();
  t.is(await configOf(caddy), original);
});

testWithCaddy('warns about a server without access logs, and says what to add', async (t) => {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(t, `http://silent.example:${port} {\n\trespond "hello"\n}\n`);
  const { registration, logged } = register(t, caddy, collector);
  await until('it is registered', () => registration.status() === 'registered');
  t.regex(logged().join(''), /no access log for silent\.example.*Put the line `log`/);
  await registration.stop();
});

testWithCaddy('waits for a Caddy that is down, and warns once', async (t) => {
  const [collector, port, adminPort] = [await collectorOfTest(t), await freePort(), await freePort()];
  const { registration, logged } = register(t, { adminUrl: `http://127.0.0.1:${adminPort}` }, collector);
  await until('that is seen', () => registration.status() === 'failing');
  const caddy = await caddyOfTest(
    t,
    `{\n\tadmin 127.0.0.1:${adminPort}\n}\nhttp://127.0.0.1:${port} {\n\tlog\n\trespond "hello"\n}\n`,
    adminPort,
  );
  t.truthy(caddy);
  await until('it is registered', () => registration.status() === 'registered');
  t.is(logged().filter((line) => line.includes('Cannot register')).length, 1);
  await registration.stop();
});

testWithCaddy('registers with an admin API that requires an origin, and with one on a unix socket', async (t) => {
  const [collector, port, adminPort, folder] = [
    await collectorOfTest(t),
    await freePort(),
    await freePort(),
    await temporaryFolder(),
  ];
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const caddyfile = (admin: string): string =>
    `{\n\tadmin ${admin}\n}\nhttp://127.0.0.1:${port} {\n\tlog {\n\t\toutput discard\n\t}\n\trespond "hello"\n}\n`;
  const caddy = await caddyOfTest(t, caddyfile(`127.0.0.1:${adminPort} {\n\t\tenforce_origin\n\t}`), adminPort);
  const socket = `unix/${join(folder, 'admin.sock')}`;
  for (const adminUrl of [caddy.adminUrl, socket]) {
    if (adminUrl === socket) await caddy.reload(caddyfile(socket));
    const config = async (): Promise<string> => (await callAdmin(adminUrlFrom(adminUrl, 'It'), '/config/')).text;
    const original = await config();
    const { registration, logged } = register(t, { adminUrl }, collector);
    await until('it is registered', () => registration.status() === 'registered');
    t.true((await config()).includes(collector.address));
    await registration.stop();
    t.is(await config(), original);
    t.deepEqual(
      logged().filter((line) => line.includes('warn')),
      [],
    );
  }
  t.regex(
    (
      await check({
        source: socket,
        address: undefined,
        listen: undefined,
        dashboard: { host: '127.0.0.1', port: 3000 },
        json: false,
      })
    ).text,
    /No logger writes to it/,
  );
});

testWithCaddy('registers two sinks with one Caddy, and adds no second logger after a SIGKILL', async (t) => {
  const [one, other, port] = [await collectorOfTest(t), await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(
    t,
    `http://127.0.0.1:${port} {\n\tlog {\n\t\toutput discard\n\t}\n\trespond "hello"\n}\n`,
  );
  const original = await configOf(caddy);
  const killed = planRegistration(JSON.parse(original), { address: one.address, places: new Set() });
  for (const [name, body] of Object.entries(killed.entries!))
    await callAdmin(new URL(caddy.adminUrl), `/config/logging/logs/${name}`, { method: 'PUT', body }); // as a SIGKILL leaves it
  const both = [register(t, caddy, one), register(t, caddy, other)];
  const registrations = both.map(({ registration }) => registration);
  await until('both are registered', () => registrations.every((each) => each.status() === 'registered'));
  await until(
    'both loggers are there',
    async () => (await configOf(caddy)).includes(one.address) && (await configOf(caddy)).includes(other.address),
  );
  await send(`http://127.0.0.1:${port}/`, 50);
  await until('both have them', () => one.ledger().accepted >= 50 && other.ledger().accepted >= 50);
  await Promise.all(registrations.map((each) => each.stop()));
  t.deepEqual(
    both.flatMap(({ logged }) => logged()).filter((line) => line.includes('warn')),
    [],
  );
  t.deepEqual([one.ledger().accepted, other.ledger().accepted], [50, 50]);
  t.is(await configOf(caddy), original);
});

testWithCaddy('leaves no lines in the log of Caddy when it polls for reloads', async (t) => {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await caddyOfTest(t, `http://127.0.0.1:${port} {\n\tlog\n\trespond "hello"\n}\n`);
  const asked = (): number =>
    caddy
      .stderr()
      .split('\n')
      .filter((line) => line.includes('received request') && line.includes('"/config/"')).length;
  const { registration } = register(t, caddy, collector, { pollMs: 20 });
  await until('it is registered', () => registration.status() === 'registered');
  const before = asked();
  for (let requests = 0; requests < 20; requests += 1) await callAdmin(new URL(caddy.adminUrl), '/metrics'); // longer than 20 polls take
  t.true(asked() <= before + 1, `${asked() - before} more`);
  await registration.stop();
});

testWithCaddy('counts configured hosts by name beyond HOSTS_MAX, also after a reload', async (t) => {
  const configuredHosts = new ConfiguredHosts();
  const [collector, port] = [await collectorOfTest(t, undefined, { hostsMax: 1, configuredHosts }), await freePort()];
  const caddyfile = (late: string): string => `http://mine.example:${port}, http://*.mine.example:${port} {
\tlog {
\t\toutput discard
\t}
\trespond "hello"
}
http://:${port} {
\tlog {
\t\toutput discard
\t}
\t@nested host nested.example
\thandle @nested {
\t\trespond "hello"
\t}
\t@late host ${late}
\thandle @late {
\t\trespond "hello"
\t}
}
`;
  const caddy = await caddyOfTest(t, caddyfile('early.example'));
  const { registration } = register(t, caddy, collector, {
    onHosts: (hosts) => {
      configuredHosts.set(hosts);
    },
  });
  await until('it is registered', () => registration.status() === 'registered');
  const url = `http://127.0.0.1:${port}/`;
  await send(url, 20, 'stranger.example');
  await until('a stranger has the only place', () => collector.ledger().stored === 20);
  for (const host of ['mine.example', 'nested.example', 'late.example', 'other.example']) await send(url, 1, host);
  await until('they are stored', () => collector.ledger().stored === 24);
  await caddy.reload(caddyfile('late.example'));
  await until(
    'that is read, and it is registered again',
    async () => configuredHosts.has('late.example') && (await configOf(caddy)).includes('caddy-log-sink'),
  );
  await send(url, 1, 'late.example');
  await send(url, 1, 'any.mine.example');
  const nowMs = Date.now();
  const hosts = await until('all are stored', async () => {
    const requests = await collector.store.readRequests({
      fromMs: nowMs - 60_000,
      toMs: nowMs + 60_000,
      filter: {},
      limit: 100,
    });
    return requests.length === 26 && requests.map(({ host }) => host);
  });
  t.deepEqual(hosts.filter((host) => host !== 'stranger.example').reverse(), [
    'mine.example',
    'nested.example',
    '_other',
    '_other',
    'late.example',
    'any.mine.example',
  ]);
});

test('stops within 2 s while Caddy hangs', async (t) => {
  const hanging = createServer(() => undefined);
  const adminUrl = await listenOn(t, hanging);
  const collector = await collectorOfTest(t);
  const { registration, logged } = register(t, { adminUrl }, collector);
  await once(hanging, 'request');
  const startMs = performance.now();
  await registration.stop();
  t.true(performance.now() - startMs < 3000, 'the limit is 2 s');
  t.is(registration.status(), 'stopped');
  t.deepEqual(
    logged().filter((line) => line.includes('unhandled')),
    [],
  );
});

test('retries a conflicting change on the current configuration', async (t) => {
  let logs: Record<string, unknown> = {};
  const calls: string[] = [];
  const adminUrl = await listenOn(
    t,
    createServer((call, response) => {
      if (call.url !== '/metrics') calls.push(`${call.method} ${call.headers['if-match'] ?? ''}`.trim());
      if (call.url === '/metrics') response.writeHead(404).end();
      else if (call.method === 'GET')
        response
          .writeHead(200, { etag: `"/config/ ${calls.length}"` })
          .end(
            JSON.stringify({ logging: { logs }, apps: { http: { servers: { edge: { logs: {}, routes: [{}] } } } } }),
          );
      else if (calls.length === 2) response.writeHead(412).end();
      else
        call
          .once('end', () => response.end())
          .on('data', (body: Buffer) => {
            logs = JSON.parse(body.toString()) as typeof logs;
          });
    }),
  );
  const { registration } = register(t, { adminUrl }, await collectorOfTest(t), { pollMs: 60_000 });
  await until('it is registered', () => registration.status() === 'registered');
  t.deepEqual(calls, ['GET', 'PATCH "/config/ 1"', 'GET', 'PATCH "/config/ 3"', 'GET']);
});

test('reports a refusal in the words of Caddy', async (t) => {
  const adminUrl = await listenOn(
    t,
    createServer((_, response) => response.writeHead(403).end('{"error":"host not allowed: 127.0.0.1"}')),
  );
  const { registration, logged } = register(t, { adminUrl }, await collectorOfTest(t));
  await until('that is seen', () => registration.status() === 'failing');
  t.regex(logged().join(''), /Caddy answered 403 host not allowed: 127\.0\.0\.1/);
});

test('requires --register-address for a Caddy on another machine', (t) => {
  const options = {
    addresses: [{ kind: 'tcp', family: 4, host: '127.0.0.1', port: 9514 }],
    log: createLog('test', { write: () => undefined }),
  } as const;
  t.throws(() => startRegistration({ ...options, adminUrl: 'http://caddy:2019' }), {
    instanceOf: UsageError,
    message: /give --register-address/,
  });
  t.throws(() => startRegistration({ ...options, adminUrl: '127.0.0.1:2019' }), {
    instanceOf: UsageError,
    message: /--register is "127.0.0.1:2019"/,
  });
  for (const address of ['collector', 'http://collector:9514', 'tcp/collector']) {
    t.throws(() => startRegistration({ ...options, adminUrl: 'http://caddy:2019', address }), {
      instanceOf: UsageError,
      message: /--register-address is /,
    });
  }
});

test('plans one line per request, and warns where that is impossible', (t) => {
  const sink = { address: 'tcp/127.0.0.1:9514', places: new Set(['localhost:9514']) };
  const name = 'caddy-log-sink-tcp-127.0.0.1-9514';
  const config = (names: Record<string, string[]>, logs = {}) => ({
    logging: { logs },
    apps: { http: { servers: { edge: { logs: { logger_names: names } } } } },
  });
  const plan = (names: Record<string, string[]>, logs = {}) => planRegistration(config(names, logs), sink);
  const access = (names: Record<string, string[]>) => plan(names).entries?.[name];
  const logger = {
    writer: { output: 'net', address: sink.address, dial_timeout: 1_000_000_000, soft_start: true },
    include: ['http.log.access'],
  };
  const without = (...names: string[]) => ({ ...logger, exclude: names.map((each) => `http.log.access.${each}`) });
  t.deepEqual(access({ a: ['one'], b: ['two'] }), logger);
  t.deepEqual(access({ a: ['one', 'two'] }), without('two'));
  t.deepEqual(access({ a: ['one', 'two'], b: ['two'] }), without('one'), 'b has no other name');
  t.deepEqual(access({ a: ['', 'two'] }), without('two'), 'the default name cannot be excluded');
  const impossible = { a: ['one', 'two'], b: ['two'], c: ['one'] };
  t.deepEqual(access(impossible), logger);
  const done = plan(impossible, plan(impossible).entries);
  t.true(done.entries === undefined && done.warnings.join('').includes('of a overlap'));
  t.is(planRegistration(null, sink).entries, undefined);
  const { entries } = plan({ a: ['one'] });
  t.deepEqual(plan({ a: ['one'] }, { ...entries, [name]: { ...logger, include: ['http'] } }), { entries: entries! });
  t.deepEqual(plan({ a: ['one'] }, { ...entries, own: { writer: { output: 'net', address: 'localhost:9514' } } }), {
    entries: {},
  });
});

/** Registers with a short polling interval. `logged` returns the log lines. */
function register(
  t: ExecutionContext,
  { adminUrl }: { adminUrl: string },
  collector: TestCollector,
  options: Partial<RegistrationOptions> = {},
): { registration: Registration; logged: () => readonly string[] } {
  const lines: string[] = [];
  const log = createLog('register', {
    write: (line) => {
      lines.push(line);
    },
  });
  const registration = startRegistration({ adminUrl, addresses: collector.addresses, log, pollMs: 50, ...options });
  t.teardown(() => registration.stop());
  return { registration, logged: () => lines };
}

async function caddyOfTest(t: ExecutionContext, config: string | object, adminPort?: number): Promise<RunningCaddy> {
  const caddy = await startCaddy(config, adminPort === undefined ? {} : { adminPort });
  t.teardown(caddy.stop);
  return caddy;
}

/** The configuration as Caddy prints it. */
async function configOf({ adminUrl }: RunningCaddy): Promise<string> {
  return (await callAdmin(new URL(adminUrl), '/config/')).text;
}

async function send(url: string, count: number, host?: string): Promise<void> {
  for (let sent = 0; sent < count; sent += 50) {
    await Promise.all(
      Array.from(
        { length: Math.min(50, count - sent) },
        () =>
          new Promise((resolve, reject) => {
            request(url, { headers: { ...(host !== undefined && { host }) } }, (response) =>
              response.resume().once('end', resolve),
            )
              .once('error', reject)
              .end();
          }),
      ),
    );
  }
}

async function listenOn(t: ExecutionContext, server: Server): Promise<string> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
