import { readdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import fc from 'fast-check';
import { testWithCaddy } from '../../../test/caddy.js';
import { planRegistration } from '../registration-plan.js';
import { findProblems } from './find-problems.js';
import type { Finding } from './finding.js';
import { check } from './check.js';

const folder = 'collector/caddy/check/fixtures';
const dashboard = { host: '127.0.0.1', port: 3000 };

// A fixture is a configuration with its expected findings beside it, without their texts. UPDATE_GOLDEN=1 updates them.
for (const file of readdirSync(folder).filter(
  (name) => /\.(caddyfile|json)$/.test(name) && !name.includes('.findings.'),
)) {
  const declare: typeof testWithCaddy = file.endsWith('.json') ? test : testWithCaddy;
  declare(`finds the expected problems in fixtures/${file}`, async (t) => {
    const { text, exitStatus } = await check({
      source: join(folder, file),
      address: undefined,
      listen: undefined,
      dashboard,
      json: true,
    });
    const { findings, loses } = JSON.parse(text) as { findings: (Finding & { why?: string })[]; loses: boolean };
    const found = findings.map(({ severity, code, logger, path, sites, change }) => ({
      severity,
      code,
      ...(logger !== undefined && { logger }),
      path,
      sites,
      change,
    }));
    const expected = join(folder, `${file}.findings.json`);
    if (process.env['UPDATE_GOLDEN'] !== undefined) await writeFile(expected, `${JSON.stringify(found, null, 2)}\n`);
    t.deepEqual(found, JSON.parse(await readFile(expected, 'utf8')));
    t.is(exitStatus, findings.some(({ severity }) => severity === 'loses') ? 1 : 0);
    t.is(loses, exitStatus === 1);
    for (const { why, what } of findings) {
      t.regex(why, /^[A-Z].*\.$/);
      t.notRegex(what, /\.$/);
    }
  });
}

test('finds the one duplicate among 30,000 hosts with a logger each', (t) => {
  const writer = { output: 'net', address: 'tcp/127.0.0.1:9514', soft_start: true, dial_timeout: 1e9 };
  const hosts = Array.from({ length: 30_000 }, (_, at) => `h${at}.shop.example`);
  const findings = findProblems(
    {
      logging: {
        logs: {
          ...Object.fromEntries(hosts.map((host, at) => [host, { writer, include: [`http.log.access.log${at}`] }])),
          again: {
            writer,
            include: ['http.log.access'],
            exclude: hosts.flatMap((_, at) => (at === 777 ? [] : [`http.log.access.log${at}`])),
          },
        },
      },
      apps: {
        http: {
          servers: {
            edge: {
              logs: {
                logger_names: Object.fromEntries(hosts.map((host, at) => [host, [`log${at}`]])),
                skip_hosts: hosts.map((host) => `*.${host}`),
              },
              routes: hosts.map((host) => ({
                match: [{ host: [host] }],
                handle: [{ handler: 'reverse_proxy', upstreams: [{ dial: '127.0.0.1:3000' }] }],
              })),
            },
          },
        },
      },
    },
    { sinkAt: ({ place }) => place, address: writer.address, dashboard: '127.0.0.1:9999', syntax: 'json' },
  );
  t.deepEqual(
    findings.map(({ code, sites }) => ({ code, sites })),
    [
      { code: 'sent-twice', sites: ['h777.shop.example'] },
      { code: 'events-not-sent', sites: [] },
    ],
  );
});

test('check and registration never throw, for any JSON at any place in a configuration', (t) => {
  const options = {
    sinkAt: ({ place }: { place: string }) => place,
    address: 'tcp/127.0.0.1:9514',
    dashboard: '127.0.0.1:3000',
    syntax: 'json',
  } as const;
  const logger = fc.record(
    {
      writer: fc.oneof(
        fc.jsonValue(),
        fc.record({ output: fc.constant('net'), address: fc.oneof(fc.string(), fc.jsonValue()) }),
      ),
      include: fc.oneof(fc.jsonValue(), fc.constant(['http.log.access'])),
      exclude: fc.jsonValue(),
      encoder: fc.oneof(
        fc.jsonValue(),
        fc.record({ format: fc.constant('filter'), wrap: fc.jsonValue(), fields: fc.jsonValue() }),
      ),
    },
    { requiredKeys: [] },
  );
  const server = fc.record(
    {
      logs: fc.oneof(fc.jsonValue(), fc.record({ logger_names: fc.jsonValue(), skip_hosts: fc.jsonValue() })),
      routes: fc.oneof(fc.jsonValue(), fc.array(fc.record({ match: fc.jsonValue(), handle: fc.jsonValue() }))),
    },
    { requiredKeys: [] },
  );
  const config = fc.oneof(
    fc.jsonValue(),
    fc.record({
      logging: fc.oneof(
        fc.jsonValue(),
        fc.record({ logs: fc.dictionary(fc.string(), fc.oneof(fc.jsonValue(), logger)) }),
      ),
      apps: fc.oneof(
        fc.jsonValue(),
        fc.record({ http: fc.record({ servers: fc.dictionary(fc.string(), fc.oneof(fc.jsonValue(), server)) }) }),
      ),
    }),
  );
  fc.assert(
    fc.property(config, (value) => {
      findProblems(value, options);
      planRegistration(value, { address: 'tcp/127.0.0.1:9514', places: new Set(['localhost:9514']) });
    }),
    { numRuns: 2000 },
  );
  t.pass();
});
