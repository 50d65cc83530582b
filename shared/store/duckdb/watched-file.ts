import { open, stat, type FileHandle } from 'node:fs/promises';
import type { Stats } from 'node:fs';

/**
 * What happened to an open file: its path no longer exists (deleted or moved), names another file, or the file was
 * overwritten.
 */
export type FileFate = 'deleted' | 'moved' | 'replaced' | 'overwritten';

/**
 * The header of a DuckDB file: a main block that never changes, then two that checkpoints write alternately. In each of
 * the two, an 8-byte checksum precedes the checkpoint number. See src/storage/single_file_block_manager.cpp in DuckDB.
 */
const headerBytes = 4096;
const checkpointNumberOffset = 8;

/**
 * Detects when a path no longer names the file that DuckDB opened there. Keeps one descriptor from `open` to `close`
 * and opens no other: closing any descriptor of a file releases all locks of this process on it (fcntl(2)), including
 * DuckDB's.
 */
export class WatchedFile {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #opened: Stats;
  readonly #mainHeader: Buffer;
  #checkpoint: bigint;
  #logInode: number | undefined;
  #logBytes = 0;

  private constructor(path: string, file: FileHandle, opened: Stats, mainHeader: Buffer, checkpoint: bigint) {
    this.#path = path;
    this.#file = file;
    this.#opened = opened;
    this.#mainHeader = mainHeader;
    this.#checkpoint = checkpoint;
  }

  /** Starts watching a file that DuckDB has open. Throws the system's error. */
  static async open(path: string): Promise<WatchedFile> {
    const file = await open(path, 'r');
    try {
      const { main, checkpoint } = await readHeaders(file);
      return new WatchedFile(path, file, await file.stat(), main, checkpoint);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * What happened to the file; `undefined` while it is unchanged but for DuckDB's own writes. Reads its headers only
   * `withContent`. Throws the system's error.
   */
  async fate({ withContent }: { withContent: boolean }): Promise<FileFate | undefined> {
    const current = await statOrNothing(this.#path);
    if (current === undefined) return (await this.#file.stat()).nlink > 0 ? 'moved' : 'deleted';
    if (current.ino !== this.#opened.ino || current.dev !== this.#opened.dev) return 'replaced';
    const log = await statOrNothing(`${this.#path}.wal`);
    this.#logInode = log?.ino ?? this.#logInode;
    this.#logBytes = log?.size ?? 0;
    if (!withContent) return undefined;
    const { main, checkpoint } = await readHeaders(this.#file);
    if (!main.equals(this.#mainHeader) || checkpoint < this.#checkpoint) return 'overwritten';
    this.#checkpoint = checkpoint;
    return undefined;
  }

  /** Size of the write-ahead log at the last call of `fate`, in bytes. */
  get logBytes(): number {
    return this.#logBytes;
  }

  /** Whether the write-ahead log beside the path is the one that DuckDB wrote for this file. */
  async hasOwnLog(): Promise<boolean> {
    const log = await statOrNothing(`${this.#path}.wal`);
    return log !== undefined && log.ino === this.#logInode;
  }

  /** Closes the descriptor. Call it only after DuckDB has closed the file: see above. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** Reads the main header and the number of the newest checkpoint. */
async function readHeaders(file: FileHandle): Promise<{ main: Buffer; checkpoint: bigint }> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(3 * headerBytes), 0, 3 * headerBytes, 0);
  const checkpoints = [1, 2].map((header) => buffer.readBigUInt64LE(header * headerBytes + checkpointNumberOffset));
  return {
    main: buffer.subarray(0, Math.min(headerBytes, bytesRead)),
    checkpoint: checkpoints.reduce((newest, number) => (number > newest ? number : newest)),
  };
}

async function statOrNothing(path: string): Promise<Stats | undefined> {
  return await stat(path).catch((error: unknown) => {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    throw error;
  });
}
