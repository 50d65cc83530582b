import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { DuckDBInstance } from '@duckdb/node-api';
import test, { type ExecutionContext } from 'ava';
import { StoreError } from '../../errors.js';
import { createLog } from '../../log.js';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import type { Store } from '../store.js';
import { defaultMemoryBytes, openDatabase } from './database.js';
import { openDuckdbStore } from './duckdb-store.js';
import { schemaVersion } from './schema.js';

test('refuses a file that another process has open, names the process and what to do, and opens the file once it is gone', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const path = join(folder, 'requests.duckdb');
  const other = spawn(
    process.execPath,
    [fileURLToPath(new URL('../../../test/duckdb-writer.js', import.meta.url)), path],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(createInterface({ input: other.stdout }), 'line');
  const error = await refused(t, path);
  t.regex(error.message, new RegExp(`PID ${other.pid}\\b`));
  t.regex(error.message, /one process at a time.*Stop that process, or set STORE/s);
  other.kill('SIGKILL');
  await once(other, 'exit');
  await (await open(path)).close();
  await cleanup();
});

test('replaces an empty file, as a full disk or a kill leaves it', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const path = join(folder, 'requests.duckdb');
  await writeFile(path, '');
  const store = await open(path);
  t.is(await store.write(duckdbBatch(1)), 0);
  await store.close();
  await cleanup();
});

test('refuses a second open by the same process without affecting the first', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const path = join(folder, 'requests.duckdb');
  const store = await open(path);
  t.regex((await refused(t, path)).message, /this process already has it open/);
  await store.write(duckdbBatch(1));
  await store.close();
  await (await open(path)).close();
  await cleanup();
});

test('creates the folder, the file and its log readable only by their owner', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const path = join(folder, 'new', 'data', 'requests.duckdb');
  const store = await open(path);
  await store.write(duckdbBatch(1));
  t.is(await modeOf(join(folder, 'new', 'data')), '700');
  t.deepEqual(await Promise.all([path, `${path}.wal`].map(modeOf)), ['600', '600']);
  await store.close();
  t.deepEqual(await readdir(join(folder, 'new', 'data')), ['requests.duckdb'], 'closing leaves no log to replay');
  await cleanup();
});

test('refuses files that are not a database, and leaves them unchanged', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const text = join(folder, 'text');
  await writeFile(text, 'Not a database. '.repeat(1000));
  t.regex((await refused(t, text)).message, /not a DuckDB database.*Move it away, or set STORE/s);
  t.is(await readFile(text, 'utf8'), 'Not a database. '.repeat(1000));

  await mkdir(join(folder, 'folder'));
  t.regex((await refused(t, join(folder, 'folder'))).message, /it is a folder/);
  t.regex((await refused(t, join(text, 'below', 'a-file'))).message, /ENOTDIR.*can be written/s);

  const damaged = join(folder, 'damaged.duckdb');
  await (await open(damaged)).close();
  const bytes = await readFile(damaged);
  await writeFile(damaged, bytes.fill(7, 4096, 20_000));
  t.regex((await refused(t, damaged)).message, /it is damaged.*Restore a copy/s);
  await cleanup();
});

test('refuses tables of a newer program', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const path = join(folder, 'requests.duckdb');
  await (await open(path)).close();
  const instance = await DuckDBInstance.create(path);
  const connection = await instance.connect();
  await connection.run('UPDATE store_schema SET version = $1', [schemaVersion + 1]);
  connection.closeSync();
  instance.closeSync();
  t.regex(
    (await refused(t, path)).message,
    new RegExp(`tables have version ${schemaVersion + 1}, and this program knows version ${schemaVersion}\\. Upgrade`),
  );
  await cleanup();
});

test('uses an eighth of the memory of the machine, within bounds', (t) => {
  const mebibytes = (machine: number): number => defaultMemoryBytes(machine * 2 ** 20) / 2 ** 20;
  t.deepEqual([256, 1024, 1536, 65_536].map(mebibytes), [96, 128, 192, 256]);
});

test('lets SQL reach no other file, nor lift that restriction', async (t) => {
  const { folder, cleanup } = await emptyFolder();
  const database = await openDatabase(join(folder, 'requests.duckdb'), {
    memoryBytesMax: 64 * 2 ** 20,
    log: createLog('store'),
  });
  const elsewhere = join(folder, 'elsewhere');
  await writeFile(elsewhere, 'text');
  for (const sql of [
    `SELECT * FROM read_text('${elsewhere}')`,
    `COPY request_metrics TO '${elsewhere}'`,
    `ATTACH '${elsewhere}.duckdb'`,
    'INSTALL httpfs',
    'LOAD httpfs',
    'SET enable_external_access = true',
    "SET memory_limit = '1TB'",
  ]) {
    await t.throwsAsync(database.reading[0]!.run(sql), { message: /disabled|locked|Cannot/ }, sql);
  }
  // DuckDB can still sort more rows than fit in memory: it spills to files beside the database.
  const sorted = await database.reading[1]!.run(
    'SELECT count(*) FROM (SELECT a, row_number() OVER (ORDER BY b) FROM (SELECT range a, md5(range::VARCHAR) b FROM range(1000000)))',
  );
  t.deepEqual(await sorted.getRows(), [[1_000_000n]]);
  await database.close();
  await cleanup();
});

function open(path: string): Promise<Store> {
  return openDuckdbStore(
    { path, retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 } },
    { log: createLog('store') },
  );
}

/** Asserts that opening fails with 'stop' and a message that names the file. */
async function refused(t: ExecutionContext, path: string): Promise<StoreError> {
  const error = await t.throwsAsync(open(path), { instanceOf: StoreError });
  t.is(error.action, 'stop');
  t.true(error.message.includes(path), error.message);
  return error;
}

async function modeOf(path: string): Promise<string> {
  return ((await stat(path)).mode & 0o777).toString(8);
}

async function emptyFolder(): Promise<{ folder: string; cleanup: () => Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  return { folder, cleanup: () => rm(folder, { recursive: true }) };
}
