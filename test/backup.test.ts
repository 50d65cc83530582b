/** Back-up and restore as docs/backup.md has them: copies of both stores, made while they are stopped, hold all requests. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { launchInfluxd } from './influxd-server.js';
import { testWithInfluxd } from './influxd.js';
import { freePort, freePorts } from './ports.js';
import { folderOf, runProgram, startProgram } from './program.js';
import { readSample } from './sample.js';

const sample = readSample();

test('A copy of the DuckDB file that was made while the program was stopped holds every request.', async (t) => {
  t.timeout(120_000);
  const folder = await folderOf(t);
  const imported = await runProgram(['import', '-'], { STORE: `duckdb:${join(folder, 'requests.duckdb')}` }, { stdin: sample.bytes });
  t.is(await imported.ended, 0, imported.stderr());
  const copies = join(folder, 'backup');
  await mkdir(copies);
  for (const name of await readdir(folder)) if (name.startsWith('requests.duckdb')) await cp(join(folder, name), join(copies, name), { recursive: true });
  await rm(join(folder, 'requests.duckdb'));
  t.is(await requestsSeen(t, 'start', { STORE: `duckdb:${join(copies, 'requests.duckdb')}` }), sample.lines.length);
});

testWithInfluxd("A copy of InfluxDB's folder that was made while it was stopped holds the requests and the tokens.", async (t) => {
  t.timeout(120_000);
  const folder = await folderOf(t);
  const [first, second] = [join(folder, 'first'), join(folder, 'second')];
  await mkdir(first);
  const place = { INFLUXDB_ORG: 'home', INFLUXDB_BUCKET: 'requests' };
  const tokens = join(folder, 'tokens');
  const storeAt = (port: number): Record<string, string> => ({ ...place, STORE: 'influxdb', INFLUXDB_URL: `http://127.0.0.1:${port}`, INFLUXDB_TOKEN_FILE: join(tokens, 'web/token') });

  const port = await freePort();
  const stop = stopper(t, await launchInfluxd(first, port));
  const setup = await runProgram(['setup', '--tokens', tokens], { ...place, INFLUXDB_URL: `http://127.0.0.1:${port}` });
  t.is(await setup.ended, 0, setup.stderr());
  const imported = await runProgram(['import', '-'], storeAt(port), { stdin: sample.bytes });
  t.is(await imported.ended, 0, imported.stderr());
  await stop();
  await cp(first, second, { recursive: true });
  await rm(first, { recursive: true });

  const other = await freePort();
  stopper(t, await launchInfluxd(second, other));
  t.is(await requestsSeen(t, 'web', storeAt(other)), sample.lines.length);
});

async function requestsSeen(t: ExecutionContext, command: 'start' | 'web', store: Readonly<Record<string, string>>): Promise<number> {
  const [web, tcp, http] = await freePorts(3) as [number, number, number];
  const listen = command === 'web' ? {} : { COLLECTOR_LISTEN: `tcp://127.0.0.1:${tcp}`, COLLECTOR_HTTP: `127.0.0.1:${http}` };
  const program = await startProgram([command], { ...store, ...listen, WEB_LISTEN: `127.0.0.1:${web}` }, [`http://127.0.0.1:${web}/ready`]);
  t.teardown(() => program.stop());
  const summary = await fetch(`http://127.0.0.1:${web}/api/summary?${sample.range}`).then((answer) => answer.json()) as { sources: { caddy: { requests: number } } };
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
