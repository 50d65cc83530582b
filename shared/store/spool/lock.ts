import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { messageOf, StoreError } from '../../errors.js';
import { removeStaleSocket } from '../../net/stale-socket.js';

/** The kernel's `sun_path` has 108 bytes including the final NUL (unix(7)). */
const pathBytesMax = 107;

/** Exclusive lock of a folder. */
export interface FolderLock {
  /** Whether the lock still exists: it or its folder may have been removed. */
  isHeld(): Promise<boolean>;
  /** Releases the folder. Does not remove a lock created by another process in the meantime. */
  release(): Promise<void>;
}

/**
 * Locks a folder by listening on a unix socket in it, which the kernel closes when the process ends, even by a crash.
 * Throws a `StoreError` ('stop') if another process holds the lock.
 */
export async function lockFolder(dir: string): Promise<FolderLock> {
  const absolute = join(resolve(dir), 'lock');
  const path = [absolute, relative(process.cwd(), absolute)].find((each) => Buffer.byteLength(each) <= pathBytesMax);
  if (path === undefined)
    throw new StoreError(
      'stop',
      `SPOOL_DIR is too long: ${JSON.stringify(dir)} must have at most ${pathBytesMax - '/lock'.length} bytes.`,
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
      // Closing unlinks the path, even if another process listens there now.
      if (found !== undefined && found.ino !== own?.ino) return;
      server.close();
      await once(server, 'close');
    },
  };
}
