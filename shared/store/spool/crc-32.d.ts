/** crc-32 (SheetJS) describes CRC-32 only; its CRC-32C has the same shape. */
declare module 'crc-32/crc32c.js' {
  const crc32c: {
    /** The CRC-32C (Castagnoli) of bytes as a signed 32-bit integer. */
    buf(data: Uint8Array, seed?: number): number;
  };
  export default crc32c;
}
