/** Verifies the claims of `check` with a real Caddy and a real collector. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import { readFile, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { startCaddy, testWithCaddy } from '../../../test/caddy.js';
import { collectorOfTest, type TestCollector } from '../../../test/collector.js';
import { startLineServer } from '../../../test/line-server.js';
import { freePort } from '../../../test/ports.js';
import { folderOf } from '../../../test/program.js';
import { until } from '../../../test/until.js';
import { netLoggers, refusedName, requestGroups } from './log-routing.js';
import { readCaddyConfig } from './read-config.js';

const requests = 40;

testWithCaddy('no-soft-start: Caddy starts while the sink is down only with soft_start', async (t) => {
  const [port, nobody] = [await freePort(), await freePort()];
  const site = (option: string): string =>
    `http://127.0.0.1:${port} {\n\tlog {\n\t\toutput net 127.0.0.1:${nobody} {\n\t\t\tdial_timeout 3s\n\t\t\t${option}\n\t\t}\n\t}\n\trespond "hello"\n}\n`;
  await t.throwsAsync(startCaddy(site('')), { message: /connection refused/ });
  const caddy = await startCaddy(site('soft_start'));
  t.teardown(caddy.stop);
  t.is(await get(port, 'any.example'), 200);
});

testWithCaddy('sent-twice: overlapping loggers duplicate requests, and the suggested changes prevent it', async (t) => {
  t.timeout(60_000);
  for (const [file, host, doubled] of [
    ['sent-by-two-loggers.caddyfile', 'shop.example', true],
    ['sent-by-two-loggers.caddyfile', 'blog.example', false],
    ['one-logger-two-names.caddyfile', 'shop.example', true],
    ['default-log-and-site-log.caddyfile', 'shop.example', false],
    ['default-log-and-site-log.caddyfile', 'blog.example', false],
    ['default-logger-doubles.json', 'any.example', true],
  ] as const) {
    t.is(await countedOf(t, await fixture(file), host), doubled ? 2 * requests : requests, `${file}, ${host}`);
  }
  const repaired = [
    (await fixture('sent-by-two-loggers.caddyfile')).replace(
      'include http.log.access',
      '$&\n\t\texclude http.log.access.log0',
    ),
    (await fixture('one-logger-two-names.caddyfile')).replace(
      'include http.log.access',
      '$&\n\t\texclude http.log.access.screen',
    ),
    (await fixture('default-logger-doubles.json')).replace('"default": {', '$& "exclude": ["http.log.access.site"],'),
  ];
  for (const config of repaired) t.is(await countedOf(t, config, 'shop.example'), requests, config);
});

testWithCaddy(
  'sent-twice: a logger of events that includes http doubles requests until http.log.access is excluded',
  async (t) => {
    const doubling = (await fixture('events-include-http.caddyfile')).replace(/reverse_proxy .*/, 'respond "shop"');
    t.is(await countedOf(t, doubling, 'shop.example'), 2 * requests);
    const repaired = doubling.replace('include http tls', 'exclude http.log.access');
    t.is(await countedOf(t, repaired, 'shop.example'), requests);
  },
);

testWithCaddy('filter-refused: Caddy refuses the lists of include and exclude that check reports', async (t) => {
  const folder = await folderOf(t);
  for (const [include, exclude, refused] of [
    [['http', 'tls'], ['http.log.access'], 'tls'],
    [['http', 'tls'], ['http.log.access', 'tls.cache'], undefined],
    [['http.log.access.a'], ['http.log.access'], undefined],
    [['http.log.access.a'], ['http.log.access.b'], 'http.log.access.a'],
    [['http.log'], ['http.log'], 'http.log'],
    [['http'], ['httpd.x'], 'http'],
    [['http'], ['*'], 'http'],
    [['http'], [], undefined],
    [[], ['http'], undefined],
  ] as const) {
    const file = join(folder, 'caddy.json');
    await writeFile(file, JSON.stringify({ logging: { logs: { events: { include, exclude } } } }));
    const what = `include ${include.join(' ')}, exclude ${exclude.join(' ')}`;
    t.is(refusedName(include, exclude), refused, what);
    const validated = promisify(execFile)('caddy', ['validate', '--config', file]);
    if (refused === undefined) await t.notThrowsAsync(validated, what);
    else await t.throwsAsync(validated, { message: /include and exclude/ }, what);
  }
});

testWithCaddy(
  'events-not-sent: an include of http takes no line of reverse_proxy, unless it names the module',
  async (t) => {
    const upstream = createServer((_, response) => {
      response.writeHead(200, { 'content-length': 1000 });
      response.write('cut', () => response.destroy());
    }).listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    t.teardown(() => upstream.close());
    const proxyModule = 'http.handlers.reverse_proxy';
    for (const [lists, isSent] of [
      ['exclude http.log.access', true],
      ['include http tls\n\t\texclude http.log.access tls.cache', false],
      [`include ${proxyModule}`, true],
      [`include http ${proxyModule}\n\t\texclude http.log.access http.handlers`, true],
      ['include http.handlers', false],
      ['exclude http.handlers', false],
    ] as const) {
      const [sink, port] = [await startLineServer(t), await freePort()];
      const caddyfile = `{\n\tlog events {\n\t\toutput net ${sink.address}\n\t\t${lists}\n\t}\n}\nhttp://:${port} {\n\treverse_proxy 127.0.0.1:${(upstream.address() as AddressInfo).port}\n}\n`;
      const caddy = await startCaddy(caddyfile);
      await t.throwsAsync(fetch(`http://127.0.0.1:${port}/`).then((response) => response.text()));
      const { adminUrl } = caddy;
      const [logger] = netLoggers((await readCaddyConfig(adminUrl)).config);
      await caddy.stop(); // Caddy closes its connections, so all lines have been sent
      await until('they are read', () => sink.openConnections() === 0);
      t.is(
        sink.lines.some((line) => line.logger === proxyModule),
        isSent,
        `${lists}, sent`,
      );
      t.is(logger!.acceptsModule(proxyModule) && logger!.accepts(proxyModule), isSent, `${lists}, predicted`);
    }
  },
);

testWithCaddy(
  'errors-below-level: with handle_errors, error lines are sent only at DEBUG, and once in the form of check',
  async (t) => {
    for (const [file, sent] of [
      ['events-handle-errors.caddyfile', 0],
      ['events-of-their-own.caddyfile', 1],
      ['events-of-two-names.caddyfile', 2],
    ] as const) {
      const [sink, port, nobody] = [await startLineServer(t), await freePort(), await freePort()];
      const caddyfile = (await fixture(file))
        .replaceAll('tcp/127.0.0.1:9514', sink.address)
        .replace(/^(\w+\.example)/gm, `http://$1:${port}`)
        .replaceAll(/127\.0\.0\.1:808\d/g, `127.0.0.1:${nobody}`)
        .replace('/tmp/shop.log', join(await folderOf(t), 'shop.log'));
      const caddy = await startCaddy(caddyfile);
      await get(port, 'shop.example');
      await caddy.stop();
      await until('they are read', () => sink.openConnections() === 0);
      const errors = sink.lines.filter(({ logger }) => logger!.startsWith('http.log.error'));
      t.is(errors.length, sent, file);
      t.is(sink.lines.filter(({ logger }) => logger!.startsWith('http.log.access')).length, 1, file);
      t.deepEqual(
        sink.lines.filter(({ level, logger }) => level === 'debug' && !logger!.startsWith('http.log.error')),
        [],
      );
    }
  },
);

testWithCaddy('line-ending: "\\n" in a Caddyfile is a backslash and an n, and no line is counted', async (t) => {
  const site = (format: string): string =>
    `http:// {\n\tlog {\n\t\toutput net tcp/127.0.0.1:9514\n\t\t${format}\n\t}\n\trespond "hello"\n}\n`;
  t.is(await countedOf(t, site('format json {\n\t\t\tline_ending "\\n"\n\t\t}'), 'a.example'), 0);
  t.is(await countedOf(t, site('format json {\n\t\t\tline_ending "\r\n"\n\t\t}'), 'a.example'), requests);
});

testWithCaddy('sampling and level: sampling drops lines silently, and level ERROR all but failures', async (t) => {
  const site = (option: string): string =>
    `http:// {\n\tlog {\n\t\toutput net tcp/127.0.0.1:9514\n\t\t${option}\n\t}\n\trespond "hello"\n}\n`;
  t.true(
    (await countedOf(
      t,
      site('sampling {\n\t\t\tinterval 1h\n\t\t\tfirst 10\n\t\t\tthereafter 1000\n\t\t}'),
      'a.example',
    )) <= 10,
  );
  t.is(await countedOf(t, site('level ERROR'), 'a.example'), 0);
});

testWithCaddy('udp: a line that exceeds a datagram is lost, and only the stderr of Caddy reports it', async (t) => {
  const collector = await collectorOfTest(t, 'udp://127.0.0.1:0');
  const port = await freePort();
  const caddy = await startCaddy(
    `http://:${port} {\n\tlog {\n\t\toutput net ${collector.address}\n\t}\n\trespond "hello"\n}\n`,
  );
  t.teardown(caddy.stop);
  await get(port, 'a.example', { 'X-Large': 'x'.repeat(66_000) });
  await get(port, 'b.example', { 'X-Large': 'x'.repeat(60_000) });
  await until('the second one came', () => collector.ledger().accepted === 1);
  await caddy.stop();
  t.is(collector.ledger().received, 1);
  t.regex(caddy.stderr(), /write error: .*message too long/);
});

testWithCaddy('nothing-sent: a server without access logs sends nothing', async (t) => {
  t.is(await countedOf(t, await fixture('access-logs-off.json'), 'a.example'), 0);
});

testWithCaddy('routes the line of each request as Caddy does', async (t) => {
  t.timeout(60_000);
  const log = 'log {\n\t\toutput net tcp/127.0.0.1:9514\n\t}';
  const none = 'log {\n\t\toutput discard\n\t}';
  const site = (host: string, ...lines: string[]): string => `http://${host}:8080 {\n\t${lines.join('\n\t')}\n}\n`;
  const global = (logger: string): string =>
    `{\n\tlog ${logger} {\n\t\toutput net tcp/127.0.0.1:9514\n\t\tinclude http.log.access.${logger}\n\t}\n}\n`;
  for (const [what, caddyfile, counted] of [
    ['a site for any host that only logs', site('', log), { 'any.example': 1 }],
    [
      'the same beside a site that logs elsewhere and one without log',
      site('', log) + site('a.example', none) + site('b.example'),
      { 'any.example': 1, 'a.example': 0, 'b.example': 1 },
    ],
    [
      'a wildcard, and a host within it with a separate log',
      site('*.shop.example', log, 'respond hello') + site('a.shop.example', none, 'respond hello'),
      { 'b.shop.example': 1, 'a.shop.example': 0 },
    ],
    [
      'a site with a log_name for every request',
      global('special') + site('', none, 'log_name special', 'respond hello'),
      { 'any.example': 1 },
    ],
    [
      'a site with a default log that also writes to the sink',
      '{\n\tlog {\n\t\toutput net tcp/127.0.0.1:9514\n\t}\n}\n' + site('', log, 'respond hello'),
      { 'any.example': 1 },
    ],
    [
      'a snippet',
      `(sink) {\n\t${log}\n}\n` +
        site('a.example', 'import sink', 'respond hello') +
        site('b.example', 'respond hello'),
      { 'a.example': 1, 'b.example': 0 },
    ],
  ] as const) {
    const folder = await folderOf(t);
    await writeFile(join(folder, 'Caddyfile'), caddyfile);
    const { config } = await readCaddyConfig(join(folder, 'Caddyfile'));
    const copies = (host: string): number | undefined => {
      const group = [host, host.replace(/^\w+/, '*'), ''].flatMap((each) =>
        requestGroups(config).filter((found) => found.host === each),
      )[0];
      return group?.loggerNames.flatMap((name) => netLoggers(config).filter((logger) => logger.accepts(name))).length;
    };
    for (const [host, times] of Object.entries(counted)) {
      t.is(copies(host), times, `${what}: ${host}, predicted`);
      t.is(await countedOf(t, caddyfile, host), times * requests, `${what}: ${host}, counted`);
    }
  }
});

testWithCaddy('field-filtered: only a missing status loses requests', async (t) => {
  const site = (field: string): string =>
    `http:// {\n\tlog {\n\t\toutput net tcp/127.0.0.1:9514\n\t\tformat filter {\n\t\t\t${field} delete\n\t\t}\n\t}\n\trespond "hello"\n}\n`;
  t.is(await countedOf(t, site('status'), 'a.example'), 0, 'status');
  for (const field of [
    'duration',
    'request',
    'size',
    'request>host',
    'request>method',
    'request>uri',
    'request>headers',
  ])
    t.is(await countedOf(t, site(field), 'a.example'), requests, field);
});

/**
 * Sends `requests` requests for the host to a Caddy with this configuration. Resolves to the number that the sink
 * counts.
 */
async function countedOf(t: ExecutionContext, config: string, host: string): Promise<number> {
  const [collector, port] = [await collectorOfTest(t), await freePort()];
  const caddy = await startCaddy(onFreePorts(config, collector, port));
  for (let sent = 0; sent < requests; sent += 1) t.is(await get(port, host), 200);
  await caddy.stop(); // Caddy closes its connections, so every line has been sent
  await collector.stop(); // and the collector reads what was sent
  return collector.ledger().accepted;
}

/** Moves every site of a fixture to one plain port, and the sink to the collector. */
function onFreePorts(config: string, { address }: TestCollector, port: number): string | object {
  const moved = config.replace(/(?:tcp\/)?(?:127\.0\.0\.1|localhost|sink\.example):9514/g, address);
  if (moved.trimStart().startsWith('{\n  "')) return JSON.parse(moved.replaceAll(':8080', `:${port}`)) as object;
  return moved
    .replaceAll(':8080', `:${port}`)
    .replace(/^(http:\/\/|\w+\.example)(?= \{)/gm, (site) => `${site === 'http://' ? site : `http://${site}`}:${port}`);
}

async function fixture(file: string): Promise<string> {
  return await readFile(`collector/caddy/check/fixtures/${file}`, 'utf8');
}

async function get(port: number, host: string, headers: Readonly<Record<string, string>> = {}): Promise<number> {
  return await new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, headers: { host, ...headers } }, (response) => {
      response.resume().once('end', () => {
        resolve(response.statusCode!);
      });
    })
      .once('error', reject)
      .end();
  });
}
