/**
 * One record of a spool's segment, little-endian:
 *
 * | offset | bytes | what |
 * |---|---|---|
 * | 0 | 4 | the marker `CLSR`, where reading resumes after damage |
 * | 4 | 4 | length of the payload |
 * | 8 | 4 | requests in the payload |
 * | 12 | 4 | CRC-32C of the payload |
 * | 16 | 8 | requests in all records before this one, since the spool was created: shows how many a gap has lost |
 * | 24 | 4 | CRC-32C of the 24 bytes before |
 * | 28 | | the payload |
 *
 * A header is valid if its marker and checksum match, a payload if its checksum does. A flipped bit loses only its own
 * record: after a damaged header, reading resumes at the next valid one.
 */
import crc32c from 'crc-32/crc32c.js';

/** Header of a record. */
export interface RecordHeader {
  readonly payloadBytes: number;
  readonly requests: number;
  readonly payloadChecksum: number;
  readonly requestsBefore: number;
}

/** Size of a header in bytes. */
export const headerBytes = 28;
const marker = Buffer.from('CLSR');

/** Encodes a record as header and payload, to be written in this order. */
export function encodeRecord(payload: Buffer, requests: number, requestsBefore: number): Buffer[] {
  const header = Buffer.alloc(headerBytes);
  marker.copy(header);
  header.writeUInt32LE(payload.length, 4);
  header.writeUInt32LE(requests, 8);
  header.writeUInt32LE(checksumOf(payload), 12);
  header.writeBigUInt64LE(BigInt(requestsBefore), 16);
  header.writeUInt32LE(checksumOf(header.subarray(0, 24)), 24);
  return [header, payload];
}

/** Parses the header at `offset`; returns `undefined` if it is incomplete or damaged. */
export function readHeader(bytes: Buffer, offset = 0): RecordHeader | undefined {
  if (bytes.length - offset < headerBytes || marker.compare(bytes, offset, offset + marker.length) !== 0)
    return undefined;
  if (checksumOf(bytes.subarray(offset, offset + 24)) !== bytes.readUInt32LE(offset + 24)) return undefined;
  return {
    payloadBytes: bytes.readUInt32LE(offset + 4),
    requests: bytes.readUInt32LE(offset + 8),
    payloadChecksum: bytes.readUInt32LE(offset + 12),
    requestsBefore: Number(bytes.readBigUInt64LE(offset + 16)),
  };
}

/** Returns the offset of the next valid header from `offset` on; `-1` if there is none. */
export function findHeader(bytes: Buffer, offset: number): number {
  for (let at = bytes.indexOf(marker, offset); at !== -1; at = bytes.indexOf(marker, at + 1)) {
    if (readHeader(bytes, at) !== undefined) return at;
  }
  return -1;
}

/** CRC-32C of bytes as an unsigned 32-bit integer (RFC 3720, B.4). */
export function checksumOf(bytes: Buffer): number {
  return crc32c.buf(bytes) >>> 0;
}
