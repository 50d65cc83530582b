/**
 * `npm run dev`: the dashboard over generated traffic, which follows every change of TypeScript, Pug and SCSS. Does not
 * check types: that takes longer than anybody waits for a page. An open page with `refresh=1` reloads itself.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, watch } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { compileAsync } from 'sass';
import ts from 'typescript';
import { startLive } from '../demo/live.js';
import { createTraffic } from '../demo/traffic.js';
import { messageOf } from '../shared/errors.js';
import { createLog } from '../shared/log.js';

const programPath = fileURLToPath(new URL('../../bin/caddy-log-sink.js', import.meta.url));
const data = 'data/dev';
const collector = { host: '127.0.0.1', port: 9514 };
const sources = ['cli', 'collector', 'demo', 'shared', 'web', 'styles'];
/** Editors write a file in several steps. It is compiled once it has been quiet for this long, in milliseconds. */
const quietMs = 50;
/** How long the program may take to listen, in milliseconds. A program with an error never does. */
const startMsMax = 10_000;

const log = createLog('dev');
let program: ChildProcess | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    program?.kill(signal);
    process.exit(0);
  });
}

if (!existsSync(`${data}/requests.duckdb`)) await seed();
let live = await start();
const changed = new Set<string>();
let timer: NodeJS.Timeout | undefined;
let working = Promise.resolve();
for (const folder of sources) {
  watch(folder, { recursive: true }, (_event, file) => {
    if (file === null || !/(?<!\.test|\.d)\.ts$|\.scss$/.test(file)) return;
    changed.add(join(folder, file));
    clearTimeout(timer);
    timer = setTimeout(() => {
      working = working.then(follow).catch((error: unknown) => {
        log.error(messageOf(error));
      });
    }, quietMs);
  });
}

/** Compiles what has changed, and restarts the program if it runs that. It watches its templates and assets itself. */
async function follow(): Promise<void> {
  const paths = [...changed].filter((path) => existsSync(path));
  changed.clear();
  await Promise.all(paths.map(compile));
  if (!paths.some((path) => path.endsWith('.ts') && !path.startsWith('web/client/'))) return;
  await live?.stop();
  await stop();
  live = await start();
}

async function compile(path: string): Promise<void> {
  if (path.endsWith('.scss')) {
    await writeFile('dist/public/main.css', (await compileAsync('styles/main.scss', { style: 'compressed' })).css);
    return;
  }
  const isOfClient = path.startsWith('web/client/');
  const output = isOfClient ? join('dist/public', path.slice('web/client/'.length)) : join('dist', path);
  const { outputText } = ts.transpileModule(await readFile(path, 'utf8'), {
    compilerOptions: {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.ESNext,
      verbatimModuleSyntax: !isOfClient,
    },
  });
  await mkdir(dirname(output), { recursive: true });
  await writeFile(output.replace(/\.ts$/, '.js'), outputText);
}

/** Generates a day of traffic, once. */
async function seed(): Promise<void> {
  const demo = run(['demo', '--dir', data], 'pipe');
  let printed = '';
  for await (const chunk of demo.stdout! as AsyncIterable<Buffer>) {
    process.stdout.write(chunk);
    printed += chunk.toString();
    if (printed.includes('Ctrl+C ends the demo')) demo.kill('SIGINT');
  }
}

/** Starts the program, and sends it generated log lines. Resolves to `undefined` if it does not listen. */
async function start(): Promise<{ stop(): Promise<void> } | undefined> {
  program = run(['start']);
  const startMs = Date.now();
  const traffic = createTraffic({ seed: 1, requestsPerDay: 100_000, startMs });
  while (program.exitCode === null && Date.now() - startMs < startMsMax) {
    try {
      return await startLive({ traffic, startMs, collector, appRecorder: { record: () => true }, log });
    } catch {
      await sleep(20); // it does not listen yet
    }
  }
  log.error('The program does not listen. It is started again after the next change.');
  return undefined;
}

async function stop(): Promise<void> {
  if (program?.exitCode !== null) return;
  const ended = once(program, 'exit');
  program.kill('SIGTERM');
  await ended;
}

function run(args: readonly string[], stdout: 'inherit' | 'pipe' = 'inherit'): ChildProcess {
  const env = { ...process.env, NODE_ENV: 'development', STORE: `duckdb:${data}/requests.duckdb` };
  return spawn(programPath, args, { env, stdio: ['ignore', stdout, 'inherit'] });
}
