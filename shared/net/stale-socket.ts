import { lstat, unlink } from 'node:fs/promises';
import { connect } from 'node:net';

/**
 * Removes a unix socket left behind by a killed process, unless a process listens on it. Throws if the path is
 * another kind of file.
 */
export async function removeStaleSocket(path: string): Promise<void> {
  const file = await lstat(path).catch(() => undefined);
  if (file === undefined) return;
  if (!file.isSocket()) throw new Error('the path exists and is not a socket. Remove it, or choose another path.');
  const isInUse = await new Promise<boolean>((resolve) => {
    const probe = connect({ path }, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => {
      resolve(false);
    });
  });
  if (!isInUse) await unlink(path);
}
