/**
 * Every command and every Caddyfile of README.md and docs/*.md, as it stands there, with the real servers: in a folder
 * that looks like a clone, with free ports in place of the fixed ones. What cannot be run here says where it is tried
 * instead.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { InfluxDB } from '@influxdata/influxdb-client';
import test from 'ava';
import { logTo, startCaddy, testWithCaddy } from './caddy.js';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { freePorts } from './ports.js';
import { folderOf, runProgram } from './program.js';
import { readSample } from './sample.js';
import { until } from './until.js';

/**
 * `ends`: with status 0. `collector`, `web`: that part of it answers that it is ready, and SIGTERM ends it. Else why it
 * is not run here.
 */
type Way = 'ends' | 'collector' | 'web' | { readonly elsewhere: string };

const docker: Way = { elsewhere: 'needs Docker: npm run test:compose' };
const registry: Way = { elsewhere: 'needs a registry of images' };
const systemd: Way = {
  elsewhere:
    'changes the machine: package.test.ts installs the package, and the unit was started by hand in a container',
};
const ways: Readonly<Record<string, Way>> = {
  'npm ci && npm run demo': 'web',
  'npm ci && npm test': { elsewhere: 'is .ci/run' },
  'npm start': 'collector',
  'npm start -- --restartable': 'collector',
  'npm start -- --register http://127.0.0.1:2019': 'collector',
  'npm run collector -- --register http://caddy:2019 --register-address tcp/collector:9514': 'collector',
  'npm run setup -- --tokens tokens': { elsewhere: 'needs a fresh InfluxDB: test/setup.test.ts' },
  'INFLUXDB_TOKEN_FILE=operator-token npm run setup -- --tokens tokens': 'ends',
  'INFLUXDB_TOKEN_FILE=tokens/collector/token npm run collector': 'collector',
  'INFLUXDB_TOKEN_FILE=tokens/web/token npm run web': 'web',
  'COLLECTOR_ID=shop COLLECTOR_LISTEN=tcp://127.0.0.1:9514 COLLECTOR_HTTP=127.0.0.1:9515 SPOOL_DIR=data/spool-shop npm run collector':
    'collector',
  'COLLECTOR_ID=blog COLLECTOR_LISTEN=tcp://127.0.0.1:9516 COLLECTOR_HTTP=127.0.0.1:9517 SPOOL_DIR=data/spool-blog npm run collector':
    'collector',
  'cp data/requests.duckdb* BACKUP/': 'ends',
  'STORE=duckdb:BACKUP/requests.duckdb npm start -- --read-only': 'web',
  'npm run import -- --list': 'ends',
  'npm run import -- --undo 2026-11-29T10:42:07.123Z': { elsewhere: 'needs the id of an import: test/import.test.ts' },
  'npm run check -- /etc/caddy/Caddyfile': 'ends',
  'npm run check -- caddy.json': 'ends',
  'npm run check -- http://127.0.0.1:2019': 'ends',
  'npm run import -- /var/log/caddy/access*.log /var/log/caddy/access*.log.gz': 'ends',
  'journalctl -u caddy -o cat --since yesterday | npm run import -- -': 'ends',
  'journalctl -u caddy -o cat --since "2 hours ago" | npm run import -- -': 'ends',
  'docker logs caddy 2>&1 | npm run import -- -': 'ends',
  'npm run import -- data/spool/dead-letters/2026-11-24.lp': {
    elsewhere: 'needs what InfluxDB refused: test/import.test.ts',
  },
  'ssh -N -o ServerAliveInterval=15 -o ExitOnForwardFailure=yes -L 127.0.0.1:9514:127.0.0.1:9514 log@collector.example':
    { elsewhere: 'needs another machine' },
  'docker compose up --build --detach': docker,
  'docker compose --file docker-compose.embedded.yml up --build --detach': docker,
  'docker compose logs --no-log-prefix caddy | docker compose run --rm -T --no-deps web import -': docker,
  'docker compose --file docker-compose.embedded.yml logs --no-log-prefix caddy | docker compose --file docker-compose.embedded.yml exec -T sink bin/caddy-log-sink.js import -':
    docker,
  'pin() { echo "$1=$2@$(docker buildx imagetools inspect "$2" --format \'{{.Manifest.Digest}}\')"; }': registry,
  '{ pin NODE_IMAGE node:24-bookworm-slim; pin INFLUXDB_IMAGE influxdb:2.7; pin CADDY_IMAGE caddy:2.11; } >> .env':
    registry,
  'docker buildx build --platform linux/amd64,linux/arm64 --file Dockerfile.collector --tag registry.example/caddy-log-sink-collector --push .':
    registry,
  'rm -f caddy-log-sink-*.tgz && npm ci && npm pack': systemd,
  'npm install --global ./caddy-log-sink-*.tgz': systemd,
  'useradd --system caddy-log-sink': systemd,
  'cd "$(npm root --global)/caddy-log-sink/config"': systemd,
  'cp caddy-log-sink.service /etc/systemd/system/': systemd,
  'install -m 640 -g caddy-log-sink caddy-log-sink.env.example /etc/caddy-log-sink.env': systemd,
  'systemctl daemon-reload': systemd,
  'systemctl enable --now caddy-log-sink': systemd,
};

/** Commands that are for InfluxDB without saying so in their block. */
const overInfluxdb = /--register-address|COLLECTOR_ID=/;
const pages = [
  'README.md',
  ...readdirSync('docs')
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
].map((path) => ({ path, text: readFileSync(path, 'utf8') }));
const commands = pages.flatMap(({ path, text }) => shellLines(text).map((command) => ({ path, command })));
const caddyfiles = pages.flatMap(({ path, text }) =>
  [...text.matchAll(/^```caddyfile\n(.*?)^```/gms)].map(([, block]) => ({ path, block: block! })),
);
const influxd = influxdOfThisFile();

test('Each command of the documentation is run here, or says where else; none is listed that is not there.', (t) => {
  const written = commands.map(({ command }) => command).filter((command) => !command.startsWith('export '));
  t.deepEqual([...new Set(written)].toSorted(), Object.keys(ways).toSorted());
});

testWithCaddy('Each Caddyfile of the documentation is one that Caddy loads.', async (t) => {
  const folder = await folderOf(t);
  t.true(caddyfiles.length > 3, `${caddyfiles.length} of them`);
  for (const { path, block } of caddyfiles) {
    const site = /^ *log/.test(block) ? `shop.example {\n${block}\n}\n` : block;
    await writeFile(join(folder, 'Caddyfile'), site.replaceAll('/var/log/caddy', folder));
    await t.notThrowsAsync(
      promisify(execFile)('caddy', ['validate', '--config', 'Caddyfile'], { cwd: folder, env: environmentOf(folder) }),
      path,
    );
  }
});

testWithInfluxd('Each query in Flux of the documentation counts what is in the bucket.', async (t) => {
  t.timeout(60_000);
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const lines = readSample().lines.slice(-500);
  const settings = {
    STORE: 'influxdb',
    INFLUXDB_URL: url,
    INFLUXDB_ORG: org,
    INFLUXDB_BUCKET: bucket,
    INFLUXDB_TOKEN: token,
  };
  const imported = await runProgram(['import', '-'], settings, { stdin: Buffer.from(`${lines.join('\n')}\n`) });
  t.is(await imported.ended, 0, imported.stderr());
  const wanted: Record<string, number> = {};
  for (const line of lines) {
    const status = /"status":(\d+)/.exec(line)![1]!;
    wanted[status] = (wanted[status] ?? 0) + 1;
  }
  const queries = pages.flatMap(({ text }) => [...text.matchAll(/^```flux\n(.*?)^```/gms)].map(([, query]) => query!));
  t.is(queries.length, 1, 'each has a check');
  const rows = await new InfluxDB({ url, token })
    .getQueryApi(org)
    .collectRows<{ source: string; status_code: string; _value: number }>(
      queries[0]!.replace('"requests"', JSON.stringify(bucket)),
    );
  t.deepEqual(Object.fromEntries(rows.map(({ status_code, _value }) => [status_code, _value])), wanted);
  t.deepEqual([...new Set(rows.map(({ source }) => source))], ['caddy']);
});

testWithInfluxd('Each command of the documentation does what it is for.', async (t) => {
  t.timeout(240_000);
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const [site, line, http, web, otherLine, otherHttp] = (await freePorts(6)) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ];
  const folder = await folderOf(t);
  for (const name of ['package.json', 'bin', 'dist', 'views', 'config', 'node_modules'])
    await symlink(resolve(name), join(folder, name));
  await Promise.all(['BACKUP', 'log'].map((name) => mkdir(join(folder, name))));
  const log = Buffer.from(`${readSample().lines.slice(0, 200).join('\n')}\n`);
  const caddyfile = `http://127.0.0.1:${site} {\n  ${logTo(`tcp/127.0.0.1:${line}`)}\n}\n`;
  await Promise.all([
    writeFile(join(folder, 'log/access.log'), log),
    writeFile(join(folder, 'log/access-1.log.gz'), gzipSync(log)),
    writeFile(join(folder, 'operator-token'), token),
    writeFile(join(folder, 'Caddyfile'), caddyfile),
  ]);
  const { stdout: adapted } = await promisify(execFile)('caddy', ['adapt', '--config', 'Caddyfile'], {
    cwd: folder,
    env: environmentOf(folder),
  });
  await writeFile(join(folder, 'caddy.json'), adapted);
  const caddy = await startCaddy(caddyfile);
  t.teardown(caddy.stop);

  const here: Readonly<Record<string, string>> = {
    'npm ci && ': '',
    'http://127.0.0.1:8086': url,
    'INFLUXDB_ORG=home': `INFLUXDB_ORG=${org}`,
    'INFLUXDB_BUCKET=requests': `INFLUXDB_BUCKET=${bucket}`,
    'http://127.0.0.1:2019': caddy.adminUrl,
    'http://caddy:2019': caddy.adminUrl,
    'tcp/collector:9514': `tcp/127.0.0.1:${line}`,
    ':9514': `:${line}`,
    ':9515': `:${http}`,
    ':9516': `:${otherLine}`,
    ':9517': `:${otherHttp}`,
    '/etc/caddy/': '',
    '/var/log/caddy/': 'log/',
    'docker logs caddy 2>&1': 'cat log/access.log',
    'journalctl -u caddy -o cat --since yesterday': 'cat log/access.log',
    'journalctl -u caddy -o cat --since "2 hours ago"': 'cat log/access.log',
  };
  const settings = {
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${line}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
  };
  const influxdb = {
    STORE: 'influxdb',
    INFLUXDB_URL: url,
    INFLUXDB_ORG: org,
    INFLUXDB_BUCKET: bucket,
    INFLUXDB_TOKEN: token,
  };
  const exported = new Map<string, string[]>();
  for (const { path, command } of commands) {
    const text = Object.entries(here).reduce((line, [from, to]) => line.replaceAll(from, to), command);
    const before = exported.get(path) ?? [];
    exported.set(path, before);
    if (command.startsWith('export ')) before.push(text);
    const way = ways[command];
    if (typeof way !== 'string') continue;
    const environment = {
      ...environmentOf(folder),
      ...(way === 'ends' && command.includes('check') ? {} : settings),
      ...(overInfluxdb.test(command) && influxdb),
    };
    const lines = command.includes('INFLUXDB_TOKEN_FILE') ? [...before, text] : [text];
    const program = spawn('sh', ['-e', '-c', lines.join('\n')], {
      cwd: folder,
      env: environment,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const stop = (signal: NodeJS.Signals): void => {
      try {
        process.kill(-program.pid!, signal);
      } catch {
        /* it has ended */
      }
    };
    t.teardown(() => {
      stop('SIGKILL');
    });
    let said = '';
    for (const stream of [program.stdout, program.stderr])
      stream.on('data', (bytes: Buffer) => {
        said += bytes.toString();
      });
    const closed = once(program, 'close') as Promise<[number | null, NodeJS.Signals | null]>;
    t.log(`${path}: ${command}`);
    let over = false;
    void closed.then(() => {
      over = true;
    });
    if (way !== 'ends') {
      const port = way === 'web' ? web : text.includes(`:${otherHttp}`) ? otherHttp : http;
      await until(
        `${path}: ${command} is ready`,
        async () => {
          if (over) throw new Error(`${path}: ${text} ended, and wrote:\n${said}`);
          return await fetch(`http://127.0.0.1:${port}/ready`).then(
            ({ ok }) => ok,
            () => false,
          );
        },
        { waitMsMax: 90_000 },
      ).catch((error: unknown) => {
        throw new Error(`It wrote:\n${said}`, { cause: error });
      });
      stop('SIGTERM');
    }
    const [status, signal] = await closed;
    if (way === 'ends') t.is(status, 0, `${path}: ${text}\n${said}`);
    else
      t.true(
        status === 0 || status === 143 || signal === 'SIGTERM',
        `${path}: ${text} ended with ${signal ?? status}\n${said}`,
      ); // sh and npm end by the signal
  }
});

/** The lines of the blocks of shell: fenced as `sh`, or indented by four spaces. Without comments. */
function shellLines(markdown: string): string[] {
  const indented = markdown.replaceAll(/^```.*?^```/gms, (block) =>
    block.startsWith('```sh\n')
      ? block
          .split('\n')
          .slice(1, -1)
          .map((line) => `    ${line}`)
          .join('\n')
      : '',
  );
  return [...indented.matchAll(/^ {4}(\S.*)$/gm)].map(([, line]) => line!.replace(/ {2,}# .*$/, '').trim());
}

function environmentOf(folder: string): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
}
