import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf, UsageError } from '../shared/errors.js';
import { count, readSettings, type Address } from '../shared/settings/settings.js';

/** Options of the demo. */
export interface DemoOptions {
  /** Seed of the random requests. */
  readonly seed: number;
  /** Average number of requests to Caddy per day. */
  readonly requestsPerDay: number;
  /** Folder of the store; `undefined` for a temporary one. */
  readonly dir: string | undefined;
}

const table = {
  '--seed': count('', { default: '1', min: 0, max: 2 ** 32 - 1 }),
  '--requests': count('', { default: '100000', min: 1000, max: 1_000_000 }),
};

/** Options from the command line. */
export interface DemoArguments {
  readonly seed?: string;
  readonly requests?: string;
  readonly dir?: string;
}

/** Parses the options. Throws a `UsageError`. */
export function demoOptionsFrom({ seed, requests, dir }: DemoArguments): DemoOptions {
  const textOf = (option: string | undefined): string | undefined => (option === '' ? '""' : option);
  const values = readSettings(table, { '--seed': textOf(seed), '--requests': textOf(requests) });
  if (dir === '') throw new UsageError('--dir is empty: it must be a new or an empty folder.');
  return { seed: values['--seed'], requestsPerDay: values['--requests'], dir };
}

/**
 * Creates the demo's folder. Without a name, creates a temporary one that is removed when the process exits. Throws a
 * `UsageError` if the folder is not empty.
 */
export function makeFolder(dir: string | undefined): string {
  if (dir === undefined) {
    const folder = mkdtempSync(join(tmpdir(), 'caddy-log-sink-demo-'));
    process.once('exit', () => {
      rmSync(folder, { recursive: true, force: true });
    });
    return folder;
  }
  let names: readonly string[];
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    names = readdirSync(dir);
  } catch (error) {
    throw new UsageError(
      `--dir is ${JSON.stringify(dir)}: it must be a new or an empty folder (${messageOf(error)}).`,
      { cause: error },
    );
  }
  if (names.length > 0)
    throw new UsageError(
      `--dir is ${JSON.stringify(dir)}: it must be a new or an empty folder, but it contains ${names[0]!}. To open the store of an earlier demo: STORE=duckdb:${join(dir, storeFile)} npm start.`,
    );
  return dir;
}

/** The store's file in the demo's folder. */
export const storeFile = 'requests.duckdb';

/** Resolves to the address, or to one with port 0 (any free port) if the port is not available. */
export function orFreePort({ host, port }: Address): Promise<Address> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve({ host, port: 0 });
    });
    server.listen(port, host, () => {
      server.close(() => {
        resolve({ host, port });
      });
    });
  });
}
