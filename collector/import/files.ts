import { createReadStream, readSync } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { setImmediate as othersTurn } from 'node:timers/promises';
import { messageOf } from '../../shared/errors.js';
import { createDecoder, type DecoderOptions } from '../decode/decode.js';
import { createLineSplitter } from '../lines.js';
import { inflate } from './inflate.js';

/** A file to import. */
export interface ImportFile {
  /** As it was given; `-` is standard input. */
  readonly path: string;
  /** `undefined` where it is not known beforehand: standard input, pipes, and what cannot be read. */
  readonly bytesTotal: number | undefined;
}

/**
 * Finds the lengths of files, and puts them into the order of their first requests; standard input and files without a
 * request come last.
 */
export async function orderFiles(
  paths: readonly string[],
  options: { decoder: DecoderOptions; lineBytesMax: number },
): Promise<ImportFile[]> {
  const files = await Promise.all(
    paths.map(async (path) => {
      // Why a file cannot be read is said when it is its turn.
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

/** What is read of a file at once, in a fraction of a millisecond. */
const readBytesMax = 256 * 1024;

/** The bytes of a file. Reading on throws an `Error` that names the file. */
export async function* readBytes(path: string): AsyncGenerator<Buffer> {
  try {
    const file = path === '-' ? undefined : await stat(path);
    if (file?.isDirectory() === true) throw new Error('it is a folder. Name the files in it');
    if (file?.isFile() === true) yield* readFile(path);
    else for await (const chunk of path === '-' ? process.stdin : createReadStream(path)) yield chunk as Buffer;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why =
      code === 'ENOENT' ? 'there is no such file' : code === 'EACCES' ? 'this user may not read it' : messageOf(error);
    throw new Error(`it cannot be read: ${why}`, { cause: error });
  }
}

/**
 * On this thread: to ask another one for a piece takes longer than to read it, where the store has all processors busy.
 */
async function* readFile(path: string): AsyncGenerator<Buffer> {
  const file = await open(path);
  try {
    for (;;) {
      const bytes = Buffer.allocUnsafe(readBytesMax);
      const length = readSync(file.fd, bytes);
      if (length === 0) return;
      yield bytes.subarray(0, length);
      await othersTurn();
    }
  } finally {
    await file.close();
  }
}

/** Packed bytes that are searched for the first request. */
const searchBytesMax = 2 ** 20;

/**
 * The time of the first line that is a request; `Infinity` when there is none near the beginning, or the file cannot be
 * read.
 */
async function firstTimeMs(
  path: string,
  { decoder: decoderOptions, lineBytesMax }: { decoder: DecoderOptions; lineBytesMax: number },
): Promise<number> {
  const decoder = createDecoder(decoderOptions);
  let firstMs = Infinity;
  const lines = createLineSplitter(lineBytesMax, {
    onLine(line) {
      if (firstMs !== Infinity) return;
      const decoded = decoder.decode(line, undefined);
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
    // The same error comes when the file is imported, and is told then.
  } finally {
    stream.destroy();
  }
  return firstMs;
}
