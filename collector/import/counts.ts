import type { RejectionReason } from '../ledger.js';

/** Why a line of a file was rejected. `memory-full`: it is in parts, interleaved with those of too many others. */
export type ImportRejection = RejectionReason | 'memory-full';

/** Counts of the lines of an import by outcome. Each line is in exactly one of them. */
export interface ImportCounts {
  /** Other log lines. */
  runtime: number;
  /** Rejected lines, by reason. */
  readonly rejected: Partial<Record<ImportRejection, number>>;
  /** Requests that were added to the store. */
  added: number;
  /** Requests that the store had already. */
  known: number;
  /** Requests that were not added, as possible duplicates: see `uncertain-windows.ts`. */
  skipped: number;
  /** Requests that the store refused permanently. */
  refused: number;
}

/** Creates counts of zero. */
export function noCounts(): ImportCounts {
  return { runtime: 0, rejected: {}, added: 0, known: 0, skipped: 0, refused: 0 };
}

/** Total number of lines. */
export function linesOf({ runtime, rejected, added, known, skipped, refused }: ImportCounts): number {
  return runtime + added + known + skipped + refused + Object.values(rejected).reduce((sum, count) => sum + count, 0);
}

/** Adds two counts. */
export function sumOf(one: ImportCounts, other: ImportCounts): ImportCounts {
  const rejected = { ...one.rejected };
  for (const [reason, count] of Object.entries(other.rejected) as [ImportRejection, number][])
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
  'memory-full',
] as const satisfies readonly ImportRejection[];

/** Number of rejected requests. */
export function requestsRejected({ rejected }: ImportCounts): number {
  return requestReasons.reduce((sum, reason) => sum + (rejected[reason] ?? 0), 0);
}
