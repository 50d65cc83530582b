import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import type { LedgerJson } from '../shared/store/ledger-json.js';
import { freePorts } from './ports.js';
import { until } from './until.js';

/** The built program as a process of its own, in an empty folder. */
export interface RunningProgram {
  readonly pid: number;
  readonly stdout: () => string;
  readonly stderr: () => string;
  /** Reads no more of its standard output and error, as `| head` does. */
  readonly hangUp: () => void;
  /** Sends a signal and resolves to the exit status, or to the signal that ended it. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<number | NodeJS.Signals>;
  /** Resolves when it has ended. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

const programPath = fileURLToPath(new URL('../../bin/caddy-log-sink.js', import.meta.url));

/** The program, with the options of Node that its first line has it started with. */
export const programCommand = [
  ...readFileSync(programPath, 'utf8')
    .split('\n', 1)[0]!
    .split(' ')
    .filter((part) => part.startsWith('--')),
  programPath,
];

const running = new Set<ChildProcess>();
process.once('exit', () => {
  for (const program of running) program.kill('SIGKILL');
});

/**
 * Runs `caddy-log-sink ARGUMENTS` with exactly these settings. `cwd` is a temporary folder of its own unless given, and
 * is removed when the program has ended. `program` is another file to run. Standard input is empty unless `stdin` is
 * given; a stream is passed on until it ends.
 */
export async function runProgram(
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
  options: { cwd?: string; stdin?: Buffer | Readable; program?: string } = {},
): Promise<RunningProgram> {
  const cwd = options.cwd ?? (await temporaryFolder());
  const program = spawn(process.execPath, [...programCommand.slice(0, -1), options.program ?? programPath, ...args], {
    cwd,
    env: { PATH: process.env['PATH'], HOME: cwd, ...settings },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  program.stdin.on('error', () => undefined); // it may end before it has read all
  if (options.stdin instanceof Readable) options.stdin.pipe(program.stdin);
  else program.stdin.end(options.stdin);
  let stdout = '';
  let stderr = '';
  program.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  program.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  running.add(program);
  const ended = once(program, 'close').then(async ([status, signal]) => {
    running.delete(program);
    if (options.cwd === undefined) await rm(cwd, { recursive: true, force: true });
    return (status ?? signal) as number | NodeJS.Signals;
  });
  return {
    pid: program.pid!,
    stdout: () => stdout,
    stderr: () => stderr,
    hangUp() {
      program.stdout.destroy();
      program.stderr.destroy();
    },
    ended,
    async stop(signal = 'SIGTERM') {
      program.kill(signal);
      return await ended;
    },
  };
}

/**
 * Runs a program that serves, and resolves when every URL answers with 200. Throws with its own words when it ends
 * before.
 */
export async function startProgram(
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
  urls: readonly string[],
  options: { cwd?: string; program?: string } = {},
): Promise<RunningProgram> {
  const program = await runProgram(args, settings, options);
  let over = false;
  void program.ended.then(() => {
    over = true;
  });
  await until(`${args.join(' ')} is ready`, async () => {
    if (over) throw new Error(`It ended, and wrote:\n${program.stderr()}`);
    return (
      await Promise.all(
        urls.map((url) =>
          fetch(url).then(
            ({ ok }) => ok,
            () => false,
          ),
        ),
      )
    ).every((ok) => ok);
  });
  return program;
}

/**
 * Starts the whole program over a DuckDB file on free ports. `path` is relative to `cwd`; default: a file in a folder
 * of its own.
 */
export async function startOverDuckdb(
  path = 'requests.duckdb',
  options: { cwd?: string } = {},
): Promise<RunningProgram & { readonly port: number; readonly http: number; readonly web: number }> {
  const [port, http, web] = (await freePorts(3)) as [number, number, number];
  const program = await startProgram(
    ['start'],
    {
      STORE: `duckdb:${path}`,
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
      WEB_LISTEN: `127.0.0.1:${web}`,
    },
    [`http://127.0.0.1:${http}/health`, `http://127.0.0.1:${web}/health`],
    options,
  );
  return { ...program, port, http, web };
}

/** What the collector at a port of this machine, `COLLECTOR_HTTP`, says of its lines. */
export async function readLedger(port: number): Promise<LedgerJson> {
  const { collectors } = (await (await fetch(`http://127.0.0.1:${port}/ledger`)).json()) as {
    collectors: Record<string, LedgerJson>;
  };
  return Object.values(collectors)[0]!;
}

/** An empty folder. */
export function temporaryFolder(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
}

/** An empty folder that goes with the test. */
export async function folderOf(t: ExecutionContext): Promise<string> {
  const folder = await temporaryFolder();
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
