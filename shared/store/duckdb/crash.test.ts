/**
 * The contents of the file after a crash of the process or a full disk: whole batches, each once. The writer is a
 * separate process.
 */
import { execFile, spawn } from 'node:child_process';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { createLog } from '../../log.js';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import type { Store } from '../store.js';
import { openDuckdbStore } from './duckdb-store.js';
import { aggregateOf } from '../../../test/rollup-rows.js';

const dayMs = 86_400_000;
const { requestsPerBatch } = duckdbBatch(1);

test('has every accepted batch, and none in part, after kill -9 during writes', async (t) => {
  const { path, cleanup } = await emptyFolder();
  const writer = startWriter(path);
  let taken = 0;
  for await (const line of writer.lines) {
    taken = Number(line.split(' ')[1]);
    if (taken === 25) writer.process.kill('SIGKILL');
  }

  const store = await open(path);
  const after = await totals(store);
  const batches = after.requests / requestsPerBatch;
  t.true(
    batches === taken || batches === taken + 1,
    `${taken} batches were said to be taken, ${after.requests} requests are there`,
  );
  t.is(after.counted, after.requests);
  t.is(after.received, after.requests);

  await store.write(duckdbBatch(batches));
  t.deepEqual(await totals(store), after, 'the last batch, sent again, is known');
  await store.write(duckdbBatch(batches + 1));
  const next = after.requests + requestsPerBatch;
  t.deepEqual(await totals(store), { requests: next, counted: next, received: next });
  await store.close();
  await cleanup();
});

(process.platform === 'linux' ? test : test.skip)(
  'retries writes while the disk is full, and writes each once when there is space again',
  async (t) => {
    const { path, cleanup } = await emptyFolder();
    // A file size limit makes writes fail like a full disk, without privileges.
    const writer = startWriter(path, { fileBytesMax: '1000000' });
    let taken = 0;
    let refused = 0;
    for await (const line of writer.lines) {
      const [word, number, action] = line.split(' ');
      if (word === 'taken') {
        taken = Number(number);
        if (refused > 0 && taken > 40) writer.process.kill('SIGKILL');
      } else {
        refused += 1;
        t.is(action, 'retry', line);
        if (refused === 5) await promisify(execFile)('prlimit', [`--pid=${writer.process.pid}`, '--fsize=unlimited:']);
      }
    }
    t.true(refused >= 5);

    const store = await open(path);
    const { requests, counted, received } = await totals(store);
    const batches = requests / requestsPerBatch;
    t.true(
      batches === taken || batches === taken + 1,
      `${taken} batches were said to be taken, ${requests} requests are there`,
    );
    t.is(counted, requests);
    t.is(received, requests);
    await store.close();
    await cleanup();
  },
);

(process.platform === 'linux' ? test : test.skip)(
  'opens a file of a killed process on a full disk, and retries writes until there is space again',
  async (t) => {
    const { path, cleanup } = await emptyFolder();
    const killed = startWriter(path);
    for await (const line of killed.lines) if (line.startsWith('taken 25')) killed.process.kill('SIGKILL');
    const { size } = await stat(path);
    t.true((await stat(`${path}.wal`)).size > 0, 'what it wrote is in the log');

    const writer = startWriter(path, { fileBytesMax: String(size) });
    let refused = 0;
    for await (const line of writer.lines) {
      const [word, , action] = line.split(' ');
      if (word === 'taken') writer.process.kill('SIGKILL');
      else {
        refused += 1;
        t.is(action, 'retry', line);
        if (refused === 3) await promisify(execFile)('prlimit', [`--pid=${writer.process.pid}`, '--fsize=unlimited:']);
      }
    }
    t.true(refused >= 3);

    const store = await open(path);
    const { requests, counted } = await totals(store);
    t.is(requests % requestsPerBatch, 0);
    t.true(requests >= 25 * requestsPerBatch);
    t.is(counted, requests);
    await store.close();
    await cleanup();
  },
);

test('never shows a partial batch to a reader', async (t) => {
  const { path, cleanup } = await emptyFolder();
  const store = await open(path);
  let writing = true;
  let reads = 0;
  const readOn = async (): Promise<void> => {
    while (writing) {
      const { requests } = await totals(store);
      if (requests % requestsPerBatch !== 0)
        t.fail(`${requests} requests are there, with ${requestsPerBatch} in a batch`);
      const { count } = aggregateOf(await store.readRollups({ ...everything, level: 60, scope: 'host' }));
      if (count % requestsPerBatch !== 0)
        t.fail(`the rollups count ${count} requests, with ${requestsPerBatch} in a batch`);
      reads += 1;
    }
  };
  const reading = [readOn(), readOn()];
  for (let sequence = 1; sequence <= 15; sequence += 1) await store.write(duckdbBatch(sequence));
  writing = false;
  await Promise.all(reading);
  t.true(reads > 0);
  t.is((await totals(store)).requests, 15 * requestsPerBatch);
  await store.close();
  await cleanup();
});

const everything = { fromMs: 0, toMs: Date.UTC(2100), filter: {} };

async function totals(store: Store): Promise<{ requests: number; counted: number; received: number }> {
  const requests = (await store.readRequests({ ...everything, limit: 1_000_000 })).length;
  const { count } = aggregateOf(await store.readRollups({ ...everything, level: 10, scope: 'all' }));
  const [ledger] = await store.readLedgers({ sinceMs: 0 });
  return { requests, counted: count, received: ledger?.received ?? 0 };
}

function open(path: string): Promise<Store> {
  return openDuckdbStore(
    { path, retention: { requestsMs: 3650 * dayMs, rollupsMs: 3650 * dayMs } },
    { log: createLog('store') },
  );
}

async function emptyFolder(): Promise<{ path: string; cleanup: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  return { path: join(folder, 'requests.duckdb'), cleanup: () => rm(folder, { recursive: true }) };
}

/** A process that writes batch after batch: see `duckdb-writer.ts`. */
function startWriter(path: string, { fileBytesMax = 'unlimited' }: { fileBytesMax?: string } = {}) {
  const args = [fileURLToPath(new URL('../../../test/duckdb-writer.js', import.meta.url)), path];
  const [command, commandArgs] =
    fileBytesMax === 'unlimited'
      ? [process.execPath, args]
      : ['prlimit', [`--fsize=${fileBytesMax}:`, process.execPath, ...args]];
  const child = spawn(command, commandArgs, { stdio: ['ignore', 'pipe', 'inherit'] });
  return { process: child, lines: createInterface({ input: child.stdout }) };
}
