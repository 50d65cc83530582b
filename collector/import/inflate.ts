import type { Transform } from 'node:stream';
import * as zlib from 'node:zlib';
import { messageOf } from '../../shared/errors.js';

/**
 * The content of a file: gzip and Zstandard are unpacked, told by their first bytes, anything else is passed on. What comes before
 * the damage of a damaged file is given out before the error is thrown. Holds what one chunk unpacks to, which for gzip is at most
 * 1,032 times its length.
 */
export async function* inflate(chunks: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let unpack: Transform | undefined;
  let head: Buffer = Buffer.alloc(0);
  let known = false;
  for await (const chunk of chunks) {
    let rest = chunk;
    if (!known) {
      head = Buffer.concat([head, chunk]);
      if (head.length < magicBytes) continue;
      known = true;
      unpack = unpackerFor(head);
      rest = head;
    }
    if (unpack === undefined) yield rest;
    else for (let from = 0; from < rest.length; from += pieceBytes) yield* through(unpack, rest.subarray(from, from + pieceBytes));
  }
  if (!known) yield head;
  if (unpack !== undefined) yield* through(unpack, undefined);
}

const magicBytes = 4;
/** Packed bytes that are unpacked at once. */
const pieceBytes = 16 * 1024;

/** Node has it from 22.15 and 23.8 on. */
const { createZstdDecompress } = zlib as { createZstdDecompress?: () => Transform };

function unpackerFor(head: Buffer): Transform | undefined {
  if (head[0] === 0x1f && head[1] === 0x8b) return zlib.createGunzip(); // RFC 1952
  if (head.readUInt32LE(0) !== 0xfd2fb528) return undefined; // RFC 8878
  if (createZstdDecompress === undefined) {
    throw new Error(`it is packed with Zstandard, which Node ${process.versions.node} cannot read. Use Node 22.15 or later, or unpack it: zstd -dc FILE | npm run import -- -`);
  }
  return createZstdDecompress();
}

/** Puts bytes through, or the end. Nothing stays in the stream, where an error would discard it. */
async function* through(unpack: Transform, bytes: Buffer | undefined): AsyncGenerator<Buffer> {
  const unpacked: Buffer[] = [];
  const collect = (chunk: Buffer): void => void unpacked.push(chunk);
  unpack.on('data', collect);
  const error = await new Promise<unknown>((resolve) => {
    unpack.once('error', resolve);
    if (bytes === undefined) unpack.once('end', () => { resolve(undefined); }).end();
    else unpack.write(bytes, resolve);
  });
  unpack.off('data', collect);
  yield* unpacked;
  if (error !== undefined && error !== null) throw new Error(`it is damaged, or its end is missing (${messageOf(error)})`, { cause: error });
  unpack.removeAllListeners('error');
}
