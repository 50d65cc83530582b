import type { RejectionReason } from '../ledger.js';

/** What became of the lines of an import: each is in exactly one of the counts, except that `unchecked` is a part of `added`. */
export interface ImportCounts {
  /** Lines of loggers that do not speak of requests. */
  runtime: number;
  /** Lines that were not understood, by reason. */
  readonly rejected: Partial<Record<RejectionReason, number>>;
  /** Requests that the store did not hold, and that it holds now. */
  added: number;
  /** Requests that the store held already. */
  known: number;
  /** Requests that were not added, since the store keeps only a part of those of their time: nobody can tell whether they are counted. */
  undecided: number;
  /** Requests that the store refused for good. */
  refused: number;
  /** Those of `added` that are older than single requests are kept: nobody can tell whether they were counted before. */
  unchecked: number;
}

/** Counts with nothing in them. */
export function noCounts(): ImportCounts {
  return { runtime: 0, rejected: {}, added: 0, known: 0, undecided: 0, refused: 0, unchecked: 0 };
}

/** All lines. */
export function linesOf({ runtime, rejected, added, known, undecided, refused }: ImportCounts): number {
  return runtime + added + known + undecided + refused + Object.values(rejected).reduce((sum, count) => sum + count, 0);
}

/** The counts of both. */
export function sumOf(one: ImportCounts, other: ImportCounts): ImportCounts {
  const rejected = { ...one.rejected };
  for (const [reason, count] of Object.entries(other.rejected) as [RejectionReason, number][]) rejected[reason] = (rejected[reason] ?? 0) + count;
  return {
    runtime: one.runtime + other.runtime,
    rejected,
    added: one.added + other.added,
    known: one.known + other.known,
    undecided: one.undecided + other.undecided,
    refused: one.refused + other.refused,
    unchecked: one.unchecked + other.unchecked,
  };
}

/** Rejected lines that were requests for certain. */
export function requestsRejected({ rejected }: ImportCounts): number {
  return (rejected['bad-time'] ?? 0) + (rejected['bad-status'] ?? 0) + (rejected['unknown-encoder'] ?? 0);
}
