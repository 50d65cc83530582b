/**
 * Requests rejected by a store, in daily files of line protocol. A comment above each has the time and reason. They
 * can be imported with `import`, or written with `influx write`. Line breaks within a text become spaces.
 */
import { appendFile, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fileAdvice, messageOf, StoreError } from '../errors.js';
import type { Log } from '../log.js';
import { makeFolder } from '../make-folder.js';

/** A rejected line, and why. */
export interface RefusedLine {
  readonly line: string;
  readonly reason: string;
}

/** A file of rejected lines. */
export interface DeadLetters {
  /** Appends lines to the day's file. Throws a `StoreError` ('retry') if that fails. */
  keep(refused: readonly RefusedLine[]): Promise<void>;
}

/** Maximum size of all files, in bytes. Further lines are only counted and logged. */
const bytesMaxDefault = 256 * 2 ** 20;

/** Stores the dead letters of the store `by` in a folder, which is created when the first one arrives. */
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
            `${by} rejected ${refused.length} lines, and they are not stored: ${dir} has reached its limit of ${bytesMax} bytes. Import or remove its files. The first line: ${refused[0]!.reason}`,
          );
          return;
        }
        await appendFile(path, text, { mode: 0o600 });
      } catch (error) {
        throw new StoreError(
          'retry',
          `Cannot store ${refused.length} lines that ${by} rejected in ${path}: ${messageOf(error)}. ${fileAdvice(error)}`,
          { cause: error },
        );
      }
      log.error(`${by} rejected ${refused.length} lines. They are stored in ${path}. The first: ${refused[0]!.reason}`);
    },
  };
}

async function sizeOf(dir: string): Promise<number> {
  const names = await readdir(dir);
  const sizes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}
