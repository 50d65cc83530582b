import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';

/**
 * The content of a file: gzip and Zstandard are unpacked, told by their first bytes, anything else is passed on. What
 * is packed in another way is refused, with the command that unpacks it, and so is an archive, packed or not. What
 * comes before the damage of a damaged file is given out before the error is thrown. Holds what one chunk unpacks to,
 * which for gzip is at most 1,032 times its length.
 */
export async function* inflate(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  /** What has come before it is known whether it is an archive; `undefined` once that is known. */
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

/** A tar archive has `ustar` here, in the header of its first file (POSIX.1-2017, pax). */
const tarMagicStart = 257;
const tarMagicEnd = 262;

function refuseTar(head: Buffer): void {
  if (head.toString('latin1', tarMagicStart, tarMagicEnd) !== 'ustar') return;
  throw new Error('it is a tar archive. `tar -xOf FILE | npm run import -- -` takes the files in it');
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
/** Packed bytes that are unpacked at once. */
const pieceBytes = 16 * 1024;

/** What Node unpacks with; it counts the bytes that it took. */
type UnpackStream = Transform & { readonly bytesWritten: number };

/** Node has it from 22.15 and 23.8 on. */
const { createZstdDecompress } = zlib as { createZstdDecompress?: () => UnpackStream };

/** What Node cannot unpack, by its first bytes, and what does. */
const foreign: readonly (readonly [magic: string, name: string, command: string])[] = [
  ['fd377a58', 'xz', 'xz -dc FILE'],
  ['425a68', 'bzip2', 'bzip2 -dc FILE'],
  ['504b0304', 'zip', 'unzip -p FILE'],
  ['504b0506', 'zip', 'unzip -p FILE'],
  ['377abcaf', '7-Zip', '7z x -so FILE'],
  ['04224d18', 'LZ4', 'lz4 -dc FILE'],
  ['4c5a4950', 'lzip', 'lzip -dc FILE'],
  ['1f9d', 'compress', 'uncompress -c FILE'],
];
/** The byte order marks of UTF-16: what Windows PowerShell writes with `>`. */
const utf16 = ['fffe', 'feff'];

function refuseForeign(head: Buffer): void {
  const start = head.toString('hex');
  const found = foreign.find(([magic]) => start.startsWith(magic));
  if (found !== undefined)
    throw new Error(`it is packed with ${found[1]}. \`${found[2]} | npm run import -- -\` unpacks it`);
  if (utf16.some((mark) => start.startsWith(mark)))
    throw new Error('it is text in UTF-16. `iconv -f UTF-16 -t UTF-8 FILE | npm run import -- -` converts it');
}

function unpackerFor(head: Buffer): (() => UnpackStream) | undefined {
  refuseForeign(head);
  if (head[0] === 0x1f && head[1] === 0x8b) return () => zlib.createGunzip(); // RFC 1952
  if (head.readUInt32LE(0) !== 0xfd2fb528) return undefined; // RFC 8878
  if (createZstdDecompress === undefined) {
    throw new Error(
      `it is packed with Zstandard, which Node ${process.versions.node} cannot read. Use Node 22.15 or later, or unpack it: zstd -dc FILE | npm run import -- -`,
    );
  }
  return createZstdDecompress;
}

interface Unpacker {
  take(piece: Buffer): AsyncGenerator<Buffer>;
  end(): AsyncGenerator<Buffer>;
}

/**
 * Unpacks piece by piece. A stream of Node's that meets damage discards what it has unpacked of the piece, so a second
 * one follows behind the first: it is given what the first has found good, and a piece with damage byte by byte. After
 * zeros, with which some programs fill up the last block, the streams take nothing more, so new ones begin with what
 * follows.
 */
function createUnpacker(create: () => UnpackStream): Unpacker {
  let streams: { readonly first: UnpackStream; readonly second: UnpackStream } | undefined;
  /** The second stream at work, while the lines of the piece are read. */
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
      `it is damaged at byte ${goodBytes.toLocaleString('en')} (${error.message}); what stands before that was read`,
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
        `its end is missing (${error.message}): it was cut, or is still being written; what is there was read`,
        { cause: error },
      );
  }
}

/** Puts bytes through, or the end. Nothing stays in the stream, where an error would discard it. */
async function put(
  stream: UnpackStream,
  bytes: Buffer | undefined,
): Promise<{ unpacked: Buffer[]; takenBytes: number; error: Error | undefined }> {
  const unpacked: Buffer[] = [];
  const collect = (chunk: Buffer): void => void unpacked.push(chunk);
  const bytesBefore = stream.bytesWritten;
  stream.on('data', collect);
  const error = await new Promise<Error | undefined>((resolve) => {
    stream.on('error', resolve); // and it stays: an error may be told twice, to the callback and as an event
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
