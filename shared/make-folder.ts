import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';

/**
 * Creates a folder and missing parents, accessible only to the owner. Throws the system's error.
 *
 * Node's `recursive` option loops forever if a file system returns ENOENT although the parent exists, as `/proc` does
 * (seen with Node 20).
 */
export async function makeFolder(path: string): Promise<void> {
  const create = (): Promise<void> => mkdir(path, { mode: 0o700 });
  try {
    await create().catch(async (error: unknown) => {
      if (codeOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
      await makeFolder(dirname(path));
      await create();
    });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST' || !(await stat(path)).isDirectory()) throw error;
  }
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
