/**
 * Requests that a store refused for good, in files of line protocol by day, each under a comment that says when and
 * why. They can be read, imported again with `import`, and written with `influx write`. A line break inside a text
 * becomes a space: a line is one line.
 */
import { appendFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileAdvice, messageOf, StoreError } from '../errors.js';
import type { Log } from '../log.js';
import { makeFolder } from '../make-folder.js';

/** A line that was refused, and why. */
export interface RefusedLine {
  readonly line: string;
  readonly reason: string;
}

/** Keeps lines. */
export interface DeadLetters {
  /** Appends lines to the day's file. Throws a `StoreError` ('retry') when the disk does not take them. */
  keep(refused: readonly RefusedLine[]): Promise<void>;
}

/** What all files may take together, in bytes: further lines are counted and logged alone. */
const bytesMaxDefault = 256 * 2 ** 20;

/** Keeps dead letters of a store, which is called `by`, in a folder, which is made with the first of them. */
export function createDeadLetters({
  dir,
  by,
  log,
  bytesMax = bytesMaxDefault,
  now = Date.now,
}: {
  dir: string;
  by: 'InfluxDB' | 'DuckDB';
  log: Log;
  bytesMax?: number;
  now?: () => number;
}): DeadLetters {
  return {
    async keep(refused) {
      const timestamp = new Date(now()).toISOString();
      const path = join(dir, `${timestamp.slice(0, 10)}.lp`);
      const text = refused
        .map(({ line, reason }) => `# ${timestamp} ${reason.replaceAll(/\s+/g, ' ')}\n${line.replaceAll('\n', ' ')}\n`)
        .join('');
      try {
        await makeFolder(dir);
        if ((await sizeOf(dir)) + Buffer.byteLength(text) > bytesMax) {
          log.error(
            `${by} refused ${refused.length} lines for good, and they are not kept: ${dir} has ${bytesMax} bytes already. Import or remove what is in it. The first: ${refused[0]!.reason}`,
          );
          return;
        }
        await appendFile(path, text, { mode: 0o600 });
      } catch (error) {
        throw new StoreError(
          'retry',
          `Cannot keep ${refused.length} lines that ${by} refused in ${path}: ${messageOf(error)}. ${fileAdvice(error)}`,
          { cause: error },
        );
      }
      log.error(
        `${by} refused ${refused.length} lines for good. They are kept in ${path}. The first: ${refused[0]!.reason}`,
      );
    },
  };
}

async function sizeOf(dir: string): Promise<number> {
  const names = await readdir(dir);
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
