import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';

/**
 * Decompresses a file: gzip and Zstandard, detected by their magic numbers. Passes other content on, but refuses other
 * compression formats and tar archives with a command that extracts them. Yields everything before damaged data, then
 * throws. Buffers one decompressed chunk, which for gzip is at most 1,032 times its size.
 */
export async function* inflate(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  /** The beginning of the content until it is known whether it is an archive; then `undefined`. */
  let head: Buffer | undefined = Buffer.alloc(0);
  try {
    for await (const chunk of unpack(chunks)) {
      if (head === undefined) {
        yield chunk;
        continue;
      }
      const read: Buffer = Buffer.concat([head, chunk]);
      head = read.length < tarMagicEnd && !read.includes(0x0a) ? read : undefined;
      if (head !== undefined) continue;
      refuseTar(read);
      yield read;
    }
  } catch (error) {
    if (head !== undefined) yield head;
    throw error;
  }
  if (head !== undefined) yield head;
}

/** Position of `ustar` in a tar archive, in the header of its first file (POSIX.1-2017, pax). */
const tarMagicStart = 257;
const tarMagicEnd = 262;

function refuseTar(head: Buffer): void {
  if (head.toString('latin1', tarMagicStart, tarMagicEnd) !== 'ustar') return;
  throw new Error('it is a tar archive. `tar -xOf FILE | npm run import -- -` imports its files');
}

async function* unpack(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let unpacker: Unpacker | undefined;
  let head: Buffer = Buffer.alloc(0);
  let known = false;
  for await (const chunk of chunks) {
    let rest = chunk;
    if (!known) {
      head = Buffer.concat([head, chunk]);
      if (head.length < magicBytes) continue;
      known = true;
      const create = unpackerFor(head);
      unpacker = create && createUnpacker(create);
      rest = head;
    }
    if (unpacker === undefined) yield rest;
    else
      for (let from = 0; from < rest.length; from += pieceBytes)
        yield* unpacker.take(rest.subarray(from, from + pieceBytes));
  }
  if (!known) yield head;
  if (unpacker !== undefined) yield* unpacker.end();
}

const magicBytes = 4;
/** Number of compressed bytes per step. */
const pieceBytes = 16 * 1024;

/** A decompression stream of Node. `bytesWritten` is the number of bytes that it has consumed. */
type UnpackStream = Transform & { readonly bytesWritten: number };

/** Available from Node 22.15 and 23.8 on. */
const { createZstdDecompress } = zlib as { createZstdDecompress?: () => UnpackStream };

/** Unsupported formats by magic number, with a command that decompresses them. */
const unsupported: readonly (readonly [magic: string, name: string, command: string])[] = [
  ['fd377a58', 'xz', 'xz -dc FILE'],
  ['425a68', 'bzip2', 'bzip2 -dc FILE'],
  ['504b0304', 'zip', 'unzip -p FILE'],
  ['504b0506', 'zip', 'unzip -p FILE'],
  ['377abcaf', '7-Zip', '7z x -so FILE'],
  ['04224d18', 'LZ4', 'lz4 -dc FILE'],
  ['4c5a4950', 'lzip', 'lzip -dc FILE'],
  ['1f9d', 'compress', 'uncompress -c FILE'],
];
/** Byte order marks of UTF-16, which Windows PowerShell writes with `>`. */
const utf16 = ['fffe', 'feff'];

function refuseUnsupported(head: Buffer): void {
  const start = head.toString('hex');
  const found = unsupported.find(([magic]) => start.startsWith(magic));
  if (found !== undefined)
    throw new Error(`it is compressed with ${found[1]}. \`${found[2]} | npm run import -- -\` decompresses it`);
  if (utf16.some((mark) => start.startsWith(mark)))
    throw new Error('it is text in UTF-16. `iconv -f UTF-16 -t UTF-8 FILE | npm run import -- -` converts it');
}

function unpackerFor(head: Buffer): (() => UnpackStream) | undefined {
  refuseUnsupported(head);
  if (head[0] === 0x1f && head[1] === 0x8b) return () => zlib.createGunzip(); // RFC 1952
  if (head.readUInt32LE(0) !== 0xfd2fb528) return undefined; // RFC 8878
  if (createZstdDecompress === undefined) {
    throw new Error(
      `it is compressed with Zstandard, which Node ${process.versions.node} cannot read. Use Node 22.15 or later, or decompress it: zstd -dc FILE | npm run import -- -`,
    );
  }
  return createZstdDecompress;
}

interface Unpacker {
  take(piece: Buffer): AsyncGenerator<Buffer>;
  end(): AsyncGenerator<Buffer>;
}

/**
 * Creates a decompressor. When a stream of Node finds damaged data, it discards the output of that step. So a second
 * stream follows the first one by a step, and gets a damaged piece byte by byte. Some programs pad the last block with
 * zeros, after which a stream accepts nothing more: new streams are created for the data after it.
 */
function createUnpacker(create: () => UnpackStream): Unpacker {
  let streams: { readonly first: UnpackStream; readonly second: UnpackStream } | undefined;
  /** Work of the second stream, which runs while the lines of the piece are read. */
  let followed: Promise<unknown> = Promise.resolve();
  let goodBytes = 0;
  return { take, end };

  async function* take(piece: Buffer): AsyncGenerator<Buffer> {
    for (let rest = piece; rest.length > 0; ) {
      if (streams === undefined) {
        const zeros = rest.findIndex((byte) => byte !== 0);
        goodBytes += zeros === -1 ? rest.length : zeros;
        if (zeros === -1) return;
        rest = rest.subarray(zeros);
        streams = { first: create(), second: create() };
      }
      const { unpacked, takenBytes, error } = await put(streams.first, rest);
      await followed;
      if (error !== undefined) yield* upToDamage(streams.second, rest, error);
      followed = put(streams.second, rest);
      goodBytes += takenBytes;
      if (takenBytes < rest.length) {
        await followed;
        streams = undefined;
      }
      rest = rest.subarray(takenBytes);
      yield* unpacked;
    }
  }

  async function* upToDamage(second: UnpackStream, piece: Buffer, error: Error): AsyncGenerator<Buffer> {
    for (let at = 0; at < piece.length; at += 1) {
      const byte = await put(second, piece.subarray(at, at + 1));
      yield* byte.unpacked;
      if (byte.error !== undefined) break;
      goodBytes += 1;
    }
    throw new Error(
      `it is damaged at byte ${goodBytes.toLocaleString('en')} (${error.message}); everything before it was read`,
      { cause: error },
    );
  }

  async function* end(): AsyncGenerator<Buffer> {
    await followed;
    streams?.second.destroy();
    if (streams === undefined) return;
    const { unpacked, error } = await put(streams.first, undefined);
    yield* unpacked;
    if (error !== undefined)
      throw new Error(
        `its end is missing (${error.message}): it was truncated, or is still being written; everything before that was read`,
        { cause: error },
      );
  }
}

/** Processes bytes, or the end. Drains the stream completely, since an error would discard its output. */
async function put(
  stream: UnpackStream,
  bytes: Buffer | undefined,
): Promise<{ unpacked: Buffer[]; takenBytes: number; error: Error | undefined }> {
  const unpacked: Buffer[] = [];
  const collect = (chunk: Buffer): void => void unpacked.push(chunk);
  const bytesBefore = stream.bytesWritten;
  stream.on('data', collect);
  const error = await new Promise<Error | undefined>((resolve) => {
    stream.on('error', resolve); // stays: an error may be reported twice, to the callback and as an event
    if (bytes === undefined)
      stream
        .once('end', () => {
          resolve(undefined);
        })
        .end();
    else
      stream.write(bytes, (problem) => {
        resolve(problem ?? undefined);
      });
  });
  stream.off('data', collect);
  if (error === undefined) stream.removeAllListeners('error');
  return { unpacked, takenBytes: stream.bytesWritten - bytesBefore, error };
}
