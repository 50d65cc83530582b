/** What the images and the Compose files count on. `npm run test:compose` runs them. */
import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { folderOf } from './program.js';

interface LockedPackage {
  readonly dev?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
  readonly libc?: readonly string[];
  readonly hasInstallScript?: boolean;
}

test('Every dependency that is not JavaScript is there for amd64 and arm64, ready built: the images have no compiler, and run no install scripts.', async (t) => {
  const { packages } = JSON.parse(await readFile('package-lock.json', 'utf8')) as {
    packages: Readonly<Record<string, LockedPackage>>;
  };
  const used = Object.entries(packages).filter(([path, { dev }]) => path !== '' && dev !== true);
  t.deepEqual(
    used.filter(([, { hasInstallScript }]) => hasInstallScript).map(([path]) => path),
    [],
  );
  const forGlibc = (wanted: string): string[] =>
    used
      .filter(
        ([, { os, cpu, libc }]) =>
          os?.includes('linux') && cpu?.includes(wanted) && (libc === undefined || libc.includes('glibc')),
      )
      .map(([path]) => path.replace(wanted, 'CPU'));
  t.true(forGlibc('x64').length > 0);
  t.deepEqual(forGlibc('arm64'), forGlibc('x64'));
});

test('What the images are built from is whole: it imports nothing that .dockerignore keeps out.', async (t) => {
  t.timeout(120_000);
  const rules = (await readFile('.dockerignore', 'utf8')).trim().split('\n').slice(1); // the first keeps everything out
  const admitted = rules.filter((rule) => rule.startsWith('!')).map((rule) => rule.slice(1));
  const keptOut = rules.filter((rule) => !rule.startsWith('!'));
  const place = await folderOf(t);
  const inProject = (path: string): string => join(process.cwd(), path);
  await writeFile(
    join(place, 'tsconfig.json'),
    JSON.stringify({
      extends: inProject('tsconfig.json'),
      compilerOptions: { typeRoots: [inProject('node_modules/@types')] },
      include: admitted.map(inProject),
      exclude: keptOut.map(inProject),
    }),
  );
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['node_modules/typescript/bin/tsc', '--project', place, '--listFilesOnly'],
    { maxBuffer: 10_000_000 },
  );
  const sources = stdout
    .trim()
    .split('\n')
    .map((path) => relative('.', path))
    .filter((path) => !path.startsWith('node_modules/'));
  t.true(sources.includes('cli/main.ts') && sources.includes('shared/store/spool/crc-32.d.ts'), sources.join(' '));
  const isKeptOut = keptOut.map(
    (rule) =>
      new RegExp(
        `^${rule.replaceAll('.', '\\.').replaceAll(/\*\*\/|\*/g, (stars) => (stars === '*' ? '[^/]*' : '(?:.*/)?'))}(?:/|$)`,
      ),
  );
  t.deepEqual(
    sources.filter((path) => !admitted.includes(path.split('/', 1)[0]!) || isKeptOut.some((rule) => rule.test(path))),
    [],
  );
});

test('Every service of the Compose files is hardened by one block, and its log is kept to 3 files of 10 MB.', async (t) => {
  for (const file of ['docker-compose.yml', 'docker-compose.embedded.yml']) {
    const text = await readFile(file, 'utf8');
    const shared = /^x-.*?(?=^services:)/ms.exec(text)![0];
    for (const part of [
      'user: 1000:1000',
      'read_only: true',
      'cap_drop: [ALL]',
      'no-new-privileges:true',
      'driver: json-file',
      "max-size: 10m, max-file: '3'",
    ])
      t.true(shared.includes(part), `${file}: ${part}`);
    const services = [.../^services:$(.*?)^\S/ms.exec(`${text}.`)![1]!.matchAll(/^ {2}([a-z]+):\n {4}(.*)$/gm)].map(
      ([, name, first]) => [name, first],
    );
    t.true(services.length > 1, file);
    t.deepEqual(
      services.filter(([, first]) => first !== '<<: *service' && first !== '<<: *hardened'),
      [],
      file,
    );
    t.notRegex(
      /^services:$(.*)/ms.exec(text)![1]!,
      /^ {4}(user|read_only|security_opt|logging|cap_drop):/m,
      `${file}: no service takes it back`,
    );
  }
});

test('The images and the systemd unit run the collector under a supervisor, and systemd watches that one.', async (t) => {
  t.regex(await readFile('Dockerfile.collector', 'utf8'), /^CMD \["collector", "--restartable"\]$/m);
  t.regex(await readFile('docker-compose.embedded.yml', 'utf8'), /^ {4}command: \[start, --restartable\]$/m);
  t.notRegex(
    /^ {2}collector:$(.*?)^ {2}\S/ms.exec(await readFile('docker-compose.yml', 'utf8'))![1]!,
    /command:/,
    'it has that of the image',
  );
  const unit = await readFile('config/caddy-log-sink.service', 'utf8');
  t.regex(unit, /^ExecStart=.* start --restartable /m);
  t.regex(unit, /^WatchdogSec=\d+$/m);
  t.regex(unit, /^NotifyAccess=all$/m, 'systemd-notify is not the main process');
});
