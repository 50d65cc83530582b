/**
 * The real InfluxDB for tests and benchmarks: `influxd` from the PATH, on a port and in a folder of its own; or the one
 * that `INFLUXDB_URL`, `INFLUXDB_ORG` and `INFLUXDB_TOKEN` name, whose token has to be allowed to create buckets.
 *
 * Tests only ever touch buckets that they made. `INFLUXDB_BUCKET` is what the names of these start with, so a bucket
 * that somebody uses is never written to.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../shared/log.js';
import { freePort } from './ports.js';

/** A running InfluxDB with an empty bucket. */
export interface Influxd {
  /** Such as `http://127.0.0.1:41234`. */
  readonly url: string;
  readonly org: string;
  /** A bucket of this start alone. */
  readonly bucket: string;
  /** May do everything in `org`. */
  readonly token: string;
  /** Makes another empty bucket and gives its name. */
  createBucket(): Promise<string>;
  /** Makes a token that may only do this with a bucket. */
  createToken(bucket: string, actions: readonly ('read' | 'write')[]): Promise<string>;
  /** Sets how long a bucket keeps its points, in seconds; 0 is for ever. */
  setRetention(bucket: string, seconds: number): Promise<void>;
  /** Removes a bucket with all that is in it. */
  deleteBucket(bucket: string): Promise<void>;
  /** Ends the server gracefully and removes its data; of a server that is not ours, only the buckets. */
  stop(): Promise<void>;
  /** Ends the server at once (SIGKILL) and keeps its data. Throws when the server is not ours. */
  kill(): Promise<void>;
  /** Starts the server again after `kill`, at the same address. Throws when the server is not ours. */
  restart(): Promise<void>;
  /** Stops the server in its tracks, or lets it go on. Throws when the server is not ours. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void;
}

const startMsMax = 60_000;

/**
 * Starts InfluxDB, with further arguments where it is one of its own, or finds the one that `INFLUXDB_URL` names.
 * Throws an `Error` that says what is missing.
 */
export async function startInfluxd(
  env: NodeJS.ProcessEnv = process.env,
  { args = [] }: { args?: readonly string[] } = {},
): Promise<Influxd> {
  return env['INFLUXDB_URL'] === undefined ? await startOwn(args) : await findExisting(env['INFLUXDB_URL'], env);
}

async function startOwn(args: readonly string[]): Promise<Influxd> {
  const directory = await mkdtemp(join(tmpdir(), 'caddy-log-sink-influxd-'));
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  let server = await launchInfluxd(directory, port, args);
  process.once('exit', () => {
    server.kill('SIGKILL');
    rmSync(directory, { recursive: true, force: true });
  });
  const org = 'test-org';
  const setup = await call(url, undefined, 'POST', '/api/v2/setup', {
    username: 'test',
    password: randomBytes(12).toString('hex'),
    org,
    bucket: 'first',
  });
  const { token } = setup['auth'] as { token: string };
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (server.exitCode !== null || server.signalCode !== null) return;
    const ended = once(server, 'exit');
    server.kill(signal);
    await ended;
  };
  return {
    ...(await withBuckets({ url, org, token, bucketPrefix: 'test' })),
    stop: async () => {
      await end('SIGTERM');
      await rm(directory, { recursive: true, force: true });
    },
    kill: () => end('SIGKILL'),
    signal: (signal) => {
      server.kill(signal);
    },
    restart: async () => {
      await end('SIGTERM');
      server = await launchInfluxd(directory, port, args);
    },
  };
}

async function findExisting(url: string, env: NodeJS.ProcessEnv): Promise<Influxd> {
  const { INFLUXDB_ORG: org, INFLUXDB_TOKEN: token } = env;
  if (!org || !token)
    throw new Error('INFLUXDB_URL is set, but INFLUXDB_ORG or INFLUXDB_TOKEN is not: set both, or none of the three.');
  const notOurs = (): Promise<never> =>
    Promise.reject(
      new Error(`The InfluxDB at INFLUXDB_URL was not started by the test: unset INFLUXDB_URL to run it.`),
    );
  const made: string[] = [];
  const buckets = await withBuckets({ url, org, token, bucketPrefix: env['INFLUXDB_BUCKET'] ?? 'test', made });
  return {
    ...buckets,
    stop: async () => {
      for (const bucket of made) await buckets.deleteBucket(bucket);
    },
    kill: notOurs,
    restart: notOurs,
    signal: () => {
      throw new Error('The InfluxDB at INFLUXDB_URL was not started by the test.');
    },
  };
}

type Buckets = Omit<Influxd, 'stop' | 'kill' | 'restart' | 'signal'>;

async function withBuckets({
  url,
  org,
  token,
  bucketPrefix,
  made = [],
}: {
  url: string;
  org: string;
  token: string;
  bucketPrefix: string;
  made?: string[];
}): Promise<Buckets> {
  const { orgs } = (await call(url, token, 'GET', `/api/v2/orgs?org=${encodeURIComponent(org)}`)) as {
    orgs: { id: string }[];
  };
  const orgID = orgs[0]!.id;
  const ids = new Map<string, string>();
  const createBucket = async (): Promise<string> => {
    const name = `${bucketPrefix}-${randomBytes(6).toString('hex')}`;
    const { id } = (await call(url, token, 'POST', '/api/v2/buckets', { orgID, name, retentionRules: [] })) as {
      id: string;
    };
    ids.set(name, id);
    made.push(name);
    return name;
  };
  return {
    url,
    org,
    token,
    bucket: await createBucket(),
    createBucket,
    createToken: async (bucket, actions) => {
      const permissions = actions.map((action) => ({
        action,
        resource: { type: 'buckets', orgID, id: ids.get(bucket) },
      }));
      const answer = (await call(url, token, 'POST', '/api/v2/authorizations', { orgID, permissions })) as {
        token: string;
      };
      return answer.token;
    },
    setRetention: async (bucket, seconds) => {
      const retentionRules = [{ type: 'expire', everySeconds: seconds, shardGroupDurationSeconds: 3600 }];
      await call(url, token, 'PATCH', `/api/v2/buckets/${ids.get(bucket)}`, { retentionRules });
    },
    deleteBucket: async (bucket) => {
      const id = ids.get(bucket);
      if (id === undefined) return;
      ids.delete(bucket);
      await call(url, token, 'DELETE', `/api/v2/buckets/${id}`);
    },
  };
}

/** Starts the process and waits until it answers. */
export async function launchInfluxd(
  directory: string,
  port: number,
  args: readonly string[] = [],
): Promise<ChildProcess> {
  const server = spawn(
    'influxd',
    [
      '--http-bind-address',
      `127.0.0.1:${port}`,
      '--bolt-path',
      join(directory, 'influxd.bolt'),
      '--engine-path',
      join(directory, 'engine'),
      '--sqlite-path',
      join(directory, 'influxd.sqlite'),
      '--reporting-disabled',
      '--log-level',
      'error',
      ...args,
    ],
    // Neither settings nor a configuration file of this machine's own InfluxDB.
    {
      env: { PATH: process.env['PATH'], HOME: directory, INFLUXD_CONFIG_PATH: directory },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let said = '';
  const listen = (text: Buffer): void => {
    said = (said + text.toString()).slice(-4000);
  };
  server.stdout.on('data', listen);
  server.stderr.on('data', listen);
  let failure: Error | undefined;
  server.once('error', (error) => {
    failure = error;
  });
  const giveUpMs = Date.now() + startMsMax;
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(2000) }).catch(
      () => undefined,
    );
    if (answer?.ok) return server;
    if (failure || server.exitCode !== null || Date.now() > giveUpMs) {
      server.kill('SIGKILL');
      throw new Error(
        `influxd did not start on port ${port}: ${failure?.message ?? `exit status ${server.exitCode}`}. It said: ${said}`,
      );
    }
    await delay(50);
  }
}

async function call(
  url: string,
  token: string | undefined,
  method: string,
  path: string,
  body?: object,
): Promise<Record<string, unknown>> {
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...(token !== undefined && { authorization: `Token ${token}` }) },
    ...(body && { body: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path} on the test's InfluxDB gave ${answer.status}: ${text}`);
  return text === '' ? {} : (JSON.parse(text) as Record<string, unknown>);
}

/** A log that nobody reads. */
export const quietLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

/** Where a store of a test keeps its spool and its dead letters. */
export function spoolOfTest(): { readonly spoolDir: string; readonly spoolBytesMax: number } {
  return { spoolDir: mkdtempSync(join(tmpdir(), 'spool-')), spoolBytesMax: 2 ** 26 };
}
