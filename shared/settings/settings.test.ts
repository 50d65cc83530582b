import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { UsageError } from '../errors.js';
import {
  address,
  bytes,
  checkNames,
  choice,
  count,
  duration,
  flag,
  isLoopback,
  list,
  parseAddress,
  ratio,
  readSettings,
  text,
  url,
  withEnvFiles,
  type Setting,
} from './settings.js';

const good = test.macro({
  exec(t, setting: Setting<unknown>, input: string, value: unknown) {
    t.deepEqual(readSettings({ NAME: setting }, { NAME: input }).NAME, value);
  },
  title: (_, setting: Setting<unknown>, input: string) => `accepts ${JSON.stringify(input)} as ${setting.allowed}`,
});
const bad = test.macro({
  exec(t, setting: Setting<unknown>, input: string) {
    const error = t.throws(() => readSettings({ NAME: setting }, { NAME: input }), { instanceOf: UsageError });
    t.true(error.message.startsWith(`NAME is ${JSON.stringify(input)}: it must be `));
    t.true(error.message.includes(setting.allowed));
  },
  title: (_, setting: Setting<unknown>, input: string) => `rejects ${JSON.stringify(input)} as ${setting.allowed}`,
});

const size = bytes('', { default: '1MiB', min: '1KiB', max: '1GiB' });
test(good, size, '64KiB', 65_536);
test(good, size, '1.5 MB', 1_500_000);
for (const input of ['64', '64kib', '-1MiB', '0B', '2GiB', 'MiB', '1e3kB', '1MiB 2']) test(bad, size, input);

const time = duration('', { default: '250ms', min: '1ms', max: '400d' });
test(good, time, '250ms', 250);
test(good, time, '7d', 604_800_000);
for (const input of ['7', '7 days', '0ms', '401d', 'd']) test(bad, time, input);

test('gives an example of a duration or a size within the allowed range', (t) => {
  t.is(
    duration('', { default: '7d', min: '1h', max: '3650d' }).allowed,
    'a duration from 1h to 3650d, such as 7d (ms, s, m, h, d)',
  );
  t.regex(size.allowed, /^a size from 1KiB to 1GiB, such as 1MiB \(/);
});

const listen = address('', { default: '127.0.0.1:3000' });
test(good, listen, '127.0.0.1:3000', { host: '127.0.0.1', port: 3000 });
test(good, listen, '[::1]:0', { host: '::1', port: 0 });
test(good, listen, ':3000', { host: '', port: 3000 });
for (const input of ['3000', 'host', '::1:3000', '127.0.0.1:65536', '127.0.0.1:', 'http://a:1', '[zz]:1', 'a b:1'])
  test(bad, listen, input);

const number = count('', { default: '1', min: 1, max: 10 });
test(good, number, '10', 10);
for (const input of ['0', '11', '1.5', '-1', '0x1', 'one', '9'.repeat(30)]) test(bad, number, input);

for (const [input, part] of [
  ['0', 0],
  ['1', 1],
  ['0.01', 0.01],
  ['1.0', 1],
] as const)
  test(good, ratio('', { default: '1' }), input, part);
for (const input of ['1.1', '-0.1', '10%', '1e-3', '.5', '0,5', '1/100', 'all'])
  test(bad, ratio('', { default: '1' }), input);

test(good, flag(''), 'true', true);
test(bad, flag(''), 'yes');
test(bad, choice('', ['a', 'b'], { default: 'a' }), 'c');
test(good, url(''), 'http://127.0.0.1:8086/', 'http://127.0.0.1:8086');
test(bad, url(''), 'ftp://a');
test(bad, url(''), '127.0.0.1:8086');
test(good, list('', { default: ':1', allowed: 'addresses', parse: parseAddress }), ':1, a:2', [
  { host: '', port: 1 },
  { host: 'a', port: 2 },
]);

test('treats an empty setting as not set', (t) => {
  t.deepEqual(readSettings({ A: text('', { default: 'x' }), B: text('') }, { A: ' ', B: '' }), {
    A: 'x',
    B: undefined,
  });
});

test('warns of a misspelt setting in the environment, and suggests the right one', (t) => {
  const known = ['COLLECTOR_LISTEN', 'STORE'];
  t.deepEqual(checkNames(known, { COLLECTOR_LISTN: 'x' }, []), [
    'COLLECTOR_LISTN in the environment is not a setting and is ignored; did you mean COLLECTOR_LISTEN?',
  ]);
  t.regex(checkNames(known, { COLECTOR_LISTEN: 'x' }, []).join(), /did you mean COLLECTOR_LISTEN\?/);
});

test('ignores the variables of other programs', (t) => {
  const known = ['COLLECTOR_LISTEN', 'WEB_LISTEN', 'INFLUXDB_BUCKET', 'CLIENT_IP', 'STORE'];
  const others = {
    WEB_CONCURRENCY: '2',
    INFLUXDB_VERSION: '2.7',
    CLIENT_SECRET: 'x',
    STOREFRONT: 'x',
    STORES: 'x',
    PATH: 'x',
    COLLECTOR_PORT: 'tcp://10.0.0.1:9',
    COLLECTOR_SERVICE_HOST: 'x',
  };
  t.deepEqual(checkNames(known, { ...others, COLLECTOR_LISTEN: 'x' }, []), []);
});

test('merges a settings file below the environment, and rejects an unknown name in it', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'settings-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  const file = join(folder, 'env');
  writeFileSync(file, '# a comment\nSTORE=influxdb\nCLIENT_IP="full"\nSTOR=1\n');
  const environment = withEnvFiles({ STORE: 'duckdb:x' }, [file]);
  t.is(environment['STORE'], 'duckdb:x');
  t.is(environment['CLIENT_IP'], 'full');
  t.throws(() => checkNames(['STORE', 'CLIENT_IP'], {}, [file]), {
    message: /STOR is not a setting; did you mean STORE\?/,
  });
  t.throws(() => withEnvFiles({}, ['/does/not/exist']), { instanceOf: UsageError, message: /\/does\/not\/exist/ });
});

test('does not override a settings file with an empty value', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'settings-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true });
  });
  const [first, second] = [join(folder, 'first'), join(folder, 'second')];
  writeFileSync(first, 'DASHBOARD_PASSWORD=secret\nSTORE=influxdb\n');
  writeFileSync(second, 'DASHBOARD_PASSWORD=\nSTORE=" "\n');
  t.deepEqual(withEnvFiles({ DASHBOARD_PASSWORD: '', STORE: '  ' }, [first]), {
    DASHBOARD_PASSWORD: 'secret',
    STORE: 'influxdb',
  });
  t.deepEqual(withEnvFiles({}, [first, second]), { DASHBOARD_PASSWORD: 'secret', STORE: 'influxdb' });
});

test('recognizes loopback addresses', (t) => {
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost', '::ffff:127.0.0.1']) t.true(isLoopback(host), host);
  for (const host of ['', '0.0.0.0', '::', '192.168.1.1', 'example.com']) t.false(isLoopback(host), host);
});
