import type { Sum, WindowFigures } from './figures.js';

/** Per-window aggregates. Merging digests yields a digest. */
export interface WindowDigest {
  readonly windowMs: number;
  /** In the order of `Fold.sources`. */
  readonly sources: ReadonlyMap<string, SourceDigest>;
}

/** The aggregates of one source. */
export interface SourceDigest {
  readonly all: Sum & WindowFigures;
  readonly hosts: ReadonlyMap<string, Sum>;
  readonly methods: ReadonlyMap<string, Sum>;
}
