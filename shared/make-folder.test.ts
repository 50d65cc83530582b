import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { makeFolder } from './make-folder.js';

test('it makes the folder and those above it for their owner alone, also when many ask at once, and leaves one that is there.', async (t) => {
  const base = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(base, { recursive: true }));
  await Promise.all(Array.from({ length: 20 }, () => makeFolder(join(base, 'a/b/c'))));
  await makeFolder(join(base, 'a/b'));
  for (const folder of ['a', 'a/b', 'a/b/c']) t.is((await stat(join(base, folder))).mode & 0o777, 0o700, folder);
});

test('a file in the way is an error.', async (t) => {
  const base = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(base, { recursive: true }));
  await writeFile(join(base, 'file'), '');
  await t.throwsAsync(makeFolder(join(base, 'file')), { code: 'EEXIST' });
  await t.throwsAsync(makeFolder(join(base, 'file/below')), { code: 'ENOTDIR' });
});

(process.platform === 'linux' ? test : test.skip)(
  'a file system that has no room for folders is an error, not an endless try.',
  async (t) => {
    await t.throwsAsync(makeFolder('/proc/nothing/spool'), { code: 'ENOENT' });
  },
);
