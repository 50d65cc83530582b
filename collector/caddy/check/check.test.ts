import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { startCaddy, testWithCaddy } from '../../../test/caddy.js';
import { freePort, freePorts } from '../../../test/ports.js';
import { folderOf, runProgram, startProgram } from '../../../test/program.js';
import { until } from '../../../test/until.js';
import { callAdmin } from '../admin-client.js';
import type { Finding } from './finding.js';

const root = process.cwd();
const fixtures = join(root, 'collector/caddy/check/fixtures');

testWithCaddy(
  'prints what, where, why and the lines to change, and exits with 1 if log lines would be lost',
  async (t) => {
    const { stdout, status } = await run(['check', join(fixtures, 'bare-output.caddyfile')]);
    t.is(status, 1);
    t.regex(stdout, /^.*bare-output\.caddyfile: 3 findings\.\nChecked: every logger with `output net`; --address/);
    t.true(
      stdout.includes(
        [
          'loses   No soft_start',
          '        in log log0; shop.example; /logging/logs/log0/writer/soft_start',
          '        Caddy refuses to start or to reload while the sink is down, so all requests fail until someone notices.',
          'change  output net collector.example:9514 {',
          '            soft_start',
          '        }',
        ].join('\n'),
      ),
      stdout,
    );
    t.true(stdout.endsWith('\nLog lines would be lost.\n'));
  },
);

testWithCaddy('exits with 0 for duplicates and hints', async (t) => {
  const good = await run(['check', join(fixtures, 'good.caddyfile')]);
  t.is(good.status, 0);
  t.regex(good.stdout, /nothing to change[^]*No log lines would be lost\.\n$/);
  t.is((await run(['check', join(fixtures, 'sent-by-two-loggers.caddyfile')])).status, 0);
});

test('checks only the sink selected by --address or COLLECTOR_LISTEN', async (t) => {
  const file = join(fixtures, 'default-logger-doubles.json');
  const codes = async (args: string[], settings = {}): Promise<string[]> => {
    const { findings } = JSON.parse((await run(['check', file, '--json', ...args], settings)).stdout) as {
      findings: Finding[];
    };
    return findings.map(({ code }) => code);
  };
  t.deepEqual(await codes([]), ['sent-twice']);
  t.deepEqual(await codes(['--address', 'tcp/127.0.0.1:9514']), ['sent-twice']);
  t.deepEqual(await codes(['--address', 'tcp/127.0.0.1:9999']), ['nothing-sent']);
  t.deepEqual(await codes([], { COLLECTOR_LISTEN: 'tcp://:9514' }), ['sent-twice']);
  t.deepEqual(await codes([], { COLLECTOR_LISTEN: 'tcp://:9999,unix:///run/sink.sock' }), ['nothing-sent']);
});

test('suggests changes for the selected sink', async (t) => {
  const off = await fileOf(t, 'off.json', '{"apps":{"http":{"servers":{"edge":{"logs":{},"listen":[":80"]}}}}}');
  const logger = async (args: string[], settings = {}): Promise<string> =>
    (await run(['check', off, ...args], settings)).stdout;
  const writer = (address: string): string =>
    `{"writer":{"output":"net","address":"${address}","dial_timeout":1000000000,"soft_start":true}`;
  t.true((await logger([])).includes(writer('tcp/127.0.0.1:9514')));
  t.true((await logger(['--address', 'tcp/sink.example:9999'])).includes(writer('tcp/sink.example:9999')));
  const listening = await logger([], { COLLECTOR_LISTEN: 'udp://:39514,unix:///run/sink.sock' });
  t.true(listening.includes(writer('unix//run/sink.sock')));
  t.true(
    listening.includes('Checked: loggers that write to port 39514 or unix//run/sink.sock (COLLECTOR_LISTEN).'),
    listening,
  );
});

test('escapes control characters in names', async (t) => {
  const file = await fileOf(
    t,
    'names.json',
    '{"logging":{"logs":{"\\u001b[2J":{"writer":{"output":"net","address":"localhost:9514"}}}}}',
  );
  const { stdout } = await run(['check', file]);
  t.true(stdout.includes('\\u001b[2J (localhost:9514)'), stdout);
  t.false(stdout.includes('\u001b'));
});

testWithCaddy('reads a running Caddy, and reports errors in the words of Caddy', async (t) => {
  const port = await freePort();
  const caddy = await startCaddy(
    `http://127.0.0.1:${port} {\n\tlog {\n\t\toutput net 127.0.0.1:${port + 1} {\n\t\t\tsoft_start\n\t\t}\n\t\tsampling {\n\t\t\tfirst 10\n\t\t}\n\t}\n\trespond "hello"\n}\n`,
  );
  t.teardown(caddy.stop);
  const { status, stdout } = await run(['check', caddy.adminUrl]);
  t.is(status, 1);
  t.regex(stdout, /change {2}\/logging\/logs\/log0\/sampling: remove it/);

  const file = await fileOf(t, 'Caddyfile', 'shop.example {\n\tno_such_directive\n}\n');
  const bad = await run(['check', file]);
  t.is(bad.status, 2);
  t.regex(bad.stderr, /^Caddy cannot read .*Caddyfile:2: unrecognized directive: no_such_directive/);
});

test('exits with 2 and a one-line message if it cannot read a configuration', async (t) => {
  const refused = async (args: string[], message: RegExp, settings: Record<string, string> = {}): Promise<void> => {
    const { status, stderr, stdout } = await run(['check', ...args], settings);
    t.is(status, 2, args.join(' '));
    t.regex(stderr, message);
    t.is(stderr.trimEnd().split('\n').length, 1, stderr);
    t.is(stdout, '');
  };
  await refused([], /check takes one argument/);
  await refused(['one', 'two'], /check takes one argument/);
  await refused(['missing'], /Cannot read missing: ENOENT/);
  await refused(
    [join(fixtures, 'good.caddyfile')],
    /caddy is not on the PATH.*caddy adapt.*http:\/\/127\.0\.0\.1:2019/,
    { PATH: '/nowhere' },
  );
  await refused([join(root, 'package.json')], /package\.json is not a configuration of Caddy: it has "name"/);
  await refused(
    [await fileOf(t, 'list.json', '[]')],
    /list\.json is not a configuration of Caddy: it is an array, but must be an object/,
  );
  await refused([await fileOf(t, 'broken.json', '{"apps":')], /broken\.json is not JSON/);
  const server = (of: object): string => JSON.stringify({ apps: { http: { servers: { edge: of } } } });
  for (const [text, message] of [
    ['null', /: it is null, but must be an object/],
    ['{"logging":5}', /: \/logging is the number 5, but must be an object/],
    ['{"logging":{"logs":{"default":[]}}}', /: \/logging\/logs\/default is an array, but must be an object/],
    [
      '{"logging":{"logs":{"default":{"include":"http"}}}}',
      /: \/logging\/logs\/default\/include is the string "http", but must be an array/,
    ],
    [
      '{"logging":{"logs":{"default":{"writer":{"output":"net"}}}}}',
      /: \/logging\/logs\/default\/writer\/address is missing, but must be an address such as/,
    ],
    ['{"apps":{"http":{"servers":[]}}}', /: \/apps\/http\/servers is an array, but must be an object/],
    [server({ routes: {} }), /: \/apps\/http\/servers\/edge\/routes is an object, but must be an array/],
    [
      server({ routes: [{ match: [{ host: 'a' }] }] }),
      /: \/apps\/http\/servers\/edge\/routes\/0\/match\/0\/host is the string "a"/,
    ],
    [
      server({ logs: { logger_names: { a: [5] } } }),
      /: \/apps\/http\/servers\/edge\/logs\/logger_names\/a is an array, but must be a string or an array of strings/,
    ],
    [`{"apps":${'{"a":'.repeat(20_000)}1${'}'.repeat(20_001)}`, /: it is nested deeper than 10,000 levels/],
    ['{"\\u001b[31m":1}', /it has "\\u001b\[31m"/],
    ['{"a":\u001b\u0007', /is not JSON: .*\\u001b/],
  ] as const)
    await refused([await fileOf(t, 'shape.json', text)], message);
  await refused(['/dev/zero'], /Cannot read \/dev\/zero: it has more than 100 MiB/);
  await refused(
    [`http://127.0.0.1:${await freePort()}`],
    /Cannot read the configuration of Caddy at .*ECONNREFUSED.*Start Caddy/,
  );
  await refused(['http://127.0.0.1:2019/load'], /must be the address of Caddy's admin API/);
  await refused([join(fixtures, 'good.caddyfile'), '--address', '9514'], /--address is "9514"/);
  await refused(
    [join(fixtures, 'good.caddyfile'), '--register', 'http://127.0.0.1:2019'],
    /Unknown option '--register'/,
  );
});

testWithCaddy('`start --register` adds the logger to a running Caddy, and removes it on SIGTERM', async (t) => {
  const [port, line, http, web] = (await freePorts(4)) as [number, number, number, number];
  const caddy = await startCaddy(`http://127.0.0.1:${port} {\n\tlog\n\trespond "hello"\n}\n`);
  t.teardown(caddy.stop);
  const config = async (): Promise<string> => (await callAdmin(new URL(caddy.adminUrl), '/config/')).text;
  const before = await config();
  const program = await startProgram(
    ['start', '--register', caddy.adminUrl],
    {
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${line}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
    },
    [`http://127.0.0.1:${web}/ready`],
  );
  t.teardown(() => program.stop('SIGKILL'));
  await until('it is registered', () => program.stderr().includes('Registered with Caddy'));
  t.regex(await config(), new RegExp(`"tcp/127\\.0\\.0\\.1:${line}"`));
  for (let sent = 0; sent < 10; sent += 1) await (await fetch(`http://127.0.0.1:${port}/`)).text();
  t.is(await program.stop(), 0);
  t.regex(program.stderr(), /Stopped\. received=\d+ accepted=10 stored=10/);
  t.is(await config(), before);
});

test('refuses an invalid --register with status 2 before it opens anything', async (t) => {
  const cwd = await folderOf(t);
  for (const [args, message] of [
    [
      ['--register', '127.0.0.1:2019'],
      /^--register is "127\.0\.0\.1:2019": it must be the address of Caddy's admin API/,
    ],
    [['--register', 'http://caddy:2019'], /give --register-address/],
    [['--register', 'http://caddy:2019', '--register-address', 'collector'], /^--register-address is "collector"/],
    [['--register-address', 'tcp/collector:9514'], /--register-address needs --register/],
  ] as const) {
    const program = await runProgram(['start', ...args], {}, { cwd });
    t.is(await program.ended, 2);
    t.regex(program.stderr(), message);
    t.is(program.stderr().trimEnd().split('\n').length, 1, 'nothing listened, and nothing was stopped');
    t.deepEqual(await readdir(cwd), []);
  }
});

async function run(
  args: readonly string[],
  settings: Record<string, string> = {},
): Promise<{ status: number | NodeJS.Signals; stdout: string; stderr: string }> {
  const program = await runProgram(args, settings);
  return { status: await program.ended, stdout: program.stdout(), stderr: program.stderr() };
}

async function fileOf(t: ExecutionContext, name: string, text: string): Promise<string> {
  const folder = await folderOf(t);
  await writeFile(join(folder, name), text);
  return join(folder, name);
}
