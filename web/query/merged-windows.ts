/** So many characters of a key weigh as much as a digest. */
const keyLengthPerWeight = 3000;

/**
 * What the digests of windows were merged to, kept for as long as they are the same: of a range all but the newest are
 * as they were a moment ago.
 */
export class MergeCache<Digest extends object, Merged> {
  readonly #estimatedSize: (digest: Digest) => number;
  readonly #weightMax: number;
  /** By query and range, those that were asked least lately first. */
  readonly #kept = new Map<
    string,
    { readonly digests: readonly Digest[]; readonly merged: Merged; readonly weight: number }
  >();
  #weight = 0;

  /**
   * `estimatedSize` says what a digest weighs, and `weightMax` what all that were merged may weigh together: what they
   * were merged to weighs less.
   */
  constructor({ estimatedSize, weightMax }: { estimatedSize: (digest: Digest) => number; weightMax: number }) {
    this.#estimatedSize = estimatedSize;
    this.#weightMax = weightMax;
  }

  /** What `digests` were merged to under this key, or what `merge` makes of them. */
  of(key: string, digests: readonly Digest[], merge: () => Merged): Merged {
    const known = this.#kept.get(key);
    const isSame =
      known?.digests.length === digests.length && digests.every((digest, at) => digest === known.digests[at]);
    const made = isSame
      ? known
      : {
          digests,
          merged: merge(),
          weight:
            1 +
            Math.floor(key.length / keyLengthPerWeight) +
            digests.reduce((sum, digest) => sum + this.#estimatedSize(digest), 0),
        };
    this.#weight += made.weight - (known?.weight ?? 0);
    this.#kept.delete(key);
    this.#kept.set(key, made);
    for (const [oldest, { weight }] of this.#kept) {
      if (this.#weight <= this.#weightMax) break;
      this.#kept.delete(oldest);
      this.#weight -= weight;
    }
    return made.merged;
  }
}
