/** What the images and the Compose files count on. `npm run test:compose` runs them. */
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

test('Every service of the Compose files is hardened by one block, and its log is kept to 3 files of 10 MB.', async (t) => {
  for (const file of ['docker-compose.yml', 'docker-compose.embedded.yml']) {
    const text = await readFile(file, 'utf8');
    const shared = /^x-.*?(?=^services:)/ms.exec(text)![0];
    for (const part of ['user: 1000:1000', 'read_only: true', 'cap_drop: [ALL]', 'no-new-privileges:true', 'driver: json-file', "max-size: 10m, max-file: '3'"]) t.true(shared.includes(part), `${file}: ${part}`);
    const services = [.../^services:$(.*?)^\S/ms.exec(`${text}.`)![1]!.matchAll(/^ {2}([a-z]+):\n {4}(.*)$/gm)].map(([, name, first]) => [name, first]);
    t.true(services.length > 1, file);
    t.deepEqual(services.filter(([, first]) => first !== '<<: *service' && first !== '<<: *hardened'), [], file);
    t.notRegex(/^services:$(.*)/ms.exec(text)![1]!, /^ {4}(user|read_only|security_opt|logging|cap_drop):/m, `${file}: no service takes it back`);
  }
});
