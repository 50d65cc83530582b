import { isoTime } from '../time-range.js';
import type { Ledger } from './store.js';

/**
 * A ledger as returned by the collector's `/ledger` and the web app's `/api/ledger`: counts of lines, times in RFC
 * 3339.
 */
export interface LedgerJson {
  readonly received: number;
  readonly accepted: number;
  /** Lines that are not access lines: `events` and `other`. */
  readonly runtime: number;
  /** Lines that are stored as events. */
  readonly events: number;
  /** Lines of no use. */
  readonly other: number;
  readonly rejected: Readonly<Record<string, number>>;
  readonly dropped: Readonly<Record<string, number>>;
  readonly stored: number;
  readonly spooled: number;
  readonly in_memory: number;
  readonly dead_lettered: number;
  readonly warnings: Readonly<Record<string, number>>;
  /** `null` before the first line. */
  readonly last_line: string | null;
}

/** Converts a ledger to its JSON form. */
export function ledgerJson(ledger: Ledger): LedgerJson {
  const {
    received,
    accepted,
    runtime,
    events,
    rejected,
    dropped,
    stored,
    spooled,
    inMemory,
    deadLettered,
    warnings,
    lastLineMs,
  } = ledger;
  return {
    received,
    accepted,
    runtime,
    events,
    other: runtime - events,
    rejected,
    dropped,
    stored,
    spooled,
    in_memory: inMemory,
    dead_lettered: deadLettered,
    warnings,
    last_line: lastLineMs === null ? null : isoTime(lastLineMs),
  };
}
