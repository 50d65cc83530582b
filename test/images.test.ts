/** What the Dockerfiles count on. `npm run test:compose` runs them. */
import { readFile } from 'node:fs/promises';
import test from 'ava';

interface LockedPackage { readonly dev?: boolean; readonly os?: readonly string[]; readonly cpu?: readonly string[]; readonly libc?: readonly string[]; readonly hasInstallScript?: boolean }

test('Every dependency that is not JavaScript is there for amd64 and arm64, ready built: the images have no compiler, and run no install scripts.', async (t) => {
  const { packages } = JSON.parse(await readFile('package-lock.json', 'utf8')) as { packages: Readonly<Record<string, LockedPackage>> };
  const used = Object.entries(packages).filter(([path, { dev }]) => path !== '' && dev !== true);
  t.deepEqual(used.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path), []);
  const forGlibc = (wanted: string): string[] => used
    .filter(([, { os, cpu, libc }]) => os?.includes('linux') && cpu?.includes(wanted) && (libc === undefined || libc.includes('glibc')))
    .map(([path]) => path.replace(wanted, 'CPU'));
  t.true(forGlibc('x64').length > 0);
  t.deepEqual(forGlibc('arm64'), forGlibc('x64'));
});
