/** The package as `npm pack` makes it, installed into an empty folder: the program, and the app of docs/koa-middleware.md. */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { openStore } from '../shared/store/open.js';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from './influxd.js';
import { freePorts } from './ports.js';
import { temporaryFolder } from './program.js';
import { until } from './until.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const influxd = influxdOfThisFile();
let folder: string;

test.before(async (t) => {
  t.timeout(300_000);
  folder = await temporaryFolder();
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: root });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', join(folder, filename), '@types/koa@2', '@types/node@20'], { cwd: folder });
});

test('npx caddy-log-sink start serves the page from an empty folder.', async (t) => {
  t.timeout(60_000);
  const [tcp, http, web] = await freePorts(3) as [number, number, number];
  const env = { PATH: process.env['PATH'], HOME: folder, COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`, COLLECTOR_HTTP: `127.0.0.1:${http}`, WEB_LISTEN: `127.0.0.1:${web}` };
  const { stdout } = await run('npx', ['--no-install', 'caddy-log-sink', '--version'], { cwd: folder, env });
  t.is(stdout.trim(), (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version);
  const program = spawn(join(folder, 'node_modules/.bin/caddy-log-sink'), ['start'], { cwd: folder, env, stdio: 'ignore' });
  t.teardown(() => { program.kill('SIGKILL'); });
  const page = await until('the page is served', () => fetch(`http://127.0.0.1:${web}/`).catch(() => false as const));
  t.is(page.status, 200);
  t.regex(await page.text(), new RegExp(`tcp/127.0.0.1:${tcp}`));
  const ended = once(program, 'exit');
  program.kill('SIGTERM');
  t.deepEqual(await ended, [0, null]);
});

test('Nothing of the tests, and no file of this machine, is in the package.', async (t) => {
  const { stdout } = await run('npm', ['pack', '--json', '--dry-run', '--ignore-scripts'], { cwd: root });
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  t.deepEqual(paths.filter((path) => /\.test\.|fixtures|dist\/test|node_modules|\.env$|^data/.test(path)), []);
  for (const needed of ['dist/main.js', 'dist/public/main.css', 'views/dashboard.pug', 'dist/web/request-metrics.d.ts', 'LICENSE', 'README.md', 'CHANGELOG.md']) t.true(paths.includes(needed), needed);
});

testWithInfluxd('The app of docs/koa-middleware.md has types, and its requests are in InfluxDB.', async (t) => {
  t.timeout(120_000);
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const [port] = await freePorts(1) as [number];
  const document = await readFile(join(root, 'docs/koa-middleware.md'), 'utf8');
  const example = /```js\n(.*?)```/s.exec(document)![1]!
    .replace('http://127.0.0.1:8086', url).replace('my-org', org).replace("'requests'", `'${bucket}'`)
    .replace('// … your own middleware and routes …', "app.use((ctx) => { ctx.body = 'hello'; });").replace('8080', String(port));
  await writeFile(join(folder, 'app.ts'), example.replace('process.env.INFLUXDB_TOKEN', 'process.env.INFLUXDB_TOKEN!'));
  await run(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '--noEmit', '--strict', '--target', 'es2023', '--module', 'nodenext', '--skipLibCheck', '--types', 'node', 'app.ts'], { cwd: folder });
  await writeFile(join(folder, 'app.js'), example);
  const app = spawn(process.execPath, ['app.js'], { cwd: folder, env: { PATH: process.env['PATH'], INFLUXDB_TOKEN: token }, stdio: ['ignore', 'ignore', 'inherit'] });
  t.teardown(() => { app.kill('SIGKILL'); });
  await until('the app answers', () => fetch(`http://127.0.0.1:${port}/some/page`, { headers: { connection: 'close' } }).then(({ ok }) => ok, () => false));
  app.kill('SIGTERM');
  await once(app, 'exit');
  const store = await openStore({ kind: 'influxdb', url, org, bucket, token, ...spoolOfTest() }, { log: quietLog });
  const requests = await store.readRequests({ fromMs: Date.now() - 600_000, toMs: Date.now() + 1000, filter: { source: 'shop' }, limit: 10 });
  await store.close();
  t.deepEqual(requests.map(({ uri, status }) => [uri, status]), [['/some/page', 200]]);
});
