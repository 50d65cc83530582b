import { readFile } from 'node:fs/promises';
import test from 'ava';
import { licencesPage, readDependencies } from './licences.js';

/** Licences that ask for no more than their notice. */
const permissive = new Set([
  'MIT',
  'ISC',
  'BSD-2-Clause',
  'BSD-3-Clause',
  '0BSD',
  'Apache-2.0',
  'Unlicense',
  'BlueOak-1.0.0',
  'CC0-1.0',
]);

test('Every package that is installed with this one has a licence that asks for no more than a notice.', async (t) => {
  const dependencies = await readDependencies();
  t.true(dependencies.some(({ name }) => name === 'koa'));
  t.deepEqual(
    dependencies.filter(({ licence }) => !permissive.has(licence)),
    [],
  );
});

test('docs/licences.md lists what the lockfile has: `npm run licences` makes it anew.', async (t) => {
  t.is(await readFile('docs/licences.md', 'utf8'), licencesPage(await readDependencies()));
});
