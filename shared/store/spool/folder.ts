import { open, stat, type FileHandle } from 'node:fs/promises';
import type { BigIntStats } from 'node:fs';
import { makeFolder } from '../../make-folder.js';
import { lockFolder, type FolderLock } from './lock.js';

/** The folder of a spool. It is locked, and notices when it is removed or replaced while it is in use. */
export class SpoolFolder {
  readonly dir: string;
  #lock: FolderLock;
  #stats: BigIntStats;

  private constructor(dir: string, lock: FolderLock, stats: BigIntStats) {
    this.dir = dir;
    this.#lock = lock;
    this.#stats = stats;
  }

  /**
   * Creates the folder if it is missing, and locks it. Throws a `StoreError` ('stop') if another process uses it, and
   * the system's error if it cannot be created.
   */
  static async open(dir: string): Promise<SpoolFolder> {
    await makeFolder(dir);
    const lock = await lockFolder(dir);
    return new SpoolFolder(dir, lock, await stat(dir, { bigint: true }));
  }

  /** Whether the path still names this folder. */
  async isInPlace(): Promise<boolean> {
    return isSameFile(this.#stats, await statOrNothing(this.dir));
  }

  /** Whether the lock still exists. */
  async isLocked(): Promise<boolean> {
    return await this.#lock.isHeld();
  }

  /** Creates and locks the folder again where it was removed, or adopts the one in its place. Throws as `open` does. */
  async restore(): Promise<void> {
    await makeFolder(this.dir);
    if (!(await this.#lock.isHeld())) {
      await this.#lock.release();
      this.#lock = await lockFolder(this.dir);
    }
    this.#stats = await stat(this.dir, { bigint: true });
  }

  /** Syncs the names of its files to disk. Throws the system's error. */
  async sync(): Promise<void> {
    const handle = await open(this.dir);
    await handle.sync().finally(() => handle.close());
  }

  /** Releases the lock. */
  async release(): Promise<void> {
    await this.#lock.release();
  }
}

/** Whether a path names the open file. */
export async function isAt(handle: FileHandle, path: string): Promise<boolean> {
  const [own, found] = await Promise.all([handle.stat({ bigint: true }), statOrNothing(path)]);
  return isSameFile(own, found);
}

/** Writes all bytes at an offset. Throws the system's error; then only a part may be written. */
export async function writeFully(handle: FileHandle, parts: readonly Buffer[], offset: number): Promise<void> {
  const bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  for (let done = 0; done < bytes.length; )
    done += (await handle.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
}

async function statOrNothing(path: string): Promise<BigIntStats | undefined> {
  return await stat(path, { bigint: true }).catch(() => undefined);
}

function isSameFile(own: BigIntStats, found: BigIntStats | undefined): boolean {
  return found?.ino === own.ino && found.dev === own.dev;
}
