import type { RejectionReason } from '../ledger.js';

/** What became of the lines of an import: each is in exactly one of the counts. */
export interface ImportCounts {
  /** Lines of loggers that do not speak of requests. */
  runtime: number;
  /** Lines that were not understood, by reason. */
  readonly rejected: Partial<Record<RejectionReason, number>>;
  /** Requests that the store did not hold, and that it holds now. */
  added: number;
  /** Requests that the store held already. */
  known: number;
  /** Requests that were not added because they may be counted already: see `uncertain-windows.ts`. */
  skipped: number;
  /** Requests that the store refused for good. */
  refused: number;
}

/** Counts with nothing in them. */
export function noCounts(): ImportCounts {
  return { runtime: 0, rejected: {}, added: 0, known: 0, skipped: 0, refused: 0 };
}

/** All lines. */
export function linesOf({ runtime, rejected, added, known, skipped, refused }: ImportCounts): number {
  return runtime + added + known + skipped + refused + Object.values(rejected).reduce((sum, count) => sum + count, 0);
}

/** The counts of both. */
export function sumOf(one: ImportCounts, other: ImportCounts): ImportCounts {
  const rejected = { ...one.rejected };
  for (const [reason, count] of Object.entries(other.rejected) as [RejectionReason, number][])
    rejected[reason] = (rejected[reason] ?? 0) + count;
  return {
    runtime: one.runtime + other.runtime,
    rejected,
    added: one.added + other.added,
    known: one.known + other.known,
    skipped: one.skipped + other.skipped,
    refused: one.refused + other.refused,
  };
}

/** Reasons for which only requests are rejected, never other lines. */
export const requestReasons = [
  'bad-time',
  'bad-status',
  'unknown-encoder',
] as const satisfies readonly RejectionReason[];

/** Number of rejected requests. */
export function requestsRejected({ rejected }: ImportCounts): number {
  return requestReasons.reduce((sum, reason) => sum + (rejected[reason] ?? 0), 0);
}
