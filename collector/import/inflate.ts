import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';

/**
 * The content of a file: gzip and Zstandard are unpacked, told by their first bytes, anything else is passed on. What comes before
 * the damage of a damaged file is given out before the error is thrown. Holds what one chunk unpacks to, which for gzip is at most
 * 1,032 times its length.
 */
export async function* inflate(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
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
    else for (let from = 0; from < rest.length; from += pieceBytes) yield* unpacker.take(rest.subarray(from, from + pieceBytes));
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

function unpackerFor(head: Buffer): (() => UnpackStream) | undefined {
  if (head[0] === 0x1f && head[1] === 0x8b) return () => zlib.createGunzip(); // RFC 1952
  if (head.readUInt32LE(0) !== 0xfd2fb528) return undefined; // RFC 8878
  if (createZstdDecompress === undefined) {
    throw new Error(`it is packed with Zstandard, which Node ${process.versions.node} cannot read. Use Node 22.15 or later, or unpack it: zstd -dc FILE | npm run import -- -`);
  }
  return createZstdDecompress;
}

interface Unpacker {
  take(piece: Buffer): AsyncGenerator<Buffer>;
  end(): AsyncGenerator<Buffer>;
}

/**
 * Unpacks piece by piece. A stream of Node's that meets damage discards what it has unpacked of the piece, so a second one follows
 * behind the first: it is given what the first has found good, and a piece with damage byte by byte. After zeros, with which some
 * programs fill up the last block, the streams take nothing more, so new ones begin with what follows.
 */
function createUnpacker(create: () => UnpackStream): Unpacker {
  let streams: { readonly first: UnpackStream; readonly second: UnpackStream } | undefined;
  /** The second stream at work, while the lines of the piece are read. */
  let followed: Promise<unknown> = Promise.resolve();
  let goodBytes = 0;
  return { take, end };

  async function* take(piece: Buffer): AsyncGenerator<Buffer> {
    for (let rest = piece; rest.length > 0;) {
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
    throw new Error(`it is damaged at byte ${goodBytes.toLocaleString('en')} (${error.message}); what stands before that was read`, { cause: error });
  }

  async function* end(): AsyncGenerator<Buffer> {
    await followed;
    streams?.second.destroy();
    if (streams === undefined) return;
    const { unpacked, error } = await put(streams.first, undefined);
    yield* unpacked;
    if (error !== undefined) throw new Error(`its end is missing (${error.message}): it was cut, or is still being written; what is there was read`, { cause: error });
  }
}

/** Puts bytes through, or the end. Nothing stays in the stream, where an error would discard it. */
async function put(stream: UnpackStream, bytes: Buffer | undefined): Promise<{ unpacked: Buffer[]; takenBytes: number; error: Error | undefined }> {
  const unpacked: Buffer[] = [];
  const collect = (chunk: Buffer): void => void unpacked.push(chunk);
  const bytesBefore = stream.bytesWritten;
  stream.on('data', collect);
  const error = await new Promise<Error | undefined>((resolve) => {
    stream.on('error', resolve); // and it stays: an error may be told twice, to the callback and as an event
    if (bytes === undefined) stream.once('end', () => { resolve(undefined); }).end();
    else stream.write(bytes, (problem) => { resolve(problem ?? undefined); });
  });
  stream.off('data', collect);
  if (error === undefined) stream.removeAllListeners('error');
  return { unpacked, takenBytes: stream.bytesWritten - bytesBefore, error };
}
