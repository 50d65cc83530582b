import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { noteMissingPart } from './missing-part.js';
import { freePort } from './ports.js';

/** A Caddyfile, or Caddy's JSON configuration. Leave `admin` out of it: it is used to learn when Caddy serves. */
export type CaddyConfig = string | object;

/** A Caddy that serves. */
export interface RunningCaddy {
  /** The address of its admin API. */
  readonly adminUrl: string;
  /** All that it wrote to standard error so far. */
  readonly stderr: () => string;
  /** Resolves when the new configuration is in force; throws what Caddy says is wrong with it. */
  readonly reload: (config: CaddyConfig) => Promise<void>;
  /** Ends it gracefully and deletes its files. A second call does nothing. */
  readonly stop: () => Promise<void>;
}

const startMsMax = 30_000;
const stopMsMax = 15_000;

/**
 * The lines of a Caddyfile's site that log to an address such as `tcp/127.0.0.1:9514`, as the README has them. `name`
 * is the logger's, where it needs one.
 */
export function logTo(address: string, name = ''): string {
  return `log ${name} {
    output net ${address} {
      dial_timeout 1s
      soft_start
    }
  }`;
}

/**
 * Declares a test that needs Caddy, one after the other; where there is none it is skipped, and the summary of the
 * tests says how to get it.
 */
export const testWithCaddy: (title: string, run: (t: ExecutionContext) => Promise<void>) => void = chooseTest();

/**
 * Starts the `caddy` on the PATH in a temporary home with its admin endpoint on a free port (or the one given), and
 * resolves when it serves. Throws with Caddy's own words when it ends before.
 */
export async function startCaddy(
  config: CaddyConfig,
  { env = {}, adminPort }: { env?: Readonly<Record<string, string>>; adminPort?: number } = {},
): Promise<RunningCaddy> {
  const home = await mkdtemp(join(tmpdir(), 'caddy-'));
  const { body, fileName } = encode(config);
  const file = join(home, fileName);
  await writeFile(file, body);
  const admin = `127.0.0.1:${adminPort ?? (await freePort())}`;
  const adapter = typeof config === 'string' ? ['--adapter', 'caddyfile'] : [];
  const caddy = spawn('caddy', ['run', '--config', file, ...adapter], {
    env: { PATH: process.env.PATH, HOME: home, XDG_CONFIG_HOME: home, XDG_DATA_HOME: home, CADDY_ADMIN: admin, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let written = '';
  caddy.stderr.setEncoding('utf8').on('data', (text: string) => (written += text));
  const ended = once(caddy, 'close');
  const killAtExit = (): void => void caddy.kill('SIGKILL');
  process.once('exit', killAtExit);

  const stop = async (): Promise<void> => {
    caddy.kill('SIGTERM');
    const killer = setTimeout(() => caddy.kill('SIGKILL'), stopMsMax);
    await ended;
    clearTimeout(killer);
    process.off('exit', killAtExit);
    await rm(home, { recursive: true, force: true });
  };

  try {
    await untilServing(admin, () => {
      if (caddy.exitCode === null && caddy.signalCode === null) return;
      throw new Error(
        `Cannot start caddy: it ended with ${caddy.signalCode ?? `status ${caddy.exitCode}`}, and wrote:\n${written}`,
      );
    });
  } catch (error) {
    await stop();
    throw error;
  }

  return {
    adminUrl: `http://${admin}`,
    stderr: () => written,
    stop,
    async reload(next) {
      const { body, contentType } = encode(next);
      const headers = { 'Content-Type': contentType, ...originOf(admin) };
      const response = await fetch(`http://${admin}/load`, { method: 'POST', headers, body });
      if (!response.ok) throw new Error(`Cannot reload caddy: it answered ${response.status} ${await response.text()}`);
    },
  };
}

function chooseTest(): typeof testWithCaddy {
  if (spawnSync('caddy', ['version']).status === 0) return test.serial;
  noteMissingPart('tests with Caddy, which is not on the PATH. Install Caddy 2: https://caddyserver.com/docs/install.');
  return test.skip;
}

/** Caddy takes fetch for a browser, and wants its origin. */
function originOf(admin: string): { Origin: string } {
  return { Origin: `http://${admin}` };
}

function encode(config: CaddyConfig): { body: string; contentType: string; fileName: string } {
  return typeof config === 'string'
    ? { body: config, contentType: 'text/caddyfile', fileName: 'Caddyfile' }
    : { body: JSON.stringify(config), contentType: 'application/json', fileName: 'caddy.json' };
}

/** Caddy answers `/config/` once the configuration that it is loading is in force. */
async function untilServing(admin: string, throwIfEnded: () => void): Promise<void> {
  const deadlineMs = Date.now() + startMsMax;
  for (;;) {
    const answer = await fetch(`http://${admin}/config/`, { headers: originOf(admin) }).then(
      (response) => (response.ok ? response.json() : null),
      () => null,
    );
    if (answer !== null) return;
    throwIfEnded();
    if (Date.now() > deadlineMs)
      throw new Error(`Cannot use caddy: it did not serve on http://${admin}/config/ within ${startMsMax} ms.`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
