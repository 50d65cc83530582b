import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer as createHttpServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { caddyfileLines } from '../cli/welcome.js';
import { startCaddy, testWithCaddy } from './caddy.js';
import { startLineServer } from './line-server.js';
import { freePort, freePorts } from './ports.js';
import { startProgram } from './program.js';
import { until } from './until.js';

testWithCaddy(
  "The repository's Caddyfile proxies the web app and sends each request as a line of JSON to the collector.",
  async (t) => {
    const app = createHttpServer((_, response) => response.end('from the app')).listen(0, '127.0.0.1');
    await once(app, 'listening');
    t.teardown(() => app.close());
    const collector = await startLineServer(t);

    const port = await freePort();
    const caddy = await startCaddy(await readFile('Caddyfile', 'utf8'), {
      env: { SITE: `http://127.0.0.1:${port}`, WEB: addressOf(app), COLLECTOR: collector.address },
    });
    t.teardown(caddy.stop);
    const answer = await fetch(`http://127.0.0.1:${port}/hello?a=1`);
    t.is(await answer.text(), 'from the app');

    const line = await until('the line is there', () =>
      collector.lines.find(({ logger }) => logger === 'http.log.access.log0'),
    );
    t.like(line, { status: 200, request: { uri: '/hello?a=1' } });
  },
);

testWithCaddy(
  "The repository's Caddyfile, and the lines that the start prints, send the reason of a failed request before the request, and both once.",
  async (t) => {
    const [port, nobody] = (await freePorts(2)) as [number, number];
    const collector = await startLineServer(t);
    const lines = caddyfileLines([{ kind: 'tcp', family: 4, host: '127.0.0.1', port: collector.port }]);
    const site = lines.slice(0, lines.indexOf('')).join('\n');
    const printed = `${lines.slice(lines.indexOf('')).join('\n')}\n{$SITE} {\n${site}\nreverse_proxy {$WEB}\n}\n`;
    for (const caddyfile of [await readFile('Caddyfile', 'utf8'), printed]) {
      const before = collector.lines.length;
      const caddy = await startCaddy(caddyfile, {
        env: { SITE: `http://127.0.0.1:${port}`, WEB: `127.0.0.1:${nobody}`, COLLECTOR: collector.address },
      });
      t.teardown(caddy.stop);
      t.is((await fetch(`http://127.0.0.1:${port}/hello`)).status, 502);
      await caddy.stop(); // Caddy closes its connections, so all lines have been sent
      await until('they are read', () => collector.openConnections() === 0);
      const sent = collector.lines.slice(before);
      t.deepEqual(
        sent.filter(({ request }) => request !== undefined).map(({ logger }) => logger),
        ['http.log.error.log0', 'http.log.access.log0'],
        caddyfile,
      );
      t.regex(sent.find(({ request }) => request !== undefined)!.msg, /connect: connection refused/);
      t.true(sent.some(({ msg }) => msg === 'server running'));
    }
  },
);

testWithCaddy(
  'The dashboard on loopback is there under any name through Caddy, and under no name that others can have without it.',
  async (t) => {
    const [site, line, http, web] = (await freePorts(4)) as [number, number, number, number];
    const program = await startProgram(
      ['start'],
      {
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${line}`,
        COLLECTOR_HTTP: `127.0.0.1:${http}`,
        WEB_LISTEN: `127.0.0.1:${web}`,
      },
      [`http://127.0.0.1:${web}/ready`],
    );
    t.teardown(() => program.stop());
    const caddy = await startCaddy(await readFile('Caddyfile', 'utf8'), {
      env: { SITE: `:${site}`, WEB: `127.0.0.1:${web}`, COLLECTOR: `127.0.0.1:${line}` },
    });
    t.teardown(caddy.stop);
    const statusAt = (port: number, host: string): Promise<number> =>
      new Promise((resolve, reject) => {
        request({ host: '127.0.0.1', port, headers: { host }, agent: false }, (response) => {
          resolve(response.resume().statusCode!);
        })
          .on('error', reject)
          .end();
      });
    t.is(await statusAt(site, 'stats.example'), 200);
    t.is(await statusAt(web, 'stats.example'), 403);
    t.is(await statusAt(web, `localhost:${web}`), 200);
  },
);

testWithCaddy("The repository's Caddyfile starts and serves while the collector is down.", async (t) => {
  const [port, nobody] = (await freePorts(2)) as [number, number];
  const caddy = await startCaddy(await readFile('Caddyfile', 'utf8'), {
    env: { SITE: `http://127.0.0.1:${port}`, WEB: `127.0.0.1:${nobody}`, COLLECTOR: `127.0.0.1:${nobody}` },
  });
  t.teardown(caddy.stop);
  const answer = await fetch(`http://127.0.0.1:${port}/`);
  t.is(answer.status, 502);
});

testWithCaddy('A Caddy that cannot load its configuration is reported in its own words.', async (t) => {
  await t.throwsAsync(startCaddy('localhost {\n\tno_such_directive\n}\n'), { message: /no_such_directive/ });

  const caddy = await startCaddy(`http://127.0.0.1:${await freePort()} {\n\trespond "fine"\n}\n`);
  t.teardown(caddy.stop);
  await t.throwsAsync(caddy.reload('localhost {\n\tno_such_directive\n}\n'), { message: /no_such_directive/ });
});

function addressOf(server: { address(): AddressInfo | string | null }): string {
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
