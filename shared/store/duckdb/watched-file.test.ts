import { copyFile, mkdtemp, rename, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';
import test, { type ExecutionContext } from 'ava';
import { WatchedFile, type FileFate } from './watched-file.js';

/** A watched DuckDB file that is open, with rows in it. */
async function start(
  t: ExecutionContext,
): Promise<{ path: string; folder: string; connection: DuckDBConnection; watched: WatchedFile }> {
  const folder = await mkdtemp(join(tmpdir(), 'watched-file-'));
  const path = join(folder, 'a.duckdb');
  const instance = await DuckDBInstance.create(path);
  const connection = await instance.connect();
  await connection.run('CREATE TABLE numbers AS SELECT range FROM range(1000)');
  await connection.run('CHECKPOINT');
  const watched = await WatchedFile.open(path);
  t.teardown(async () => {
    connection.closeSync();
    instance.closeSync();
    await watched.close();
    await rm(folder, { recursive: true });
  });
  return { path, folder, connection, watched };
}

test("ignores DuckDB's own writes and checkpoints", async (t) => {
  const { watched, connection } = await start(t);
  for (let round = 0; round < 3; round += 1) {
    await connection.run('INSERT INTO numbers SELECT range FROM range(5000)');
    t.is(await watched.fate({ withContent: true }), undefined);
    t.true(await watched.hasOwnLog());
    await connection.run('CHECKPOINT');
    t.is(await watched.fate({ withContent: true }), undefined);
  }
});

const fates: readonly [FileFate, (path: string) => Promise<void>][] = [
  ['deleted', (path) => rm(path)],
  ['moved', (path) => rename(path, `${path}.old`)],
  [
    'replaced',
    async (path) => {
      await copyFile(path, `${path}.copy`);
      await rename(`${path}.copy`, path);
    },
  ],
  ['overwritten', (path) => truncate(path, 0)],
];
for (const [fate, change] of fates) {
  test(`detects a file that was ${fate}`, async (t) => {
    const { path, watched } = await start(t);
    await change(path);
    t.is(await watched.fate({ withContent: true }), fate);
  });
}

test('detects an older copy that overwrote the file by its content', async (t) => {
  const { path, watched, connection } = await start(t);
  await copyFile(path, `${path}.backup`);
  for (let round = 0; round < 3; round += 1) {
    await connection.run('INSERT INTO numbers SELECT range FROM range(5000)');
    await connection.run('CHECKPOINT');
  }
  t.is(await watched.fate({ withContent: true }), undefined);
  await copyFile(`${path}.backup`, path);
  t.is(await watched.fate({ withContent: false }), undefined);
  t.is(await watched.fate({ withContent: true }), 'overwritten');
});

test('does not mistake the log of another file for its own', async (t) => {
  const { path, watched, connection } = await start(t);
  await connection.run('INSERT INTO numbers SELECT range FROM range(10)');
  t.is(await watched.fate({ withContent: false }), undefined);
  t.true(await watched.hasOwnLog());
  await copyFile(`${path}.wal`, `${path}.other`);
  await rename(`${path}.other`, `${path}.wal`);
  t.false(await watched.hasOwnLog());
});
