/** The files in which the setup stores tokens and passwords. */
import { randomBytes } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { messageOf, UsageError } from '../../errors.js';
import { makeFolder } from '../../make-folder.js';

/** Reads a file; resolves to `undefined` if it is missing or empty. Throws a `UsageError`. */
export async function readToken(file: string | undefined): Promise<string | undefined> {
  if (file === undefined) return undefined;
  try {
    return (await readFile(file, 'utf8')).trim() || undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new UsageError(
      `Cannot read ${file}: ${messageOf(error)}. Give --tokens a folder that this user can read and write.`,
      { cause: error },
    );
  }
}

/** Atomically writes a file that only this user can read. Throws a `UsageError`. */
export async function writeSecret(file: string | undefined, text: string): Promise<void> {
  if (file === undefined) return;
  try {
    await makeFolder(dirname(file));
    await writeFile(`${file}.new`, `${text}\n`, { mode: 0o600, flush: true });
    await rename(`${file}.new`, file);
  } catch (error) {
    throw new UsageError(
      `Cannot write ${file}: ${messageOf(error)}. Give --tokens a folder that this user can write.`,
      { cause: error },
    );
  }
}

/** A new token or password. */
export function secret(): string {
  return randomBytes(32).toString('base64url');
}
