/**
 * The package as `npm pack` makes it, installed into an empty folder: the program, and the app of
 * docs/koa-middleware.md.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { openStore } from '../shared/store/open.js';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from './influxd.js';
import { freePorts } from './ports.js';
import { folderOf, temporaryFolder } from './program.js';
import { until } from './until.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const influxd = influxdOfThisFile();
/** How TypeScript finds a package: as Node does, and as bundlers do. */
const resolutions = [
  ['--module', 'nodenext', '--moduleResolution', 'nodenext'],
  ['--module', 'esnext', '--moduleResolution', 'bundler'],
] as const;
let folder: string;

test.before(async (t) => {
  t.timeout(300_000);
  folder = await temporaryFolder();
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
  });
  const [{ filename }] = JSON.parse(stdout) as [{ filename: string }];
  await writeFile(join(folder, 'package.json'), '{ "private": true, "type": "module" }');
  await run(
    'npm',
    [
      'install',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      '--prefer-offline',
      join(folder, filename),
      '@types/koa@2',
      '@types/node@20',
    ],
    { cwd: folder },
  );
});

test('npx caddy-log-sink start serves the page from an empty folder.', async (t) => {
  t.timeout(60_000);
  const [tcp, http, web] = (await freePorts(3)) as [number, number, number];
  const env = {
    PATH: process.env['PATH'],
    HOME: folder,
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
  };
  const { stdout } = await run('npx', ['--no-install', 'caddy-log-sink', '--version'], { cwd: folder, env });
  t.is(stdout.trim(), (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version);
  const program = spawn(join(folder, 'node_modules/.bin/caddy-log-sink'), ['start'], {
    cwd: folder,
    env,
    stdio: 'ignore',
  });
  t.teardown(() => {
    program.kill('SIGKILL');
  });
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
  t.deepEqual(
    paths.filter((path) => /\.test\.|fixtures|dist\/test|node_modules|\.env$|^data/.test(path)),
    [],
  );
  for (const needed of [
    'bin/caddy-log-sink.js',
    'dist/cli/main.js',
    'dist/public/main.css',
    'dist/public/live.js',
    'views/dashboard.pug',
    'dist/web/middleware/request-metrics.d.ts',
    'LICENSE',
    'README.md',
    'CHANGELOG.md',
  ])
    t.true(paths.includes(needed), needed);
  // The pages are where the messages, the unit and the settings file send people.
  const linked = (
    await Promise.all(
      paths
        .filter((path) => path.endsWith('.md'))
        .map(async (path) =>
          [...(await readFile(join(root, path), 'utf8')).matchAll(/\]\(([^)#\s]+\.(?:md|json))/g)]
            .map(([, target]) => target!)
            .filter((target) => !target.includes(':'))
            .map((target) => join(dirname(path), target)),
        ),
    )
  ).flat();
  t.true(linked.length > 50, `${linked.length} links`);
  t.deepEqual(
    [...new Set(linked)].filter((path) => !paths.includes(path)),
    [],
  );
});

for (const [what, engines, reason] of [
  [
    'a build',
    '>=20.19',
    /^The program is not built: \/.*\/dist\/cli\/main\.js is missing\. Run `npm ci`, which builds it, or `npm run build`\.\n$/,
  ],
  [
    'a recent Node',
    '>=999.1',
    new RegExp(
      `^This is Node ${process.versions.node.replaceAll('.', '\\.')}; caddy-log-sink needs 999\\.1 or later\\. .*nodejs\\.org.*\\n$`,
    ),
  ],
] as const) {
  test(`Without ${what}, the program says what is missing, and nothing else.`, async (t) => {
    const place = await folderOf(t);
    await cp(join(root, 'bin'), join(place, 'bin'), { recursive: true });
    await writeFile(join(place, 'package.json'), JSON.stringify({ type: 'module', engines: { node: engines } }));
    const refused = await t.throwsAsync(
      run(process.execPath, [join(place, 'bin/caddy-log-sink.js'), 'start'], { cwd: place }),
    );
    t.like(refused, { code: 1, stdout: '' });
    t.regex((refused as Error & { stderr: string }).stderr, reason);
  });
}

test('A release is refused as long as package.json does not say where the repository is.', async (t) => {
  const place = await folderOf(t);
  const described = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { repository?: unknown };
  delete described.repository;
  await writeFile(join(place, 'package.json'), JSON.stringify(described));
  const refused = await t.throwsAsync(run('npm', ['run', 'prerelease'], { cwd: place }));
  t.regex((refused as Error & { stderr: string }).stderr, /^Cannot release: package\.json has no repository/m);
  await run('npm', ['pkg', 'set', 'repository.url=git+https://example.org/caddy-log-sink.git'], { cwd: place });
  await t.notThrowsAsync(run('npm', ['run', 'prerelease'], { cwd: place }));
});

for (const resolution of resolutions) {
  test.serial(
    `All that is exported, and the app of docs/koa-middleware.md, have types for the strictest of users, with ${resolution.join(' ')}.`,
    async (t) => {
      t.timeout(180_000);
      const { exports } = JSON.parse(
        await readFile(join(folder, 'node_modules/caddy-log-sink/package.json'), 'utf8'),
      ) as { exports: Readonly<Record<string, unknown>> };
      const names = Object.keys(exports)
        .filter((name) => !name.endsWith('.json'))
        .map((name) => name.replace('.', 'caddy-log-sink'));
      t.is(names.length, 3);
      await writeFile(
        join(folder, 'exports.ts'),
        `${names.map((name, index) => `export * as part${index} from '${name}';\n`).join('')}
import { createRecorder, type RecorderOptions } from 'caddy-log-sink/recorder';
// @ts-expect-error: the types know what there is
export const wrong = (options: RecorderOptions) => createRecorder(options).recrod;\n`,
      );
      await writeFile(
        join(folder, 'app.ts'),
        (await exampleApp()).replace('process.env.INFLUXDB_TOKEN', 'process.env.INFLUXDB_TOKEN!'),
      );
      const strictest = [
        '--strict',
        '--exactOptionalPropertyTypes',
        '--noUncheckedIndexedAccess',
        '--verbatimModuleSyntax',
        '--skipLibCheck',
        'false',
      ];
      const compiler = [
        join(root, 'node_modules/typescript/bin/tsc'),
        '--noEmit',
        ...strictest,
        '--target',
        'es2023',
        '--types',
        'node',
        ...resolution,
        'exports.ts',
        'app.ts',
      ];
      const said = await run(process.execPath, compiler, { cwd: folder }).then(
        () => '',
        (error: unknown) => (error as { stdout: string }).stdout,
      );
      t.is(said, '');
    },
  );
}

testWithInfluxd('The requests of the app of docs/koa-middleware.md are in InfluxDB.', async (t) => {
  t.timeout(120_000);
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const [port] = (await freePorts(1)) as [number];
  const example = (await exampleApp())
    .replace('http://127.0.0.1:8086', url)
    .replace('my-org', org)
    .replace("'requests'", `'${bucket}'`)
    .replace('// … your own middleware and routes …', "app.use((ctx) => { ctx.body = 'hello'; });")
    .replace('8080', String(port));
  await writeFile(join(folder, 'app.js'), example);
  const app = spawn(process.execPath, ['app.js'], {
    cwd: folder,
    env: { PATH: process.env['PATH'], INFLUXDB_TOKEN: token },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  t.teardown(() => {
    app.kill('SIGKILL');
  });
  await until('the app answers', () =>
    fetch(`http://127.0.0.1:${port}/some/page`, { headers: { connection: 'close' } }).then(
      ({ ok }) => ok,
      () => false,
    ),
  );
  app.kill('SIGTERM');
  await once(app, 'exit');
  const store = await openStore({ kind: 'influxdb', url, org, bucket, token, ...spoolOfTest() }, { log: quietLog });
  const requests = await store.readRequests({
    fromMs: Date.now() - 600_000,
    toMs: Date.now() + 1000,
    filter: { source: 'shop' },
    limit: 10,
  });
  await store.close();
  t.deepEqual(
    requests.map(({ uri, status }) => [uri, status]),
    [['/some/page', 200]],
  );
});

async function exampleApp(): Promise<string> {
  return /```js\n(.*?)```/s.exec(await readFile(join(root, 'docs/koa-middleware.md'), 'utf8'))![1]!;
}
