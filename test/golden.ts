import { readFile, writeFile } from 'node:fs/promises';
import type { ExecutionContext } from 'ava';

/**
 * Compares a text with a file of the repository, by its path there. `UPDATE_GOLDEN=1` writes the file anew: look at it
 * before it is committed.
 */
export async function compareWithGolden(t: ExecutionContext, path: string, text: string): Promise<void> {
  if (process.env['UPDATE_GOLDEN'] !== undefined) await writeFile(path, text);
  t.true(
    (await readFile(path, 'utf8')) === text,
    `It is no longer as in ${path}. Look at the difference: UPDATE_GOLDEN=1 writes it anew.`,
  );
}
