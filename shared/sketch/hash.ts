/**
 * Hashes a text into two 32-bit integers: two lanes with the odd constants and the finalizer of MurmurHash3. Stored
 * sketches and the sample depend on it (`hyperloglog.ts`, `request-sample.ts`): it must not change.
 */
export function hashOf(text: string): [number, number] {
  let first = 0x9747b28c;
  let second = 0x3c6ef372;
  for (let at = 0; at < text.length; at += 1) {
    const unit = text.charCodeAt(at);
    first = Math.imul(first ^ unit, 0xcc9e2d51);
    first ^= first >>> 15;
    second = Math.imul(second ^ unit, 0x1b873593);
    second ^= second >>> 13;
  }
  return [mixed(first ^ Math.imul(second, 0x85ebca6b)), mixed(second ^ Math.imul(first, 0xc2b2ae35))];
}

/** `fmix32` of MurmurHash3 (Austin Appleby, public domain). */
function mixed(hash: number): number {
  let mix = hash ^ (hash >>> 16);
  mix = Math.imul(mix, 0x85ebca6b);
  mix ^= mix >>> 13;
  mix = Math.imul(mix, 0xc2b2ae35);
  return (mix ^ (mix >>> 16)) >>> 0;
}
