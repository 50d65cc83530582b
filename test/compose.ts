/**
 * `npm run test:compose`: the two Compose files from nothing, on this machine's Docker, in projects, on ports and in
 * volumes of their own. `DOCKER` names the command when it is not `docker`. Needs a few minutes; ends with status 1 at
 * the first thing that is not as it should be.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts } from './ports.js';
import { until } from './until.js';

const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
const [docker, ...dockerArgs] = (process.env['DOCKER'] ?? 'docker').split(' ') as [string, ...string[]];
const agent = new Agent({ keepAlive: true, maxSockets: 20 });
const waits = { waitMsMax: 120_000, pollMs: 250 };

/** What `docker compose up` makes of files, beside others of its kind. */
interface Project {
  readonly name: string;
  readonly files: readonly string[];
  readonly http: number;
  readonly tcp: number;
  readonly password?: string;
}
interface Outcome {
  readonly status: number;
  readonly output: string;
}
interface SourceCounts {
  readonly requests: number;
  readonly statuses: Readonly<Record<string, number>>;
}
/** What is asked of the engine. */
interface Container {
  readonly State: { readonly ExitCode: number };
  readonly HostConfig: {
    readonly Memory: number;
    readonly NanoCpus: number;
    readonly CpuQuota: number;
    readonly PidsLimit: number;
    readonly ReadonlyRootfs: boolean;
    readonly Privileged: boolean;
    readonly RestartPolicy: { readonly Name: string };
    readonly PortBindings: Readonly<Record<string, readonly { readonly HostIp: string }[] | null>> | null;
  };
}
type Counts = Readonly<Record<'caddy' | 'app', number>>;
/** What came of requests: how many were tried, answered, and answered with 200. */
interface Answers {
  tried: number;
  answered: number;
  ok: number;
}

const overInfluxdb = await newProject('influxdb', 'docker-compose.yml');
const embedded = await newProject('embedded', 'docker-compose.embedded.yml');
const withFullVolume = await newProject('full', 'docker-compose.yml', await spoolVolumeFile('full.yml', 1000));
const withForeignVolume = await newProject('foreign', 'docker-compose.yml', await spoolVolumeFile('foreign.yml', 0));
/** That of the step that is under way. */
let project = overInfluxdb;

const steps: readonly (readonly [string, () => Promise<void>])[] = [
  [
    'It comes up from nothing, and the page is there.',
    async () => {
      await compose('up', '--build', '--detach');
      await untilServed();
      const page = await get('/');
      assert.equal(page.status, 200);
      assert.match(page.body, /Caddy Log Sink/);
    },
  ],

  [
    'Requests through Caddy are counted exactly, at the edge and in the app.',
    async () => {
      const sent = await send('first.example', 1000);
      assert.deepEqual(sent, { tried: 1000, answered: 1000, ok: 1000 });
      await untilCounted('first.example', { caddy: 1000, app: 1000 });
    },
  ],

  [
    'No container is root, has a capability that it does not need, or writes outside its volumes.',
    async () => {
      for (const service of ['influxdb', 'collector', 'web', 'caddy']) {
        const { output } = await compose(
          'exec',
          '-T',
          service,
          'sh',
          '-c',
          'id -u; grep CapEff /proc/1/status; grep NoNewPrivs /proc/1/status; touch /written 2>/dev/null || echo read-only',
        );
        assert.match(
          output,
          new RegExp(
            `^1000\\s+CapEff:\\s+${service === 'caddy' ? '0000000000000400' : '0{16}'}\\s+NoNewPrivs:\\s+1\\s+read-only`,
          ),
          service,
        );
      }
      const { output } = await compose('exec', '-T', 'collector', 'sh', '-c', 'ls /tokens/*');
      assert.match(output, /\/tokens\/collector:\s+token/);
      assert.equal(output.match(/^token$/gm)?.length, 1, 'the collector sees no token but its own');
    },
  ],

  [
    "Each service's log is turned over, and never more than 30 MB.",
    async () => {
      for (project of [overInfluxdb, embedded]) {
        const { services } = JSON.parse((await compose('config', '--format', 'json')).output) as {
          services: Readonly<Record<string, { logging: unknown }>>;
        };
        for (const [name, { logging }] of Object.entries(services))
          assert.deepEqual(logging, { driver: 'json-file', options: { 'max-file': '3', 'max-size': '10m' } }, name);
      }
      project = overInfluxdb;
    },
  ],

  [
    'Each container has limits and is started again; only the ports of Caddy and the collector are published, on loopback.',
    async () => {
      for (const service of ['influxdb', 'collector', 'web', 'caddy']) {
        const { HostConfig: host } = await inspect(service);
        assert.deepEqual(
          {
            restart: host.RestartPolicy.Name,
            pids: host.PidsLimit,
            readOnly: host.ReadonlyRootfs,
            privileged: host.Privileged,
          },
          { restart: 'unless-stopped', pids: 200, readOnly: true, privileged: false },
          service,
        );
        assert.ok(
          host.Memory > 0 && (host.NanoCpus > 0 || host.CpuQuota > 0),
          `${service} has limits of memory and CPU`,
        );
        const bindings = Object.entries(host.PortBindings ?? {})
          .flatMap(([port, addresses]) => (addresses ?? []).map(({ HostIp }) => `${port} ${HostIp}`))
          .toSorted();
        assert.deepEqual(
          bindings,
          { collector: ['9514/tcp 127.0.0.1', '9514/udp 127.0.0.1'], caddy: ['80/tcp 127.0.0.1'] }[service] ?? [],
          service,
        );
      }
    },
  ],

  [
    "A kill (-9) of InfluxDB's container under load loses nothing.",
    async () => {
      const load = startLoad('killed.example');
      await load.until(200);
      await compose('kill', '--signal', 'SIGKILL', 'influxdb');
      await load.until(1000);
      await compose('start', 'influxdb');
      await load.until(1500);
      await load.endCounted();
    },
  ],

  ['A restart of InfluxDB under load loses nothing.', () => restartUnderLoad('influxdb')],
  ['A restart of the web app under load loses nothing.', () => restartUnderLoad('web')],
  ['A restart of Caddy under load loses nothing.', () => restartUnderLoad('caddy')],

  [
    'A restart of the collector loses nothing of what it took, also while InfluxDB is down.',
    async () => {
      await compose('stop', 'influxdb');
      const { ok } = await send('spooled.example', 500);
      assert.equal(ok, 500);
      await until(
        'the collector has them all',
        async () => (await ledger())['received']! > 0 && (await ledger())['in_memory'] === 0,
        waits,
      );
      await restart('collector');
      await compose('start', 'influxdb');
      await untilCounted('spooled.example', { caddy: 500, app: 500 });
    },
  ],

  [
    "A restart of the collector under load loses one line at most: what Caddy could not send is in Caddy's own log.",
    async () => {
      const load = startLoad('collector.example');
      await load.until(200);
      await restart('collector');
      // Caddy dials again ten seconds after it has lost a connection.
      const before = (await counts('collector.example')).caddy;
      await until(
        'Caddy logs to the new collector',
        async () => (await counts('collector.example')).caddy > before + 200,
        waits,
      );
      await load.end();
      const { answered } = load.answers;
      await untilCountedButOne('collector.example', {
        caddy: answered - (await unsent('collector.example')),
        app: answered,
      });
    },
  ],

  [
    'The collector, the web app and Caddy end by themselves when they are stopped, and down and up again keep what was counted.',
    async () => {
      await compose('stop', '--timeout', '30');
      for (const service of ['collector', 'web', 'caddy'])
        assert.equal((await inspect(service)).State.ExitCode, 0, service);
      await compose('down');
      await compose('up', '--detach');
      await untilServed();
      await untilCounted('first.example', { caddy: 1000, app: 1000 });
      const { output } = await compose('logs', '--no-log-prefix', 'setup');
      assert.match(output, /Nothing was changed\./);
    },
  ],

  [
    'The commands of docs/compose.md for every day do what they are for: the password, new tokens, save and put back.',
    async () => {
      const password = await documented('docker compose run --rm --entrypoint cat setup /tokens/operator/password');
      assert.match(password, /^\S{20,}\s*$/m);

      const tokens = async (): Promise<string> =>
        (
          await compose(
            'run',
            '--rm',
            '--no-deps',
            '-T',
            '--entrypoint',
            'cat',
            'setup',
            '/tokens/collector/token',
            '/tokens/web/token',
          )
        ).output;
      const before = await tokens();
      await documented('docker compose run --rm setup setup --tokens /tokens --new-tokens');
      await documented('docker compose restart collector web');
      await untilServed();
      assert.notEqual(await tokens(), before);
      const sent = await send('tokens.example', 100);
      const toTokens = { caddy: 100 - (await unsent('tokens.example')), app: sent.ok };
      await untilCounted('tokens.example', toTokens);

      await documented('docker compose stop');
      await documented(
        'docker run --rm --user 0 --entrypoint tar --volume caddy-log-sink_influxdb:/from:ro --volume "$PWD:/to" caddy-log-sink-collector -czf /to/influxdb.tar.gz -C /from .',
      );
      await documented('docker compose down');
      await documented('docker volume rm caddy-log-sink_influxdb');
      await documented(
        'docker run --rm --user 0 --entrypoint tar --volume "$PWD:/from:ro" --volume caddy-log-sink_influxdb:/to caddy-log-sink-collector -xzf /from/influxdb.tar.gz -C /to',
      );
      await documented('docker compose up --detach');
      await untilServed();
      await untilCounted('first.example', { caddy: 1000, app: 1000 });
      await untilCounted('tokens.example', toTokens);
    },
  ],

  [
    'A wrong token gives a message that says what to do, holds everything, and is mended by setup.',
    async () => {
      const refused = await run('run', '--no-deps', '-T', '--env', 'INFLUXDB_TOKEN=wrong', 'setup', 'setup');
      assert.notEqual(refused.status, 0);
      assert.match(refused.output, /401\. INFLUXDB_TOKEN has to be a token that may do everything/);
      await compose(
        'run',
        '--rm',
        '--no-deps',
        '-T',
        '--entrypoint',
        'sh',
        'setup',
        '-c',
        'echo not-a-token > /tokens/collector/token',
      );
      await restart('collector');
      let held = 0;
      await until(
        'the collector says so, and holds requests',
        async () => {
          held += (await send('held.example', 10)).ok;
          return (
            /401 .*INFLUXDB_TOKEN is missing, wrong or no longer valid/.test(
              (await compose('logs', 'collector')).output,
            ) && (await ledger())['spooled']! > 0
          );
        },
        waits,
      );
      // Before the containers are made anew, with logs of their own.
      const caddy = held - (await unsent('held.example'));
      await compose('up', '--detach');
      await restart('collector');
      await until('the collector is ready', async () => (await collectorPage('/ready')).includes('"ok"'), waits);
      await untilCounted('held.example', { caddy, app: held });
    },
  ],

  [
    'A taken port is named, also when a second project takes it; what is up stays up.',
    async () => {
      const holder = createServer().listen(0, '127.0.0.1');
      await once(holder, 'listening');
      const { port } = holder.address() as { port: number };
      for (const taken of [port, overInfluxdb.http]) {
        project = { ...embedded, http: taken };
        const refused = await run('up', '--build', '--detach');
        assert.notEqual(refused.status, 0);
        assert.match(
          refused.output,
          new RegExp(
            `127\\.0\\.0\\.1:${taken}\\b.*(already allocated|already in use)|(already allocated|already in use).*\\b${taken}\\b`,
          ),
        );
      }
      holder.close();
      project = overInfluxdb;
      await untilServed();
    },
  ],

  [
    'A password, when one is set, is asked for.',
    async () => {
      project = { ...overInfluxdb, password: 'correct horse' };
      await compose('up', '--detach', '--no-deps', 'web');
      await until(
        'the page asks for the password',
        async () => (await get('/').catch(() => undefined))?.status === 401,
        waits,
      );
      await compose('down', '--volumes', '--timeout', '5');
    },
  ],

  [
    'A full spool volume gives a message that says what to do; with room made and InfluxDB back, all is delivered.',
    async () => {
      project = withFullVolume;
      await compose('up', '--detach', 'collector');
      await until('the collector is ready', async () => (await collectorPage('/ready')).includes('"ok"'), waits);
      await compose('stop', 'influxdb');
      const filled = await run('exec', '-T', 'collector', 'sh', '-c', 'cat /dev/zero > /data/spool/other');
      assert.match(filled.output, /No space left on device/);
      let sent = 0;
      await until(
        'the collector says that its volume is full',
        async () => {
          await sendLines(Array.from({ length: 100 }, () => logLine()));
          sent += 100;
          return /Cannot write to the spool: ENOSPC.*Make room on its disk/.test(
            (await compose('logs', 'collector')).output,
          );
        },
        waits,
      );
      await compose('exec', '-T', 'collector', 'rm', '/data/spool/other');
      await until('all is spooled', async () => (await ledger())['spooled'] === sent, waits);
      await compose('start', 'influxdb');
      await until('all is stored', async () => (await ledger())['stored'] === sent, waits);
      const { received, accepted, spooled, in_memory } = await ledger();
      assert.deepEqual(
        { received, accepted, spooled, in_memory },
        { received: sent, accepted: sent, spooled: 0, in_memory: 0 },
      );
      await compose('down', '--volumes', '--timeout', '5');
    },
  ],

  [
    'A spool volume of another user gives a message that says what to do.',
    async () => {
      project = withForeignVolume;
      await compose('up', '--detach', 'collector');
      await until(
        'the collector says so',
        async () =>
          /Cannot open the spool in \/data\/spool\/collector: EACCES.*Set SPOOL_DIR to a folder that this user can write/.test(
            (await compose('logs', 'collector')).output,
          ),
        waits,
      );
      await compose('down', '--volumes', '--timeout', '5');
    },
  ],

  [
    'The embedded store: one container beside Caddy, counted exactly.',
    async () => {
      project = embedded;
      await compose('up', '--build', '--detach');
      await untilServed();
      assert.deepEqual(await send('first.example', 1000), { tried: 1000, answered: 1000, ok: 1000 });
      await untilCounted('first.example', { caddy: 1000, app: 1000 });
      const { output } = await compose(
        'exec',
        '-T',
        'sink',
        'sh',
        '-c',
        'id -u; grep CapEff /proc/1/status; touch /written 2>/dev/null || echo read-only',
      );
      assert.match(output, /^1000\s+CapEff:\s+0{16}\s+read-only/);
    },
  ],

  [
    'The embedded store: a restart under load loses one line at most, and down and up nothing; what was counted survives kill -9.',
    async () => {
      const load = startLoad('sink.example');
      await load.until(200);
      await restart('sink');
      const before = (await counts('sink.example')).caddy;
      await until('Caddy logs again', async () => (await counts('sink.example')).caddy > before + 200, waits);
      await load.end();
      const { answered, ok } = load.answers;
      const wanted = await untilCountedButOne('sink.example', {
        caddy: answered - (await unsent('sink.example')),
        app: ok,
      });
      await compose('kill', '--signal', 'SIGKILL', 'sink');
      await compose('up', '--detach');
      await untilServed();
      await untilCounted('sink.example', wanted);
      await compose('stop', '--timeout', '30');
      assert.equal((await inspect('sink')).State.ExitCode, 0);
      await compose('down');
      await compose('up', '--detach');
      await untilServed();
      await untilCounted('sink.example', wanted);
      await untilCounted('first.example', { caddy: 1000, app: 1000 });
    },
  ],
];

let status = 0;
try {
  for (const [title, step] of steps) {
    const startMs = performance.now();
    await step();
    process.stdout.write(`ok    ${title} (${((performance.now() - startMs) / 1000).toFixed(0)} s)\n`);
  }
} catch (error) {
  status = 1;
  const logs = await run('logs', '--tail', '30');
  process.stderr.write(`${logs.output}\nfailed ${error instanceof Error ? error.stack : String(error)}\n`);
} finally {
  agent.destroy();
  for (project of [overInfluxdb, embedded, withFullVolume, withForeignVolume])
    await run('down', '--volumes', '--remove-orphans', '--timeout', '5');
  await rm(folder, { recursive: true });
}
process.exitCode = status;

async function newProject(name: string, ...files: string[]): Promise<Project> {
  const [http, tcp] = (await freePorts(2)) as [number, number];
  return { name: `caddy-log-sink-test-${process.pid}-${name}`, files, http, tcp };
}

/**
 * A file that makes the volume of the collector's spool 512 pages (of 4 kB) of a user's memory: Podman takes `size` for
 * a quota.
 */
async function spoolVolumeFile(name: string, uid: number): Promise<string> {
  const file = join(folder, name);
  const options = { type: 'tmpfs', device: 'tmpfs', o: `nr_blocks=512,uid=${uid},gid=${uid},mode=0700` };
  await writeFile(file, JSON.stringify({ volumes: { 'collector-spool': { driver: 'local', driver_opts: options } } }));
  return file;
}

async function restartUnderLoad(service: string): Promise<void> {
  const load = startLoad(`${service}.example`);
  await load.until(200);
  await restart(service);
  await untilServed();
  await load.until(load.answers.ok + 500);
  await load.endCounted();
}

/** Not every engine gives a restart the time that `stop_grace_period` says, unless it is asked for. */
async function restart(service: string): Promise<void> {
  await compose('restart', '--timeout', '30', service);
}

/** Requests for one host, some 200 a second, until they are ended. */
function startLoad(host: string): {
  readonly answers: Answers;
  until(ok: number): Promise<void>;
  end(): Promise<void>;
  endCounted(): Promise<void>;
} {
  const answers: Answers = { tried: 0, answered: 0, ok: 0 };
  const underWay = new Set<Promise<void>>();
  const timer = setInterval(() => {
    const one = ask(host, answers).finally(() => underWay.delete(one));
    underWay.add(one);
  }, 5);
  const end = async (): Promise<void> => {
    clearInterval(timer);
    await Promise.all(underWay);
  };
  return {
    answers,
    until: async (ok) => {
      await until(`${ok} requests for ${host} are answered`, () => answers.ok >= ok, waits);
    },
    end,
    async endCounted() {
      await end();
      const { tried, answered, ok } = answers;
      // What Caddy answered is counted, and nothing that was not tried; what the app answered is counted there.
      const isWhole = (now: Counts): boolean =>
        now.caddy >= answered &&
        now.caddy <= tried &&
        now.app >= ok &&
        now.app <= now.caddy &&
        (answered < tried || now.caddy === answered);
      let last: Counts | undefined;
      await until(
        `all of ${JSON.stringify(answers)} are counted`,
        async () => isWhole((last = await counts(host))),
        waits,
      ).catch((error: unknown) => {
        throw new Error(`Counted ${JSON.stringify(last)} of ${JSON.stringify(answers)} for ${host}.`, { cause: error });
      });
    },
  };
}

/** How many requests for a host Caddy could not log: they are in its own log. */
async function unsent(host: string): Promise<number> {
  const { output } = await compose('logs', '--no-log-prefix', 'caddy');
  return output.split('\n').filter((line) => line.includes('"handled request"') && line.includes(`"host":"${host}"`))
    .length;
}

/** To the collector's published port. */
async function sendLines(lines: readonly string[]): Promise<void> {
  const socket = connect(project.tcp, '127.0.0.1');
  socket.end(`${lines.join('\n')}\n`);
  await once(socket.resume(), 'close');
}

/** As Caddy writes it, with a target that cannot be compressed. */
function logLine(): string {
  return JSON.stringify({
    level: 'info',
    ts: Date.now() / 1000,
    logger: 'http.log.access',
    msg: 'handled request',
    bytes_read: 0,
    user_id: '',
    duration: 0.001,
    size: 1,
    status: 200,
    resp_headers: {},
    request: {
      remote_ip: '203.0.113.9',
      remote_port: '1',
      client_ip: '203.0.113.9',
      proto: 'HTTP/1.1',
      method: 'GET',
      host: 'full.example',
      uri: `/${randomBytes(300).toString('base64url')}`,
      headers: {},
    },
  });
}

async function send(host: string, count: number): Promise<Answers> {
  const answers: Answers = { tried: 0, answered: 0, ok: 0 };
  for (let left = count; left > 0; left -= 20)
    await Promise.all(Array.from({ length: Math.min(20, left) }, () => ask(host, answers)));
  return answers;
}

async function ask(host: string, answers: Answers): Promise<void> {
  answers.tried += 1;
  const answer = await get('/api/ping', host).catch(() => undefined);
  if (answer === undefined) return;
  answers.answered += 1;
  if (answer.status === 200) answers.ok += 1;
}

/** Through Caddy. */
function get(path: string, host = 'localhost'): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const sent = request(
      { port: project.http, host: '127.0.0.1', path, headers: { host }, agent, timeout: 20_000 },
      (response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text: string) => {
          body += text;
        });
        response
          .once('end', () => {
            resolve({ status: response.statusCode!, body });
          })
          .once('error', reject);
      },
    );
    sent
      .once('error', reject)
      .once('timeout', () => {
        sent.destroy(new Error(`${path} was not answered in 20 s.`));
      })
      .end();
  });
}

async function untilServed(): Promise<void> {
  await until(
    'the dashboard is served',
    async () => (await get('/ready').catch(() => undefined))?.status === 200,
    waits,
  );
}

async function counts(host: string): Promise<Counts> {
  const answer = await get(`/api/summary?host=${host}`).catch(() => undefined);
  if (answer?.status !== 200) return { caddy: 0, app: 0 };
  const { sources } = JSON.parse(answer.body) as { sources: Readonly<Record<string, SourceCounts>> };
  return { caddy: sources['caddy']?.requests ?? 0, app: sources['dashboard']?.requests ?? 0 };
}

async function untilCounted(host: string, wanted: Counts): Promise<void> {
  await untilCountedAs(host, wanted, (last) => last.caddy === wanted.caddy);
}

/**
 * The collector has closed the connection between Caddy's writing a line into it and reading that: the one line that a
 * restart may cost (docs/restart.md). Gives what was counted.
 */
async function untilCountedButOne(host: string, wanted: Counts): Promise<Counts> {
  let oneLess = 0; // readings in a row: the last request may still be on its way
  return await untilCountedAs(host, wanted, (last) => {
    oneLess = last.caddy === wanted.caddy - 1 ? oneLess + 1 : 0;
    return last.caddy === wanted.caddy || oneLess > 20;
  });
}

async function untilCountedAs(host: string, wanted: Counts, isAtTheEdge: (last: Counts) => boolean): Promise<Counts> {
  let last: Counts | undefined;
  await until(
    `${host} is counted`,
    async () => {
      last = await counts(host);
      return isAtTheEdge(last) && last.app === wanted.app;
    },
    waits,
  ).catch((error: unknown) => {
    throw new Error(`Counted ${JSON.stringify(last)} for ${host}, and wanted ${JSON.stringify(wanted)}.`, {
      cause: error,
    });
  });
  return last!;
}

async function ledger(): Promise<Readonly<Record<string, number>>> {
  const { collectors } = JSON.parse(await collectorPage('/ledger')) as {
    collectors: Readonly<Record<string, Readonly<Record<string, number>>>>;
  };
  return collectors['collector']!;
}

/** A page of the collector, whose port is not published. */
async function collectorPage(path: string): Promise<string> {
  return (
    await compose(
      'exec',
      '-T',
      'collector',
      'node',
      '--eval',
      `fetch("http://127.0.0.1:9515${path}").then((answer)=>answer.text()).then(console.log)`,
    )
  ).output;
}

/** What the engine says of a service's container. */
async function inspect(service: string): Promise<Container> {
  const { output: id } = await compose('ps', '--all', '--quiet', service);
  const { status, output } = await runDocker('inspect', id.trim());
  assert.equal(status, 0, output);
  return (JSON.parse(output) as [Container])[0];
}

/**
 * Runs a command as docs/compose.md has it, in the project under test, and gives what it wrote. Throws when it is not
 * there, or fails.
 */
async function documented(command: string): Promise<string> {
  assert.ok((await readFile('docs/compose.md', 'utf8')).includes(`\`${command}\``), `docs/compose.md has ${command}`);
  const args = command
    .replaceAll('caddy-log-sink_', `${project.name}_`)
    .replaceAll('"', '')
    .replaceAll('$PWD', folder)
    .split(' ')
    .slice(1);
  const { status, output } = await (args[0] === 'compose' ? run(...args.slice(1)) : runDocker(...args));
  if (status !== 0) throw new Error(`${command} ended with ${status}:\n${output}`);
  return output;
}

async function compose(...args: string[]): Promise<Outcome> {
  const outcome = await run(...args);
  if (outcome.status !== 0)
    throw new Error(`docker compose ${args.join(' ')} ended with ${outcome.status}:\n${outcome.output}`);
  return outcome;
}

function run(...args: string[]): Promise<Outcome> {
  return runDocker(
    'compose',
    '--project-directory',
    '.',
    '--project-name',
    project.name,
    ...project.files.flatMap((file) => ['--file', file]),
    ...args,
  );
}

function runDocker(...args: string[]): Promise<Outcome> {
  const env = {
    ...process.env,
    HTTP_ADDRESS: `127.0.0.1:${project.http}`,
    COLLECTOR_ADDRESS: `127.0.0.1:${project.tcp}`,
    DASHBOARD_PASSWORD: project.password,
  };
  return new Promise((resolve) => {
    const child = execFile(docker, [...dockerArgs, ...args], { env, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code ?? 1), output: stdout + stderr });
    });
    child.stdin?.end();
  });
}
