import { createReadStream, readSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { messageOf } from '../../shared/errors.js';
import { createDecoder, type DecoderOptions } from '../decode/decode.js';
import { LineSplitter } from '../lines.js';
import { inflate } from './inflate.js';

/** A file to import. */
export interface ImportFile {
  /** The path from the command line; `-` is standard input. */
  readonly path: string;
  /** `undefined` if unknown: standard input, pipes, and files that cannot be read. */
  readonly bytesTotal: number | undefined;
}

/**
 * Reads the lengths of files, and sorts them by their first requests. Standard input and files without requests come
 * last.
 */
export async function orderFiles(
  paths: readonly string[],
  options: { decoder: DecoderOptions; lineBytesMax: number },
): Promise<ImportFile[]> {
  const files = await Promise.all(
    paths.map(async (path) => {
      // An unreadable file is reported when it is imported.
      const file = path === '-' ? undefined : await stat(path).catch(() => undefined);
      const isFile = file?.isFile() === true;
      return {
        path,
        bytesTotal: isFile ? file.size : undefined,
        firstMs: isFile && paths.length > 1 ? await firstTimeMs(path, options) : Infinity,
      };
    }),
  );
  return files
    .toSorted((one, other) => (one.firstMs === other.firstMs ? 0 : one.firstMs - other.firstMs))
    .map(({ path, bytesTotal }) => ({ path, bytesTotal }));
}

/** Bytes per read, which takes a fraction of a millisecond. */
const readBytesMax = 256 * 1024;

/** Reads a file. Throws an `Error` if it cannot be read. */
export async function* readBytes(path: string): AsyncGenerator<Buffer> {
  try {
    const file = path === '-' ? undefined : await stat(path);
    if (file?.isDirectory() === true) throw new Error('it is a folder. Name the files in it');
    if (file?.isFile() === true) yield* readFile(path);
    else for await (const chunk of path === '-' ? process.stdin : createReadStream(path)) yield chunk as Buffer;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason =
      code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'permission denied' : messageOf(error);
    throw new Error(`it cannot be read: ${reason}`, { cause: error });
  }
}

/**
 * Reads synchronously: waiting for a worker thread takes longer than the read while the store uses all processors.
 */
async function* readFile(path: string): AsyncGenerator<Buffer> {
  const file = await open(path);
  try {
    for (;;) {
      const bytes = Buffer.allocUnsafe(readBytesMax);
      const length = readSync(file.fd, bytes);
      if (length === 0) return;
      yield bytes.subarray(0, length);
      await nextTurn();
    }
  } finally {
    await file.close();
  }
}

/** Maximum number of bytes of a file, possibly compressed, that are searched for the first request. */
const searchBytesMax = 2 ** 20;

/** The time of the first request; `Infinity` if there is none near the beginning, or if the file cannot be read. */
async function firstTimeMs(
  path: string,
  { decoder: decoderOptions, lineBytesMax }: { decoder: DecoderOptions; lineBytesMax: number },
): Promise<number> {
  const decoder = createDecoder(decoderOptions);
  let firstMs = Infinity;
  const lines = new LineSplitter(lineBytesMax, {
    onLine(bytes, from, to) {
      if (firstMs !== Infinity) return;
      const decoded = decoder.decodeLine(bytes, from, to, undefined);
      if (decoded.kind === 'request') firstMs = decoded.event.timeMs;
    },
    onTooLong: () => undefined,
    onUnterminated: () => undefined,
  });
  const stream = createReadStream(path, { end: searchBytesMax - 1 });
  try {
    for await (const chunk of inflate(stream)) {
      lines.write(chunk);
      if (firstMs !== Infinity) break;
    }
  } catch {
    // Reported when the file is imported.
  } finally {
    stream.destroy();
  }
  return firstMs;
}
