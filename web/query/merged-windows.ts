/** Characters of a key that count as one unit of weight. */
const keyLengthPerWeight = 3000;

/**
 * Caches merged digests of windows. An entry is valid as long as its digests are the same objects. From one page to the
 * next only the newest windows of a range change.
 */
export class MergeCache<Digest extends object, Merged> {
  readonly #estimatedSize: (digest: Digest) => number;
  readonly #weightMax: number;
  /** By query and range, least recently used first. */
  readonly #entries = new Map<
    string,
    { readonly digests: readonly Digest[]; readonly merged: Merged; readonly weight: number }
  >();
  #weight = 0;

  /**
   * `estimatedSize` returns the weight of a digest; `weightMax` limits the total weight of the digests of all entries.
   * Merged digests weigh less.
   */
  constructor({ estimatedSize, weightMax }: { estimatedSize: (digest: Digest) => number; weightMax: number }) {
    this.#estimatedSize = estimatedSize;
    this.#weightMax = weightMax;
  }

  /** Returns the cached result for these digests under this key, or calls `merge`. */
  of(key: string, digests: readonly Digest[], merge: () => Merged): Merged {
    const known = this.#entries.get(key);
    const isSame =
      known?.digests.length === digests.length && digests.every((digest, at) => digest === known.digests[at]);
    const entry = isSame
      ? known
      : {
          digests,
          merged: merge(),
          weight:
            1 +
            Math.floor(key.length / keyLengthPerWeight) +
            digests.reduce((sum, digest) => sum + this.#estimatedSize(digest), 0),
        };
    this.#weight += entry.weight - (known?.weight ?? 0);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    for (const [oldest, { weight }] of this.#entries) {
      if (this.#weight <= this.#weightMax) break;
      this.#entries.delete(oldest);
      this.#weight -= weight;
    }
    return entry.merged;
  }
}
