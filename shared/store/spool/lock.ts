import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { messageOf, StoreError } from '../../errors.js';
import { removeStaleSocket } from '../../net/stale-socket.js';

/** The kernel's `sun_path` holds 108 bytes with the ending NUL (unix(7)). */
const pathBytesMax = 107;

/** A folder that this process has to itself. */
export interface FolderLock {
  /** Whether the lock is still in the folder: somebody may have removed it, with the folder or without. */
  isHeld(): Promise<boolean>;
  /** Lets go of the folder. A lock that another process has put there meanwhile stays. */
  release(): Promise<void>;
}

/**
 * Keeps other processes out of a folder by listening on a unix socket in it: the kernel ends that with the process,
 * however it ends. Throws a `StoreError` ('stop') when another process has the folder.
 */
export async function lockFolder(dir: string): Promise<FolderLock> {
  const absolute = join(resolve(dir), 'lock');
  const path = [absolute, relative(process.cwd(), absolute)].find((each) => Buffer.byteLength(each) <= pathBytesMax);
  if (path === undefined)
    throw new StoreError(
      'stop',
      `SPOOL_DIR is too long: ${JSON.stringify(dir)} may have ${pathBytesMax - '/lock'.length} bytes.`,
    );
  const server = createServer((socket) => socket.destroy()).unref();
  try {
    await removeStaleSocket(path);
    server.listen({ path });
    await once(server, 'listening'); // rejects on 'error'
  } catch (error) {
    const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
    throw new StoreError(
      'stop',
      inUse
        ? `Another process uses the spool in ${dir}: give each its own SPOOL_DIR, or stop that one.`
        : `Cannot use the spool in ${dir}: ${messageOf(error)} Set SPOOL_DIR to a folder that this user can write.`,
      { cause: error },
    );
  }
  const own = await stat(path, { bigint: true }).catch(() => undefined);
  const current = (): Promise<{ readonly ino: bigint } | undefined> =>
    stat(path, { bigint: true }).catch(() => undefined);
  return {
    isHeld: async () => own !== undefined && (await current())?.ino === own.ino,
    async release() {
      const found = await current();
      // Closing unlinks the path, whoever's socket is there.
      if (found !== undefined && found.ino !== own?.ino) return;
      server.close();
      await once(server, 'close');
    },
  };
}
