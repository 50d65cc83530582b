/**
 * Back-up and restore as docs/backup.md has them: copies of both stores, made while they are stopped, hold all
 * requests.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { launchInfluxd } from './influxd-server.js';
import { testWithInfluxd } from './influxd.js';
import { freePort, freePorts } from './ports.js';
import { folderOf, readLedger, runProgram, startProgram } from './program.js';
import { readSample, sendTcp } from './sample.js';
import { until } from './until.js';

const sample = readSample();

test('A copy of the DuckDB file that was made while the program was stopped holds every request.', async (t) => {
  t.timeout(120_000);
  const folder = await folderOf(t);
  const imported = await runProgram(
    ['import', '-'],
    { STORE: `duckdb:${join(folder, 'requests.duckdb')}` },
    { stdin: sample.bytes },
  );
  t.is(await imported.ended, 0, imported.stderr());
  const copies = join(folder, 'backup');
  await mkdir(copies);
  for (const name of await readdir(folder))
    if (name.startsWith('requests.duckdb')) await cp(join(folder, name), join(copies, name), { recursive: true });
  await rm(join(folder, 'requests.duckdb'));
  t.is(await requestsSeen(t, 'start', { STORE: `duckdb:${join(copies, 'requests.duckdb')}` }), sample.lines.length);
});

test('--read-only shows a copy with its write-ahead log, and leaves every file as it is', async (t) => {
  t.timeout(120_000);
  const folder = await folderOf(t);
  const path = join(folder, 'requests.duckdb');
  const [web, tcp, http] = (await freePorts(3)) as [number, number, number];
  const original = await startProgram(
    ['start'],
    {
      STORE: `duckdb:${path}`,
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
    },
    [`http://127.0.0.1:${http}/ready`],
  );
  t.teardown(() => original.stop('SIGKILL'));
  const lines = sample.lines.slice(0, 3000);
  await sendTcp(tcp, Buffer.from(lines.map((line) => `${line}\n`).join('')), [65_536]);
  await until('all are stored', async () => (await readLedger(http)).stored === lines.length);
  await original.stop('SIGKILL');
  const copies = join(folder, 'backup');
  await mkdir(copies);
  for (const name of ['requests.duckdb', 'requests.duckdb.wal']) await cp(join(folder, name), join(copies, name));
  const before = await contentsOf(copies);
  t.true(before.get('requests.duckdb.wal')!.length > 0, 'there is a log to replay');

  // A retention that would delete all of it at once.
  const settings = {
    STORE: `duckdb:${join(copies, 'requests.duckdb')}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`,
    RETENTION_REQUESTS: '1h',
    RETENTION_ROLLUPS: '1d',
    RETENTION_DELAY: '0s',
  };
  const viewer = await startProgram(['start', '--read-only'], settings, [`http://127.0.0.1:${web}/ready`]);
  t.teardown(() => viewer.stop());
  const summary = (await fetch(`http://127.0.0.1:${web}/api/summary?${sample.range}`).then((answer) =>
    answer.json(),
  )) as { sources: { caddy: { requests: number } } };
  t.is(summary.sources.caddy.requests, lines.length);
  t.is((await fetch(`http://127.0.0.1:${web}/`)).status, 200);
  await t.throwsAsync(sendTcp(tcp, Buffer.from(`${lines[0]!}\n`), [65_536]), undefined, 'it does not listen for lines');
  const imported = await runProgram(
    ['import', '-'],
    { ...settings, COLLECTOR_HTTP: 'off' },
    { stdin: Buffer.from(`${lines[0]!}\n`) },
  );
  t.is(await imported.ended, 1);
  await until('it has started', () => viewer.stdout().includes('read-only'));
  t.is(await viewer.stop(), 0);
  t.deepEqual(await contentsOf(copies), before);
});

test('--read-only refuses what it cannot do, and says what to do', async (t) => {
  const missing = await runProgram(['start', '--read-only'], {
    STORE: 'duckdb:none.duckdb',
    WEB_LISTEN: '127.0.0.1:0',
  });
  t.is(await missing.ended, 1);
  t.regex(missing.stderr(), /none\.duckdb: it does not exist\. Set STORE to an existing file\./);
  const restartable = await runProgram(['start', '--read-only', '--restartable'], { WEB_LISTEN: '127.0.0.1:0' });
  t.is(await restartable.ended, 2);
  t.regex(restartable.stderr(), /--restartable cannot be used with --read-only/);
});

/** The files of a folder with their bytes. */
async function contentsOf(folder: string): Promise<Map<string, Buffer>> {
  return new Map(
    await Promise.all(
      (await readdir(folder))
        .toSorted()
        .map(async (name): Promise<[string, Buffer]> => [name, await readFile(join(folder, name))]),
    ),
  );
}

testWithInfluxd(
  "A copy of InfluxDB's folder that was made while it was stopped holds the requests and the tokens.",
  async (t) => {
    t.timeout(120_000);
    const folder = await folderOf(t);
    const [first, second] = [join(folder, 'first'), join(folder, 'second')];
    await mkdir(first);
    const place = { INFLUXDB_ORG: 'home', INFLUXDB_BUCKET: 'requests' };
    const tokens = join(folder, 'tokens');
    const storeAt = (port: number): Record<string, string> => ({
      ...place,
      STORE: 'influxdb',
      INFLUXDB_URL: `http://127.0.0.1:${port}`,
      INFLUXDB_TOKEN_FILE: join(tokens, 'web/token'),
    });

    const port = await freePort();
    const stop = stopper(t, await launchInfluxd(first, port));
    const setup = await runProgram(['setup', '--tokens', tokens], {
      ...place,
      INFLUXDB_URL: `http://127.0.0.1:${port}`,
    });
    t.is(await setup.ended, 0, setup.stderr());
    const imported = await runProgram(['import', '-'], storeAt(port), { stdin: sample.bytes });
    t.is(await imported.ended, 0, imported.stderr());
    await stop();
    await cp(first, second, { recursive: true });
    await rm(first, { recursive: true });

    const other = await freePort();
    stopper(t, await launchInfluxd(second, other));
    t.is(await requestsSeen(t, 'web', storeAt(other)), sample.lines.length);
  },
);

async function requestsSeen(
  t: ExecutionContext,
  command: 'start' | 'web',
  store: Readonly<Record<string, string>>,
): Promise<number> {
  const [web, tcp, http] = (await freePorts(3)) as [number, number, number];
  const listen =
    command === 'web' ? {} : { COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`, COLLECTOR_HTTP: `127.0.0.1:${http}` };
  const program = await startProgram([command], { ...store, ...listen, WEB_LISTEN: `127.0.0.1:${web}` }, [
    `http://127.0.0.1:${web}/ready`,
  ]);
  t.teardown(() => program.stop());
  const summary = (await fetch(`http://127.0.0.1:${web}/api/summary?${sample.range}`).then((answer) =>
    answer.json(),
  )) as { sources: { caddy: { requests: number } } };
  return summary.sources.caddy.requests;
}

/** Ends the server; the test does when nobody else has. */
function stopper(t: ExecutionContext, server: ChildProcess): () => Promise<void> {
  const stop = async (): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, 'exit');
    server.kill('SIGTERM');
    await ended;
  };
  t.teardown(stop);
  return stop;
}
