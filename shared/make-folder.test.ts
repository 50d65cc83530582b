import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { makeFolder } from './make-folder.js';

test('creates a folder and its parents for the owner only, even concurrently, and leaves existing ones alone', async (t) => {
  const base = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(base, { recursive: true }));
  await Promise.all(Array.from({ length: 20 }, () => makeFolder(join(base, 'a/b/c'))));
  await makeFolder(join(base, 'a/b'));
  for (const folder of ['a', 'a/b', 'a/b/c']) t.is((await stat(join(base, folder))).mode & 0o777, 0o700, folder);
});

test('throws if a file is in the way', async (t) => {
  const base = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(base, { recursive: true }));
  await writeFile(join(base, 'file'), '');
  await t.throwsAsync(makeFolder(join(base, 'file')), { code: 'EEXIST' });
  await t.throwsAsync(makeFolder(join(base, 'file/below')), { code: 'ENOTDIR' });
});

(process.platform === 'linux' ? test : test.skip)(
  'throws on a file system without folders instead of retrying forever',
  async (t) => {
    await t.throwsAsync(makeFolder('/proc/nothing/spool'), { code: 'ENOENT' });
  },
);
