import { once } from 'node:events';
import { createServer } from 'node:net';
import { join, relative, resolve } from 'node:path';
import { messageOf, StoreError } from '../errors.js';
import { removeStaleSocket } from '../stale-socket.js';

/** The kernel's `sun_path` holds 108 bytes with the ending NUL (unix(7)). */
const pathBytesMax = 107;

/**
 * Keeps other processes out of a folder by listening on a unix socket in it: the kernel ends that with the process, however it ends.
 * Resolves to what lets go of it. Throws a `StoreError` ('stop') when another process has the folder.
 */
export async function lockFolder(dir: string): Promise<() => Promise<void>> {
  const absolute = join(resolve(dir), 'lock');
  const path = [absolute, relative(process.cwd(), absolute)].find((each) => Buffer.byteLength(each) <= pathBytesMax);
  if (path === undefined) throw new StoreError('stop', `SPOOL_DIR is too long: ${JSON.stringify(dir)} may have ${pathBytesMax - '/lock'.length} bytes.`);
  const server = createServer((socket) => socket.destroy()).unref();
  try {
    await removeStaleSocket(path);
    server.listen({ path });
    await once(server, 'listening'); // rejects on 'error'
  } catch (error) {
    const inUse = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
    throw new StoreError('stop', inUse
      ? `Another process uses the spool in ${dir}: give each its own SPOOL_DIR, or stop that one.`
      : `Cannot use the spool in ${dir}: ${messageOf(error)} Set SPOOL_DIR to a folder that this user can write.`, { cause: error });
  }
  return async () => {
    server.close();
    await once(server, 'close');
  };
}
