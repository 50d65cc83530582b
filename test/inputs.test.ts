/**
 * Lines as other tools hand them over: each folder of `inputs/` is a kind, and its `expected.json` says what is right.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { freePorts } from './ports.js';
import { runImport } from '../collector/import/import.js';
import { importSettings } from '../collector/import/settings.js';
import { readSettings } from '../shared/settings/settings.js';
import { folderOf, readLedger, startProgram } from './program.js';
import { sendTcp } from './sample.js';
import { until } from './until.js';

interface Expected {
  readonly requests: number;
  readonly statuses?: Readonly<Record<string, number>>;
  readonly runtime_lines?: number;
  readonly rejected: number;
}

const folder = join(process.cwd(), 'test/inputs');
const retention = { RETENTION_REQUESTS: '3650d', RETENTION_ROLLUPS: '3650d' };
const packed = 'packed-otherwise';
const overSeveralLines = 'pretty-printed-json';
const cases = readdirSync(folder).filter((name) => name !== packed);

for (const name of cases) {
  test.serial(`import reads inputs/${name} as its expected.json says`, async (t) => {
    const { requests, runtime_lines: runtime, rejected } = expectedOf(name);
    const { counts, stdout, status } = await imported(t, join(folder, name, 'input.log'));
    t.is(counts['added'], requests, stdout);
    t.is(counts['not requests'] ?? 0, runtime ?? 0, stdout);
    t.is(counts['rejected'] ?? 0, rejected, stdout);
    if (name === 'ts-zero-and-clock-off') t.regex(stdout, /4 requests were rejected as bad-time: /);
    if (name === 'elastic-ecs-encoder')
      t.regex(stdout, /2 requests were rejected as unknown-encoder: their encoder is not supported, such as ECS/);
    t.is(status, stdout.includes('requests were rejected as') ? 1 : 0);
  });
}

test.serial(
  'import reads a gzip file of several members, and names what unpacks the others without reading a line of them',
  async (t) => {
    const path = (file: string): string => join(folder, packed, file);
    t.deepEqual((await imported(t, path('access-members.log.gz'))).counts, { added: 5 });
    for (const [file, command] of [
      ['access.tgz', 'tar -xOf FILE'],
      ['access.log.xz', 'xz -dc FILE'],
      ['access.log.bz2', 'bzip2 -dc FILE'],
      ['access.zip', 'unzip -p FILE'],
    ] as const) {
      const { counts, stdout, status } = await imported(t, path(file));
      t.deepEqual(counts, { added: 0 }, file);
      t.is(stdout.match(/^Problem: /gm)?.length, 1, stdout);
      t.true(stdout.includes(`\`${command} | npm run import -- -\``), stdout);
      t.is(status, 1);
    }
  },
);

test.serial('the collector reads what its sockets take of inputs/ as their expected.json say', async (t) => {
  t.timeout(120_000);
  const [tcp, http, web] = (await freePorts(3)) as [number, number, number];
  const program = await startProgram(
    ['start'],
    {
      ...retention,
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
    },
    [`http://127.0.0.1:${http}/ready`, `http://127.0.0.1:${web}/health`],
  );
  t.teardown(() => program.stop('SIGKILL'));
  let [before, statusesBefore] = [await readLedger(http), await statusesOf(web)];
  for (const name of cases.filter((each) => each !== overSeveralLines)) {
    const { requests, statuses, runtime_lines: runtime, rejected } = expectedOf(name);
    await sendTcp(tcp, readFileSync(join(folder, name, 'input.log')), [1000]);
    const lines = requests + (runtime ?? 0) + rejected;
    const ledger = await until(`the lines of ${name} are stored`, async () => {
      const current = await readLedger(http);
      return current.received - before.received >= lines && current.stored === current.accepted && current;
    });
    t.is(ledger.received - before.received, lines, name);
    t.is(ledger.accepted - before.accepted, requests, name);
    t.is(ledger.runtime - before.runtime, runtime ?? 0, name);
    const statusesNow = await statusesOf(web);
    const added = Object.entries(statusesNow)
      .map(([status, count]) => [status, count - (statusesBefore[status] ?? 0)] as const)
      .filter(([, count]) => count > 0);
    t.deepEqual(Object.fromEntries(added), statuses ?? {}, name);
    [before, statusesBefore] = [ledger, statusesNow];
  }
  t.is(await program.stop(), 0);
});

function expectedOf(name: string): Expected {
  return JSON.parse(readFileSync(join(folder, name, 'expected.json'), 'utf8')) as Expected;
}

async function imported(
  t: ExecutionContext,
  path: string,
): Promise<{ counts: Record<string, number>; stdout: string; status: number }> {
  const values = readSettings(importSettings, {
    ...retention,
    COLLECTOR_HTTP: 'off',
    STORE: `duckdb:${join(await folderOf(t), 'requests.duckdb')}`,
  });
  let stdout = '';
  const status = await runImport(values, {
    paths: [path],
    dryRun: false,
    force: false,
    signal: new AbortController().signal,
    stdout: {
      write: (text) => {
        stdout += String(text);
        return true;
      },
    },
  });
  const counts: Record<string, number> = {};
  for (const [, name, count] of stdout.matchAll(/^ {2}(\S+(?: \S+)*) +([\d,]+) {2}/gm))
    counts[name!] = (counts[name!] ?? 0) + Number(count);
  return { counts, stdout, status };
}

async function statusesOf(port: number): Promise<Record<string, number>> {
  const answer = (await (
    await fetch(`http://127.0.0.1:${port}/api/requests?source=caddy&from=2016-12-01T00:00:00Z&limit=1000`)
  ).json()) as { requests?: { status: number }[] } | { status: number }[];
  const statuses: Record<string, number> = {};
  for (const { status } of Array.isArray(answer) ? answer : answer.requests!)
    statuses[status] = (statuses[status] ?? 0) + 1;
  return statuses;
}
