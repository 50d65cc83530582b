import { execFile } from 'node:child_process';
import { createReadStream } from 'node:fs';
import { promisify } from 'node:util';
import { messageOf, UsageError } from '../../../shared/errors.js';
import { adminUrlFrom, callAdmin, errorOf, isAdminUrl } from '../admin-client.js';
import { findInvalidValue } from './validate-config.js';

/** A configuration of Caddy, and the syntax of its source. */
export interface CaddyConfig {
  /** The parsed JSON. */
  readonly config: unknown;
  readonly syntax: 'caddyfile' | 'json';
}

/** Limits of `caddy adapt`: milliseconds, and bytes of output. */
const adaptMsMax = 30_000;
const adaptBytesMax = 100 * 2 ** 20;

/** Maximum size of a file, in bytes. As in the admin API (`maxConfigSize` in Caddy's admin.go). */
const fileBytesMax = 100 * 2 ** 20;

/** Valid top-level keys of Caddy's JSON (`Config` in Caddy's caddy.go). `@id` is allowed anywhere. */
const topKeys = new Set(['admin', 'logging', 'storage', 'apps', '@id']);

/**
 * Reads a Caddyfile, a JSON file, or the configuration of a running Caddy through its admin API. Throws a `UsageError`
 * with Caddy's own message, if any.
 */
export async function readCaddyConfig(source: string): Promise<CaddyConfig> {
  if (isAdminUrl(source)) return { config: checked(await configOfRunning(source), source), syntax: 'json' };
  const text = await readText(source).catch((error: unknown) => {
    throw new UsageError(
      `Cannot read ${source}: ${messageOf(error)}. Give a Caddyfile, a JSON configuration of Caddy, or the address of its admin API.`,
      { cause: error },
    );
  });
  if (source.endsWith('.json') || /^\s*\{\s*("|\}\s*$)/.test(text))
    return { config: checked(parseJson(text, source), source), syntax: 'json' };
  return { config: checked(await adapt(source), source), syntax: 'caddyfile' };
}

async function readText(file: string): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  // In chunks, since a device may never end.
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > fileBytesMax) throw new Error('it has more than 100 MiB');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

async function configOfRunning(source: string): Promise<unknown> {
  const answer = await callAdmin(adminUrlFrom(source, 'The configuration to check'), '/config/').catch(
    (error: unknown) => {
      throw new UsageError(
        `Cannot read the configuration of Caddy at ${source}: ${messageOf(error)}. Start Caddy, or give a Caddyfile.`,
        { cause: error },
      );
    },
  );
  if (answer.status !== 200) {
    throw new UsageError(
      `Cannot read the configuration of Caddy at ${source}: it answered ${errorOf(answer)}. Give the address of its admin API, and allow this machine to use it.`,
    );
  }
  const config = parseJson(answer.text, source);
  if (config === null)
    throw new UsageError(`Caddy at ${source} runs without a configuration. Load one, or give a Caddyfile.`);
  return config;
}

async function adapt(file: string): Promise<unknown> {
  const run = promisify(execFile)('caddy', ['adapt', '--config', file, '--adapter', 'caddyfile'], {
    timeout: adaptMsMax,
    maxBuffer: adaptBytesMax,
  });
  const { stdout } = await run.catch((error: unknown) => {
    const { code, stderr = '' } = error as { code?: unknown; stderr?: string };
    if (code === 'ENOENT') {
      throw new UsageError(
        `Cannot read the Caddyfile ${file}: caddy is not on the PATH, and only Caddy can read a Caddyfile. Install it; or give the JSON that \`caddy adapt --config ${file}\` prints on another machine; or the address of a running Caddy's admin API, such as http://127.0.0.1:2019.`,
        { cause: error },
      );
    }
    throw new UsageError(`Caddy cannot read ${file}: ${errorIn(stderr) || messageOf(error)}`, { cause: error });
  });
  return parseJson(stdout, file);
}

/** Caddy's `Error:` line, or its last lines if there is none. */
function errorIn(stderr: string): string {
  const lines = stderr.trimEnd().split('\n');
  return lines.findLast((line) => line.startsWith('Error: '))?.slice('Error: '.length) ?? lines.slice(-3).join('\n');
}

function parseJson(text: string, source: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${source} is not JSON: ${messageOf(error)}.`, { cause: error });
  }
}

function checked(config: unknown, source: string): unknown {
  const invalid = findInvalidValue(config);
  if (invalid !== undefined) throw new UsageError(`${source} is not a configuration of Caddy: ${invalid}.`);
  const unknown = Object.keys(config as object).find((key) => !topKeys.has(key));
  if (unknown !== undefined)
    throw new UsageError(
      `${source} is not a configuration of Caddy: it has ${JSON.stringify(unknown)}, but Caddy allows only admin, logging, storage and apps.`,
    );
  return config;
}
