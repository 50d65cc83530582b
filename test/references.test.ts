/**
 * What the documentation names in passing is there: files, pages and their headings, npm scripts, options, services,
 * settings.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import test from 'ava';
import { collectorSettings } from '../collector/config.js';
import { logSettings } from '../shared/log.js';
import { readSettings, type SettingTable } from '../shared/settings/settings.js';
import { storeSettings } from '../shared/settings/store-settings.js';
import { webSettings } from '../web/config.js';
import { runProgram } from './program.js';

const settings: SettingTable = { ...collectorSettings, ...webSettings, ...storeSettings, ...logSettings };
const paths = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'CHANGELOG.md',
  ...pagesIn('docs'),
  ...pagesIn('docs/decisions'),
];
const pages = paths.map((path) => ({ path, text: readFileSync(path, 'utf8') }));
/** Code in a line, with the page that it is on. Decisions tell of what has been, too. */
const codes = pages
  .filter(({ path }) => !path.startsWith('docs/decisions/'))
  .flatMap(({ path, text }) =>
    [...text.replaceAll(/^```.*?^```/gms, '').matchAll(/`([^`\n]+)`/g)].map(([, code]) => ({ path, code: code! })),
  );
const composeFiles = ['docker-compose.yml', 'docker-compose.embedded.yml']
  .map((path) => readFileSync(path, 'utf8'))
  .join('\n');

test('Every link within the project leads to a file, and to a heading that it has.', (t) => {
  const links = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/(?:\]\(|srcset="|src=")([^)"\s]+)/g)].map(([, target]) => ({ path, target: target! })),
  );
  const inside = links.filter(({ target }) => !/^[a-z]+:/.test(target));
  t.true(inside.length > 50, `${inside.length} links`);
  const lost = inside.filter(({ path, target }) => {
    const [file, anchor] = target.split('#') as [string, string | undefined];
    const place = file === '' ? path : normalize(join(dirname(path), file));
    return !existsSync(place) || (anchor !== undefined && !anchorsOf(place).includes(anchor));
  });
  t.deepEqual(lost, []);
});

test('Every npm script that is named is one, and every script is named somewhere.', (t) => {
  const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: Readonly<Record<string, string>> };
  const named = new Set(
    pages.flatMap(({ text }) =>
      [...text.matchAll(/npm (?:run )?([a-z:]+)(?=[\s`.,);]|$)/gm)]
        .filter(([whole, name]) => whole.startsWith('npm run ') || ['start', 'test'].includes(name!))
        .map(([, name]) => name!),
    ),
  );
  t.deepEqual(
    [...named].filter((name) => scripts[name] === undefined),
    [],
  );
  const own = Object.keys(scripts).filter((name) => !/^(pre|clean$)/.test(name));
  t.deepEqual(
    own.filter((name) => !named.has(name)),
    [],
  );
});

test('Everything starts the program by its first line, which alone has the options of Node.', (t) => {
  t.regex(readFileSync('bin/caddy-log-sink.js', 'utf8'), /^#!\/usr\/bin\/env -S node --\S+ --\n/);
  const starts = ['package.json', 'Dockerfile.collector', 'Dockerfile.web'].flatMap((path) =>
    [
      ...readFileSync(path, 'utf8')
        .replaceAll('", "', ' ')
        .matchAll(/(\S+ )?\S*bin\/caddy-log-sink\.js(?= \w|"\])/g),
    ].map(([, before]) => before?.trim()),
  );
  t.is(starts.length, 9);
  t.deepEqual(
    new Set(starts),
    new Set(['"start":', '"collector":', '"web":', '"demo":', '"import":', '"check":', '"setup":', '--']),
  );
});

test('Every option that is named is in the help of the command that it is named with.', async (t) => {
  const helps = new Map<string, string>();
  for (const command of ['start', 'collector', 'web', 'demo', 'import', 'check', 'setup']) {
    const program = await runProgram([command, '--help'], {});
    t.is(await program.ended, 0);
    helps.set(command, program.stdout());
  }
  const has = (help: string, option: string): boolean => new RegExp(`${option}(?![a-z-])`).test(help);
  // In blocks and in lines.
  const withCommand = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/npm (?:run )?(start|collector|web|demo|import|check|setup) -- ([^`\n]*)/g)].map(
      ([, command, rest]) => ({ path, command: command!, options: rest!.match(/(?<= |^)--[a-z-]+/g) ?? [] }),
    ),
  );
  t.true(withCommand.some(({ options }) => options.length > 0));
  t.deepEqual(
    withCommand.filter(({ command, options }) => options.some((option) => !has(helps.get(command)!, option))),
    [],
  );
  const ofOthers = new Set(['--volumes', '--file', '--persist', '--restore', '--keep-last', '--help']); // of docker compose, of goaccess; of all
  const alone = codes
    .map(({ path, code }) => ({ path, option: /^--[a-z-]+/.exec(code)?.[0] }))
    .filter(({ option }) => option !== undefined && !ofOthers.has(option));
  t.true(alone.length > 10);
  t.deepEqual(
    alone.filter(({ option }) => ![...helps.values()].some((help) => has(help, option!))),
    [],
  );
});

test('Every file and folder of the project that is named is there.', (t) => {
  const roots = readdirSync('.').filter((name) => !/^(data|dist|node_modules)$/.test(name));
  const named = codes.filter(
    ({ code }) =>
      /^\w[\w.*/-]+$/.test(code) &&
      (/\.(md|ts|yml|json|service|example)$/.test(code) || (code.includes('/') && roots.includes(code.split('/')[0]!))),
  );
  t.true(named.length > 20, `${named.length} names`);
  const madeByUsers = new Set(['docker-compose.override.yml', 'caddy.json']);
  t.deepEqual(
    named.filter(({ code }) => !madeByUsers.has(code) && !existsSync(code.replace(/^dist\/(.*)\.js$/, '$1.ts'))),
    [],
  );
});

test('Every service that a line of Docker Compose names is one of the Compose file.', (t) => {
  const services = [...composeFiles.matchAll(/^ {2}([a-z]+):\n {4}(?:<<|build|image)/gm)].map(([, name]) => name!);
  const lines = codes.filter(({ code }) => code.startsWith('docker compose '));
  t.true(lines.length > 8);
  const lost = lines.flatMap(({ path, code }) => {
    const [, command, rest] = /^docker compose (?:--file \S+ )?([a-z]+) ?([^|]*)/.exec(code)!;
    const words = rest!
      .replaceAll(/--(entrypoint|env) \S+/g, '')
      .split(' ')
      .filter((word) => word !== '' && !word.startsWith('-'));
    return (command === 'run' || command === 'exec' ? words.slice(0, 1) : words)
      .filter((word) => !services.includes(word))
      .map((word) => ({ path, code, word }));
  });
  t.deepEqual(lost, []);
});

test('Every setting that is named is one of the program or of the Compose files, and every value is one that it takes.', (t) => {
  const others = new Set(['BACKUP', 'UPDATE_GOLDEN', 'DOCKER', 'SITE']);
  const named = codes.flatMap(({ path, code }) => {
    const [, name, value] = /^([A-Z]+(?:_[A-Z]+)+|STORE|SITE)(?:=(\S*))?$/.exec(code) ?? [];
    return name === undefined ? [] : [{ path, name, value }];
  });
  t.true(named.length > 80, `${named.length} names`);
  t.deepEqual(
    named.filter(
      ({ name }) => settings[name] === undefined && !others.has(name) && !composeFiles.includes(`\${${name}:-`),
    ),
    [],
  );
  // As do the settings in blocks.
  const inBlocks = pages.flatMap(({ path, text }) =>
    [...text.matchAll(/^```ini\n(.*?)^```/gms)].flatMap(([, block]) =>
      [...block!.matchAll(/^([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => ({ path, name: name!, value })),
    ),
  );
  t.true(inBlocks.length > 1);
  for (const { path, name, value } of [...named, ...inBlocks]) {
    if (value === undefined || value.includes('…') || settings[name] === undefined) continue;
    t.notThrows(() => readSettings({ [name]: settings[name]! }, { [name]: value }), `${path}: ${name}=${value}`);
  }
});

function pagesIn(folder: string): string[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.md'))
    .map((file) => join(folder, file));
}

/** The anchors of a page's headings, as GitHub makes them. */
function anchorsOf(path: string): string[] {
  return [...readFileSync(path, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    heading!
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replaceAll(' ', '-'),
  );
}
