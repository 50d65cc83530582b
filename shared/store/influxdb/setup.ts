/**
 * Sets up InfluxDB 2.x for Caddy Log Sink: a bucket, and a token with minimal permissions for each part. Existing
 * ones are left alone, so it can run at every start.
 *
 * Tokens are stored in a folder: `operator/token` and `operator/password` (if this was the initial setup of
 * InfluxDB), `collector/token`, `web/token`. Each subfolder can be a separate volume of one container.
 */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { HttpError } from '@influxdata/influxdb-client';
import { StoreError, UsageError } from '../../errors.js';
import type { Log } from '../../log.js';
import { callApi } from './call-api.js';
import { influxdbError } from './influxdb-error.js';
import { openInfluxdbStore } from './influxdb-store.js';
import { readUrl } from './read-url.js';
import { readToken, secret, writeSecret } from './token-files.js';

/** Options of the setup. */
export interface SetupOptions {
  readonly url: string;
  readonly org: string;
  readonly bucket: string;
  /** Operator or all-access token of the organisation. For a fresh InfluxDB, the token to create. */
  readonly token: string | undefined;
  /** Retention of the bucket in milliseconds; 0 for unlimited. */
  readonly retentionMs: number;
  /** The folder for tokens; `undefined` to include new ones in the report. */
  readonly tokensDir: string | undefined;
  /** Creates new tokens for the collector and the web app and deletes those of earlier runs. Default: `false`. */
  readonly newTokens?: boolean;
  /** How long to wait for an InfluxDB that does not respond, in milliseconds. Default: 120,000. */
  readonly waitMsMax?: number;
  readonly log: Log;
}

/** A part of the program, and the permissions of its token. */
interface Part {
  readonly name: 'collector' | 'web';
  readonly who: string;
  readonly actions: readonly ('read' | 'write')[];
}

const parts: readonly Part[] = [
  { name: 'collector', who: "The collector's token", actions: ['write'] },
  { name: 'web', who: "The web app's token", actions: ['read', 'write'] },
];

/** The first user of a fresh InfluxDB. */
const userName = 'admin';
const waitPollMs = 500;
const answerMsMax = 15_000;

/**
 * Sets up InfluxDB; resolves to a report, in lines. Throws a `UsageError` if a setting is missing, and a `StoreError`
 * if InfluxDB rejects a request or does not respond.
 */
export async function setUpInfluxdb(setupOptions: SetupOptions): Promise<string[]> {
  const options = { ...setupOptions, url: readUrl(setupOptions.url) };
  const { url, org } = options;
  const report: string[] = [];
  let changes = 0;
  const say = (isChange: boolean, line: string): void => {
    if (isChange) changes += 1;
    report.push(line);
  };

  const operator = await onboard(options, say);
  const api = createApi(options, operator);
  const orgId = await findOrg(api, options);
  const bucketId = await prepareBucket(api, orgId, options, say);
  for (const part of parts) await prepareToken(api, part, { ...options, orgId, bucketId }, say);
  if (changes === 0) report.push('Nothing was changed.');
  return [`InfluxDB at ${url}, organisation ${JSON.stringify(org)}:`, ...report];
}

type Say = (isChange: boolean, line: string) => void;

/** Sets up a fresh InfluxDB; resolves to the operator token. Waits if InfluxDB does not respond yet. */
async function onboard(options: SetupOptions, say: Say): Promise<string> {
  const { url, org, bucket, retentionMs, tokensDir } = options;
  const fileOf = (name: string): string | undefined =>
    tokensDir === undefined ? undefined : join(tokensDir, 'operator', name);
  const savedToken = await readToken(fileOf('token'));
  if (!(await isFresh(options))) {
    const token = options.token ?? savedToken;
    if (token !== undefined) return token;
    throw new UsageError(
      `The InfluxDB at ${url} has been set up already, and there is no token to go on with: set INFLUXDB_TOKEN or INFLUXDB_TOKEN_FILE to an operator or all-access token of the organisation ${JSON.stringify(org)}.`,
    );
  }
  const token = options.token ?? savedToken ?? secret();
  const password = (await readToken(fileOf('password'))) ?? secret();
  // Save them first: they cannot be recovered later.
  await writeSecret(fileOf('token'), token);
  await writeSecret(fileOf('password'), password);
  await createApi(options, token)('POST', '/api/v2/setup', {
    username: userName,
    password,
    org,
    bucket,
    token,
    retentionPeriodSeconds: seconds(retentionMs),
  });
  say(
    true,
    tokensDir === undefined
      ? `  It was fresh. Its first user is ${userName} with the password ${password}, whose token is ${token}. Save both: they are not shown again.`
      : `  It was fresh. Its first user is ${userName}, whose password and token are in ${join(tokensDir, 'operator')}.`,
  );
  return token;
}

/** Whether InfluxDB has not been set up yet. */
async function isFresh(options: SetupOptions): Promise<boolean> {
  const { url, waitMsMax = 120_000, log } = options;
  const ask = createApi(options, '');
  const endMs = performance.now() + waitMsMax;
  for (let isFirst = true; ; isFirst = false) {
    try {
      return (await ask('GET', '/api/v2/setup'))['allowed'] === true;
    } catch (error) {
      if (!(error instanceof StoreError) || error.action !== 'retry') return false; // InfluxDB Cloud has no such page
      if (performance.now() > endMs) throw error;
      if (isFirst) log.info(`Waiting for the InfluxDB at ${url}. ${error.message}`);
      await sleep(waitPollMs);
    }
  }
}

async function findOrg(api: Api, { url, org }: SetupOptions): Promise<string> {
  const missing = `Cannot find the organisation ${JSON.stringify(org)} at ${url}: create it, or set INFLUXDB_ORG to one that the token can read.`;
  const { orgs } = (await api('GET', `/api/v2/orgs?${new URLSearchParams({ org }).toString()}`).catch(
    (error: unknown) => {
      throw error instanceof NotFound ? new StoreError('hold', missing) : error;
    },
  )) as { orgs?: readonly { id: string }[] };
  if (orgs?.[0] === undefined) throw new StoreError('hold', missing);
  return orgs[0].id;
}

interface RetentionRule {
  readonly type: string;
  readonly everySeconds: number;
}

/** Creates the bucket, or extends its retention if it is too short. Never shortens it, which would delete data. */
async function prepareBucket(
  api: Api,
  orgID: string,
  { bucket: name, retentionMs }: SetupOptions,
  say: Say,
): Promise<string> {
  const wantedSeconds = seconds(retentionMs);
  const retentionRules = wantedSeconds === 0 ? [] : [{ type: 'expire', everySeconds: wantedSeconds }];
  const found = (await api('GET', `/api/v2/buckets?${new URLSearchParams({ orgID, name }).toString()}`).catch(
    (error: unknown) => {
      if (error instanceof NotFound) return {};
      throw error;
    },
  )) as { buckets?: readonly { id: string; retentionRules: readonly RetentionRule[] }[] };
  const bucket = found.buckets?.[0];
  const shown = `  Bucket ${JSON.stringify(name)}`;
  if (bucket === undefined) {
    const { id } = (await api('POST', '/api/v2/buckets', { orgID, name, retentionRules })) as { id: string };
    say(true, `${shown}: created, with a retention of ${days(wantedSeconds)}.`);
    return id;
  }
  const currentSeconds = bucket.retentionRules.find(({ type }) => type === 'expire')?.everySeconds ?? 0;
  if (currentSeconds !== 0 && (wantedSeconds === 0 || currentSeconds < wantedSeconds)) {
    await api('PATCH', `/api/v2/buckets/${bucket.id}`, { retentionRules });
    say(true, `${shown}: retention extended from ${days(currentSeconds)} to ${days(wantedSeconds)}.`);
  } else {
    say(
      false,
      `${shown}: exists, with a retention of ${days(currentSeconds)}${currentSeconds === wantedSeconds ? '' : `, which is longer than RETENTION_ROLLUPS (${days(wantedSeconds)}) and is left unchanged`}.`,
    );
  }
  return bucket.id;
}

interface Authorization {
  readonly id: string;
  readonly token?: string;
  readonly description?: string;
  readonly status: string;
  readonly permissions: readonly { action: string; resource: { type: string; id?: string } }[];
}

/** Keeps a working token, reuses one of an earlier run, or creates one. */
async function prepareToken(
  api: Api,
  { name, who, actions }: Part,
  options: SetupOptions & { orgId: string; bucketId: string },
  say: Say,
): Promise<void> {
  const { orgId: orgID, bucketId, bucket, tokensDir, newTokens = false } = options;
  const shown = `  ${who} (${actions.join(' and ')}, this bucket only)`;
  const file = tokensDir === undefined ? undefined : join(tokensDir, name, 'token');
  const savedToken = newTokens ? undefined : await readToken(file);
  if (file !== undefined && savedToken !== undefined && (await works(options, savedToken, actions))) {
    say(false, `${shown}: ${file} has a working one.`);
    return;
  }
  const description = `Caddy Log Sink: ${name}, bucket ${bucket}`;
  const { authorizations } = (await api(
    'GET',
    `/api/v2/authorizations?${new URLSearchParams({ orgID }).toString()}`,
  )) as { authorizations: readonly Authorization[] };
  const made = authorizations.filter((each) => each.description === description && isFor(each, bucketId, actions));
  const earlier = newTokens ? undefined : made.find(({ status }) => status === 'active');
  if (file === undefined && earlier !== undefined) {
    say(false, `${shown}: created earlier, and only shown then. --new-tokens replaces it.`);
    return;
  }
  const permissions = actions.map((action) => ({ action, resource: { type: 'buckets', orgID, id: bucketId } }));
  // InfluxDB Cloud only returns the text of a token when it is created.
  const reusable =
    earlier?.token !== undefined && (await works(options, earlier.token, actions)) ? earlier.token : undefined;
  const token =
    reusable ??
    ((await api('POST', '/api/v2/authorizations', { orgID, description, permissions })) as { token: string }).token;
  await writeSecret(file, token);
  // Last: the old one works until the new one is saved.
  if (newTokens) for (const { id } of made) await api('DELETE', `/api/v2/authorizations/${id}`);
  say(
    true,
    file === undefined
      ? `${shown}: ${token}`
      : `${shown}: ${reusable === undefined ? 'made' : 'found'}, and written to ${file}.`,
  );
}

function isFor({ permissions }: Authorization, bucketId: string, actions: Part['actions']): boolean {
  const allowed = permissions
    .filter(({ resource }) => resource.type === 'buckets' && resource.id === bucketId)
    .map(({ action }) => action);
  return permissions.length === actions.length && actions.every((action) => allowed.includes(action));
}

/** Whether a token has the permissions of its part. Throws if InfluxDB does not respond. */
async function works(
  { url, org, bucket, log }: SetupOptions,
  token: string,
  actions: Part['actions'],
): Promise<boolean> {
  try {
    const store = await openInfluxdbStore({ url, org, bucket, token, spoolDir: '', spoolBytesMax: 0 }, { log });
    try {
      await store.pingToWrite();
      if (actions.includes('read')) await store.ping();
    } finally {
      await store.close();
    }
    return true;
  } catch (error) {
    if (error instanceof UsageError || (error instanceof StoreError && error.action === 'hold')) return false;
    throw error;
  }
}

/** Calls InfluxDB's API; resolves to the JSON of the response. */
type Api = (method: string, path: string, body?: object) => Promise<Readonly<Record<string, unknown>>>;

class NotFound extends StoreError {}

function createApi({ url, org, bucket }: SetupOptions, token: string): Api {
  return async (method, path, body) => {
    const action = `${method} ${path.split('?', 1)[0]!}`;
    try {
      return await callApi({ url, token }, method, path, { body, signal: AbortSignal.timeout(answerMsMax) });
    } catch (error) {
      const status = error instanceof HttpError ? error.statusCode : undefined;
      if (token !== '' && (status === 401 || status === 403)) {
        throw new StoreError(
          'hold',
          `Cannot ${action} at ${url}: InfluxDB answered ${status}. INFLUXDB_TOKEN has to be a token that may do everything in the organisation ${JSON.stringify(org)} (an operator's or an all-access one); this one is ${status === 401 ? 'wrong, or no longer valid' : 'not allowed to do this'}.`,
        );
      }
      if (status === 404) throw new NotFound('hold', `Cannot ${action} at ${url}: InfluxDB answered 404.`);
      throw influxdbError(action, error, { url, org, bucket, token });
    }
  };
}

function seconds(durationMs: number): number {
  return Math.ceil(durationMs / 1000);
}

function days(durationSeconds: number): string {
  return durationSeconds === 0 ? 'unlimited length' : `${+(durationSeconds / 86_400).toFixed(1)} days`;
}
