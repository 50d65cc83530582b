import { readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import test from 'ava';
import { freePort } from './ports.js';
import { folderOf, readLedger, runProgram, startProgram } from './program.js';
import { until } from './until.js';

const usage = test.macro({
  async exec(t, args: string[], settings: Record<string, string>, message: RegExp) {
    const program = await runProgram(args, settings);
    t.is(await program.ended, 2);
    t.regex(program.stderr(), message);
    t.is(program.stderr().trimEnd().split('\n').length, 1, 'one line, no stack');
    t.is(program.stdout(), '');
  },
  title: (given, args: string[]) =>
    `${given ?? ''} \`caddy-log-sink ${args.join(' ')}\` ends with status 2 and says why`.trim(),
});

test(usage, [], {}, /Name a command/);
test(usage, ['fly'], {}, /There is no command "fly": it must be one of start, collector, web/);
test(usage, ['start', 'now'], {}, /start takes no arguments.*"now"/);
test(usage, ['start', '--verbose'], {}, /--verbose/);
test(usage, ['start', '--env-file', 'missing.env'], {}, /missing\.env/);
test(
  'with a bad address',
  usage,
  ['start'],
  { COLLECTOR_LISTEN: '9514' },
  /COLLECTOR_LISTEN is "9514": it must be tcp:\/\//,
);
test(
  'with a bad store',
  usage,
  ['start'],
  { STORE: 'postgres' },
  /STORE is "postgres": it must be duckdb:FILE or influxdb/,
);
test('without InfluxDB’s address', usage, ['collector'], { STORE: 'influxdb' }, /INFLUXDB_URL is not set/);
test('over DuckDB', usage, ['collector'], {}, /collector alone needs STORE=influxdb/);
test(
  'with InfluxDB’s address but not its store',
  usage,
  ['start'],
  { INFLUXDB_URL: 'http://127.0.0.1:1' },
  /INFLUXDB_URL is set, and STORE is "duckdb:.*set STORE=influxdb/,
);
test(
  'with a database of countries that is none',
  usage,
  ['start'],
  { GEOIP_DATABASE: 'package.json' },
  /^GEOIP_DATABASE is "package\.json": it must be an MMDB file with countries/,
);
test(
  'with a database of countries that is not there',
  usage,
  ['import', 'none.log'],
  { GEOIP_DATABASE: '/nowhere/countries.mmdb' },
  /^GEOIP_DATABASE is "\/nowhere\/countries\.mmdb": .*ENOENT/,
);
test(
  'open to strangers',
  usage,
  ['start'],
  { WEB_LISTEN: '0.0.0.0:3000' },
  /set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true/,
);
test(
  'with a bad webhook, whose secret it does not show',
  usage,
  ['start'],
  { ALERT_WEBHOOK: 'hooks.example/s3cret' },
  /^(?!.*s3cret)ALERT_WEBHOOK cannot be used \(its value is not shown here\): it must be an http or https URL/,
);

for (const args of [['start'], ['start', '--restartable'], ['check', 'none']])
  test(
    'with a bad log level',
    usage,
    args,
    { LOG_LEVEL: 'all' },
    /^LOG_LEVEL is "all": it must be one of debug, info, warn, error\./,
  );
test(
  'with a bad log format',
  usage,
  ['start'],
  { LOG_FORMAT: 'xml' },
  /^LOG_FORMAT is "xml": it must be one of text, json\./,
);

test('LOG_LEVEL and LOG_FORMAT apply to the supervisor and to its worker, also from a settings file', async (t) => {
  const [tcp, http] = [await freePort(), await freePort()];
  const folder = await folderOf(t);
  await writeFile(join(folder, 'my.env'), 'LOG_LEVEL=debug\nLOG_FORMAT=json\n');
  const program = await startProgram(
    ['start', '--restartable', '--env-file', join(folder, 'my.env')],
    { COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`, COLLECTOR_HTTP: `127.0.0.1:${http}`, WEB_LISTEN: '127.0.0.1:0' },
    [`http://127.0.0.1:${http}/health`],
  );
  const messages = (): string[] =>
    program
      .stderr()
      .split('\n')
      .slice(0, -1)
      .map((line) => {
        const { time, level, part, message } = JSON.parse(line) as Record<
          'time' | 'level' | 'part' | 'message',
          string
        >;
        t.is(new Date(time).toISOString(), time);
        return `${level} ${part}: ${message}`;
      });
  connect(tcp, '127.0.0.1').end('no line of Caddy\n');
  await until('the connection was logged', () => messages().includes('debug collector: Connection closed.'));
  t.true(messages().includes('debug collector: Connection opened.'));
  t.is(await program.stop(), 0);
  t.true(messages().includes('debug supervisor: A worker is running.'), program.stderr());
  t.true(messages().includes('info collector: Stopped.'), program.stderr());
  t.is(messages().at(-1), 'debug supervisor: A worker has ended.');
  t.false(
    messages().some((message) => message.includes('/health')),
    'HTTP requests are not logged',
  );
});

test('starts beside the variables of other programs, and warns of one that may be a misspelt setting', async (t) => {
  const program = await runProgram(['import'], {
    WEB_CONCURRENCY: '2',
    CLIENT_ID: 'abc',
    INFLUXDB_VERSION: '2.7.12',
    COLLECTOR_LISTN: ':1',
  });
  t.is(await program.ended, 2);
  t.regex(
    program.stderr(),
    /warn.* COLLECTOR_LISTN in the environment is not a setting and is ignored; did you mean COLLECTOR_LISTEN\?/,
  );
  t.regex(program.stderr(), /Name the files to import/, 'it got as far as the command');
  t.notRegex(program.stderr(), /WEB_CONCURRENCY|INFLUXDB_VERSION/);
});

test('a misspelt setting in a settings file ends the program with status 2', async (t) => {
  const folder = await folderOf(t);
  await writeFile(join(folder, 'my.env'), 'COLLECTOR_LISTN=:1\n');
  const program = await runProgram(['start', '--env-file', join(folder, 'my.env')], {});
  t.is(await program.ended, 2);
  t.regex(program.stderr(), /^COLLECTOR_LISTN is not a setting; did you mean COLLECTOR_LISTEN\?/);
});

test('an empty variable does not hide the value of the settings file', async (t) => {
  const folder = await folderOf(t);
  await writeFile(
    join(folder, 'my.env'),
    'DASHBOARD_PASSWORD=a long enough secret\nWEB_LISTEN=127.0.0.1:0\nCOLLECTOR_LISTEN=tcp://127.0.0.1:0\nCOLLECTOR_HTTP=off\n',
  );
  const program = await runProgram(
    ['start', '--env-file', join(folder, 'my.env')],
    { DASHBOARD_PASSWORD: '' },
    { cwd: folder },
  );
  const url = await until('the page is there', () => /Dashboard +(\S+)/.exec(program.stdout())?.[1]);
  t.is((await fetch(url)).status, 401);
  t.is(await program.stop(), 0);
});

test('--help lists the commands, and with a command its settings and defaults', async (t) => {
  const all = await runProgram(['--help'], {});
  t.is(await all.ended, 0);
  t.regex(all.stdout(), /start .*\n.*collector .*\n.*web /);
  const web = await runProgram(['web', '--help'], {});
  t.is(await web.ended, 0);
  t.regex(web.stdout(), /WEB_LISTEN=127\.0\.0\.1:3000/);
  t.notRegex(web.stdout(), /COLLECTOR_HTTP/);
});

test('with --restartable, too, a settings file that cannot be read is named, with what to do', async (t) => {
  const program = await runProgram(['start', '--restartable', '--env-file', 'missing.env'], {});
  t.is(await program.ended, 2);
  t.regex(program.stderr(), /^Cannot read the settings file missing\.env: ENOENT.*Give --env-file a file/m);
});

test('a port that is taken is named, with what to do', async (t) => {
  const [http, web] = [await freePort(), await freePort()];
  const settings = {
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${http}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
  };
  const program = await runProgram(['start'], settings);
  t.is(await program.ended, 2);
  t.regex(
    program.stderr(),
    new RegExp(`Cannot listen on http://127\\.0\\.0\\.1:${http}: the port is in use\\..* COLLECTOR_HTTP`),
  );
});

test('it goes on when nobody reads its log any more', async (t) => {
  const [tcp, http, web] = [await freePort(), await freePort(), await freePort()];
  const settings = {
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
  };
  const program = await startProgram(['start'], settings, [`http://127.0.0.1:${web}/ready`]);
  program.hangUp();
  // The first is named in the log.
  for (let sent = 1; sent <= 2; sent += 1) {
    connect(tcp, '127.0.0.1').end('no line of Caddy\n');
    await until('it is counted', async () => (await readLedger(http)).rejected['not-json'] === sent);
  }
  t.is(await program.stop(), 0);
});

(process.platform === 'linux' ? test : test.skip)(
  'a folder that cannot be made is named, with what to do: the spool, and that of the DuckDB file',
  async (t) => {
    const [tcp, http, web] = [await freePort(), await freePort(), await freePort()];
    const listen = { COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`, COLLECTOR_HTTP: `127.0.0.1:${http}` };
    const influxdb = {
      STORE: 'influxdb',
      INFLUXDB_URL: 'http://127.0.0.1:1',
      INFLUXDB_ORG: 'o',
      INFLUXDB_BUCKET: 'b',
      INFLUXDB_TOKEN: 't',
    };
    const collector = await runProgram(['collector'], { ...listen, ...influxdb, SPOOL_DIR: '/proc/nothing/spool' });
    t.is(await collector.ended, 1);
    t.regex(
      collector.stderr(),
      /Cannot open the spool in \/proc\/nothing\/spool\/collector: ENOENT.*'\/proc\/nothing'\. Set SPOOL_DIR to a folder that this user can write\./,
    );
    const start = await runProgram(['start'], {
      ...listen,
      WEB_LISTEN: `127.0.0.1:${web}`,
      STORE: 'duckdb:/proc/nothing/data/requests.duckdb',
    });
    t.is(await start.ended, 1);
    t.regex(
      start.stderr(),
      /Cannot open the DuckDB file \/proc\/nothing\/data\/requests\.duckdb: ENOENT.*or set STORE/,
    );
  },
);

test('the start says where the ledger is, and asks for lines to be pasted only where it does not register itself', async (t) => {
  for (const register of [[], ['--register', `http://127.0.0.1:${await freePort()}`]]) {
    const [tcp, http, web] = [await freePort(), await freePort(), await freePort()];
    const program = await startProgram(
      ['start', ...register],
      {
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
        COLLECTOR_HTTP: `127.0.0.1:${http}`,
        WEB_LISTEN: `127.0.0.1:${web}`,
      },
      [`http://127.0.0.1:${http}/ready`, `http://127.0.0.1:${web}/health`],
    );
    const said = await until('it says so', () => program.stdout().includes('Caddyfile') && program.stdout());
    t.true(said.includes(`Ledger     http://127.0.0.1:${http}/ledger\n`), said);
    t.is(said.includes('Put these lines into your Caddyfile'), register.length === 0, said);
    t.is(said.includes('    log caddy_events {\n'), register.length === 0, said);
    t.is(
      said.includes(`The sink registers with the Caddy at ${register[1] ?? ''}: do not add it`),
      register.length > 0,
      said,
    );
    t.is(await program.stop(), 0);
  }
});

for (const signal of ['SIGTERM', 'SIGHUP'] as const)
  test(`${signal} stops the program in order, also one that comes while it starts`, async (t) => {
    const settings = { COLLECTOR_LISTEN: 'tcp://127.0.0.1:0', COLLECTOR_HTTP: 'off', WEB_LISTEN: '127.0.0.1:0' };
    const program = await runProgram(['start'], settings);
    await until('it listens', () => program.stderr().includes('Listening on')); // and has not said yet where the dashboard is
    t.is(await program.stop(signal), 0);
    t.regex(program.stderr(), /info collector: Stopped\./);
  });

test('git ignores the folder of tokens that the docs make', async (t) => {
  t.true((await readFile('.gitignore', 'utf8')).split('\n').includes('tokens/'));
});
