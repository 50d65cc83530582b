/**
 * State of `RetentionGuard` for a bucket: a file in the spool folder of the web app that deletes. A point in the
 * bucket would need a timestamp, from the clock that is in doubt.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from '../../make-folder.js';
import type { RetentionGuardParts } from '../retention-guard.js';

/**
 * Loads and saves the file. Both throw the system's error. A file of another bucket, or with invalid JSON, counts as
 * missing.
 */
export function retentionFile(
  dir: string,
  bucket: { readonly url: string; readonly org: string; readonly bucket: string },
): Pick<RetentionGuardParts, 'load' | 'save'> {
  const path = join(dir, 'retention.json');
  const name = `${bucket.url} ${bucket.org} ${bucket.bucket}`;
  return {
    async load() {
      const text = await readFile(path, 'utf8').catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '{}';
        throw error;
      });
      const { bucket: savedName, state } = parse(text);
      return savedName === name ? state : undefined;
    },
    async save(state) {
      await makeFolder(dir);
      await writeFile(`${path}.new`, `${JSON.stringify({ bucket: name, state })}\n`, { mode: 0o600 });
      await rename(`${path}.new`, path); // atomic
    },
  };
}

function parse(text: string): { readonly bucket?: unknown; readonly state?: unknown } {
  try {
    return (JSON.parse(text) ?? {}) as { bucket?: unknown; state?: unknown };
  } catch {
    return {}; // the guard then infers its state from the stored data
  }
}
