import type { RecorderCounts } from '../shared/record/recorder.js';
import {
  withEarlierSpooled,
  type Ledger,
  type LedgerSnapshot,
  type LedgerWarning,
  type SpoolState,
} from '../shared/store/store.js';

/** Why a line was rejected. */
export type RejectionReason =
  | 'too-long'
  /** The connection ended, or the datagram was truncated, within the line. Caddy sends such a line again. */
  | 'unterminated'
  | 'not-json'
  /** JSON, but not a Caddy log line. */
  | 'not-caddy'
  /** A request in an unsupported encoding, such as ECS, GELF or logfmt. */
  | 'unknown-encoder'
  /**
   * More than a day in the future, or older than `RETENTION_ROLLUPS`. In a file also unreadable, since there is no
   * arrival time to fall back to.
   */
  | 'bad-time'
  | 'bad-status';

/** Why a valid line was dropped. */
export type DropReason =
  | 'memory-full'
  | 'spool-full'
  | 'disk-full'
  /** No worker read it in time, and the supervisor could not buffer it. It was not decoded. */
  | 'no-worker';

/**
 * Counts of lines since the process started. Every received line is then accepted, `runtime` (other log lines),
 * rejected or dropped. The recorder counts the accepted ones.
 */
export interface LineAccounts {
  received: number;
  runtime: number;
  /** Those of them that are stored as events. */
  events: number;
  readonly rejected: Partial<Record<RejectionReason, number>>;
  readonly dropped: Partial<Record<DropReason, number>>;
  readonly warnings: Partial<Record<LedgerWarning, number>>;
  /** Number of requests without a readable time, which get their arrival time. */
  timeOfArrival: number;
  /** The redacted beginning of a rejected line, by reason. */
  readonly examples: Partial<Record<RejectionReason, string>>;
  lastLineMs: number | null;
}

/** Creates accounts with all counts at zero. */
export function createLineAccounts(): LineAccounts {
  return {
    received: 0,
    runtime: 0,
    events: 0,
    rejected: {},
    dropped: {},
    warnings: {},
    timeOfArrival: 0,
    examples: {},
    lastLineMs: null,
  };
}

/**
 * Combines the accounts of lines with the recorder's counts of requests. With a spool, requests count as stored only
 * when the spool has delivered them.
 */
export function ledgerOf(
  accounts: LineAccounts,
  { recorded, stored: handedOver, deadLettered: refused }: RecorderCounts,
  spool?: SpoolState,
): Ledger {
  const spooled = spool?.own.spooled ?? 0;
  const deadLettered = refused + (spool?.own.deadLettered ?? 0);
  const stored = spool?.own.stored ?? handedOver;
  return {
    received: accounts.received,
    accepted: recorded,
    runtime: accounts.runtime,
    events: accounts.events,
    rejected: { ...accounts.rejected },
    dropped: { ...accounts.dropped },
    stored,
    spooled,
    inMemory: recorded - stored - spooled - deadLettered,
    deadLettered,
    warnings: withEarlierSpooled(accounts.warnings, spool),
    lastLineMs: accounts.lastLineMs,
  };
}

/** Interval at which an unchanged ledger is written again, in milliseconds. */
const heartbeatMs = 5000;

/**
 * Returns a function that decides when the ledger is written: when it has changed, and as a heartbeat. It returns the
 * snapshot to write, or `undefined`. `monotonicMs` is a monotonic clock in milliseconds.
 */
export function createLedgerSchedule(
  collector: string,
  { monotonicMs = () => performance.now() } = {},
): (ledger: Ledger, nowMs: number) => LedgerSnapshot | undefined {
  let lastText = '';
  let lastMs = -Infinity;
  return (ledger, nowMs) => {
    const text = JSON.stringify(ledger);
    if (text === lastText && monotonicMs() - lastMs < heartbeatMs) return undefined;
    lastText = text;
    lastMs = monotonicMs();
    return { ...ledger, collector, timeMs: nowMs };
  };
}
