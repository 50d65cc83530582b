/**
 * `npm run test:compose`: docker-compose.yml from nothing, on this machine's Docker, in a project, on ports and in volumes of its own.
 * `DOCKER` names the command when it is not `docker`. Needs a few minutes; ends with status 1 at the first thing that is not as it should be.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { Agent, request } from 'node:http';
import { freePorts } from './ports.js';
import { until } from './until.js';

const [http, tcp] = await freePorts(2) as [number, number];
const project = `caddy-log-sink-test-${process.pid}`;
const [docker, ...dockerArgs] = (process.env['DOCKER'] ?? 'docker').split(' ') as [string, ...string[]];
const environment = { ...process.env, HTTP_ADDRESS: `127.0.0.1:${http}`, COLLECTOR_ADDRESS: `127.0.0.1:${tcp}` };
const agent = new Agent({ keepAlive: true, maxSockets: 20 });
const waits = { waitMsMax: 120_000, pollMs: 250 };

interface Outcome { readonly status: number; readonly output: string }
interface SourceCounts { readonly requests: number; readonly statuses: Readonly<Record<string, number>> }
type Counts = Readonly<Record<'caddy' | 'app', number>>;
/** What came of requests: how many were tried, answered, and answered with 200. */
interface Answers { tried: number; answered: number; ok: number }

const steps: readonly (readonly [string, () => Promise<void>])[] = [
  ['It comes up from nothing, and the page is there.', async () => {
    await compose('up', '--build', '--detach');
    await untilServed();
    const page = await get('/');
    assert.equal(page.status, 200);
    assert.match(page.body, /Caddy Log Sink/);
  }],

  ['Requests through Caddy are counted exactly, at the edge and in the app.', async () => {
    const sent = await send('first.example', 1000);
    assert.deepEqual(sent, { tried: 1000, answered: 1000, ok: 1000 });
    await untilCounted('first.example', { caddy: 1000, app: 1000 });
  }],

  ['No container is root, has a capability that it does not need, or writes outside its volumes.', async () => {
    for (const service of ['influxdb', 'collector', 'web', 'caddy']) {
      const { output } = await compose('exec', '-T', service, 'sh', '-c', 'id -u; grep CapEff /proc/1/status; grep NoNewPrivs /proc/1/status; touch /written 2>/dev/null || echo read-only');
      assert.match(output, new RegExp(`^1000\\s+CapEff:\\s+${service === 'caddy' ? '0000000000000400' : '0{16}'}\\s+NoNewPrivs:\\s+1\\s+read-only`), service);
    }
    const { output } = await compose('exec', '-T', 'collector', 'sh', '-c', 'ls /tokens/*');
    assert.match(output, /\/tokens\/collector:\s+token/);
    assert.equal(output.match(/^token$/gm)?.length, 1, "the collector sees no token but its own");
  }],

  ["A kill (-9) of InfluxDB's container under load loses nothing.", async () => {
    const load = startLoad('killed.example');
    await load.until(200);
    await compose('kill', '--signal', 'SIGKILL', 'influxdb');
    await load.until(1000);
    await compose('start', 'influxdb');
    await load.until(1500);
    await load.endCounted();
  }],

  ['A restart of InfluxDB under load loses nothing.', () => restartUnderLoad('influxdb')],
  ['A restart of the web app under load loses nothing.', () => restartUnderLoad('web')],
  ['A restart of Caddy under load loses nothing.', () => restartUnderLoad('caddy')],

  ['A restart of the collector loses nothing of what it took, also while InfluxDB is down.', async () => {
    await compose('stop', 'influxdb');
    const { ok } = await send('spooled.example', 500);
    assert.equal(ok, 500);
    await until('the collector has them all', async () => (await ledger())['received']! > 0 && (await ledger())['in_memory'] === 0, waits);
    await restart('collector');
    await compose('start', 'influxdb');
    await untilCounted('spooled.example', { caddy: 500, app: 500 });
  }],

  ["A restart of the collector under load loses nothing: what Caddy could not send is in Caddy's own log.", async () => {
    const load = startLoad('collector.example');
    await load.until(200);
    await restart('collector');
    // Caddy dials again ten seconds after it has lost a connection.
    const before = (await counts('collector.example')).caddy;
    await until('Caddy logs to the new collector', async () => (await counts('collector.example')).caddy > before + 200, waits);
    await load.end();
    const { output } = await compose('logs', '--no-log-prefix', 'caddy');
    const unsent = output.split('\n').filter((line) => line.includes('"handled request"') && line.includes('"host":"collector.example"')).length;
    const { answered } = load.answers;
    await untilCounted('collector.example', { caddy: answered - unsent, app: answered });
  }],

  ['down and up again keep what was counted.', async () => {
    await compose('down');
    await compose('up', '--detach');
    await untilServed();
    await untilCounted('first.example', { caddy: 1000, app: 1000 });
    const { output } = await compose('logs', '--no-log-prefix', 'setup');
    assert.match(output, /Nothing was changed\./);
  }],

  ['A wrong token gives a message that says what to do, holds everything, and is mended by setup.', async () => {
    const refused = await run('run', '--no-deps', '-T', '--env', 'INFLUXDB_TOKEN=wrong', 'setup', 'setup');
    assert.notEqual(refused.status, 0);
    assert.match(refused.output, /401\. INFLUXDB_TOKEN has to be a token that may do everything/);
    await compose('run', '--rm', '--no-deps', '-T', '--entrypoint', 'sh', 'setup', '-c', 'echo not-a-token > /tokens/collector/token');
    await restart('collector');
    await until('the collector says so', async () => {
      await send('held.example', 1);
      return /401 .*INFLUXDB_TOKEN is missing, wrong or no longer valid/.test((await compose('logs', 'collector')).output);
    }, waits);
    await compose('up', '--detach');
    await restart('collector');
    await until('the collector is ready', async () => (await collectorPage('/ready')).includes('"ok"'), waits);
  }],
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
  await run('down', '--volumes', '--remove-orphans', '--timeout', '5');
}
process.exitCode = status;

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
function startLoad(host: string): { readonly answers: Answers; until(ok: number): Promise<void>; end(): Promise<void>; endCounted(): Promise<void> } {
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
    until: async (ok) => { await until(`${ok} requests for ${host} are answered`, () => answers.ok >= ok, waits); },
    end,
    async endCounted() {
      await end();
      const { tried, answered, ok } = answers;
      // What Caddy answered is counted, and nothing that was not tried; what the app answered is counted there.
      const isWhole = (now: Counts): boolean => now.caddy >= answered && now.caddy <= tried && now.app >= ok && now.app <= now.caddy && (answered < tried || now.caddy === answered);
      let last: Counts | undefined;
      await until(`all of ${JSON.stringify(answers)} are counted`, async () => isWhole(last = await counts(host)), waits).catch((error: unknown) => {
        throw new Error(`Counted ${JSON.stringify(last)} of ${JSON.stringify(answers)} for ${host}.`, { cause: error });
      });
    },
  };
}

async function send(host: string, count: number): Promise<Answers> {
  const answers: Answers = { tried: 0, answered: 0, ok: 0 };
  for (let left = count; left > 0; left -= 20) await Promise.all(Array.from({ length: Math.min(20, left) }, () => ask(host, answers)));
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
    const sent = request({ port: http, host: '127.0.0.1', path, headers: { host }, agent, timeout: 20_000 }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => { body += text; });
      response.once('end', () => { resolve({ status: response.statusCode!, body }); }).once('error', reject);
    });
    sent.once('error', reject).once('timeout', () => { sent.destroy(new Error(`${path} was not answered in 20 s.`)); }).end();
  });
}

async function untilServed(): Promise<void> {
  await until('the dashboard is served', async () => (await get('/ready').catch(() => undefined))?.status === 200, waits);
}

async function counts(host: string): Promise<Counts> {
  const answer = await get(`/api/summary?host=${host}`).catch(() => undefined);
  if (answer?.status !== 200) return { caddy: 0, app: 0 };
  const { sources } = JSON.parse(answer.body) as { sources: Readonly<Record<string, SourceCounts>> };
  return { caddy: sources['caddy']?.requests ?? 0, app: sources['app']?.requests ?? 0 };
}

async function untilCounted(host: string, wanted: Counts): Promise<void> {
  let last: Counts | undefined;
  await until(`${host} is counted`, async () => {
    last = await counts(host);
    return last.caddy === wanted.caddy && last.app === wanted.app;
  }, waits).catch((error: unknown) => { throw new Error(`Counted ${JSON.stringify(last)} for ${host}, and wanted ${JSON.stringify(wanted)}.`, { cause: error }); });
}

async function ledger(): Promise<Readonly<Record<string, number>>> {
  const { collectors } = JSON.parse(await collectorPage('/ledger')) as { collectors: Readonly<Record<string, Readonly<Record<string, number>>>> };
  return collectors['collector']!;
}

/** A page of the collector, whose port is not published. */
async function collectorPage(path: string): Promise<string> {
  return (await compose('exec', '-T', 'collector', 'node', '--eval', `fetch("http://127.0.0.1:9515${path}").then((answer)=>answer.text()).then(console.log)`)).output;
}

async function compose(...args: string[]): Promise<Outcome> {
  const outcome = await run(...args);
  if (outcome.status !== 0) throw new Error(`docker compose ${args.join(' ')} ended with ${outcome.status}:\n${outcome.output}`);
  return outcome;
}

function run(...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const child = execFile(docker, [...dockerArgs, 'compose', '--project-name', project, ...args], { env: environment, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code ?? 1), output: stdout + stderr });
    });
    child.stdin?.end();
  });
}
