import type { RecorderCounts } from '../shared/record/recorder.js';
import {
  withEarlierSpooled,
  type Ledger,
  type LedgerSnapshot,
  type LedgerWarning,
  type SpoolState,
} from '../shared/store/store.js';

/** Why a line was not understood. */
export type RejectionReason =
  | 'too-long'
  /** A connection ended, or a datagram was cut, in the middle of a line. Caddy sends such a line again whole. */
  | 'unterminated'
  | 'not-json'
  /** JSON, but not what Caddy's loggers write. */
  | 'not-caddy'
  /** A request in an encoding that is not read, such as ECS, GELF or logfmt. */
  | 'unknown-encoder'
  /**
   * More than a day ahead, or older than `RETENTION_ROLLUPS`. In a file also one that cannot be read: there is no time
   * of arrival to stand in.
   */
  | 'bad-time'
  | 'bad-status';

/** Why a line that was understood is not counted. */
export type DropReason =
  | 'memory-full'
  | 'spool-full'
  | 'disk-full'
  /** No worker could read them in time, and the supervisor did in its place. They were not looked at. */
  | 'no-worker';

/**
 * The collector's accounts of lines since the process started. Every line is received, and is then accepted, runtime,
 * rejected or dropped; what was accepted is stored, in memory or dead-lettered, which the recorder counts.
 */
export interface LineAccounts {
  received: number;
  runtime: number;
  readonly rejected: Partial<Record<RejectionReason, number>>;
  readonly dropped: Partial<Record<DropReason, number>>;
  readonly warnings: Partial<Record<LedgerWarning, number>>;
  /** Requests whose own time could not be read: they have the time when they came in. */
  timeOfArrival: number;
  /** The beginning of a line that was rejected for each reason, redacted. */
  readonly examples: Partial<Record<RejectionReason, string>>;
  lastLineMs: number | null;
}

/** Accounts with nothing in them. */
export function createLineAccounts(): LineAccounts {
  return {
    received: 0,
    runtime: 0,
    rejected: {},
    dropped: {},
    warnings: {},
    timeOfArrival: 0,
    examples: {},
    lastLineMs: null,
  };
}

/**
 * The ledger: the accounts, and what became of the lines that were accepted, which are the recorder's requests. What
 * the recorder has handed over to a store with a spool is stored only when the spool has delivered it.
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

/** A ledger goes to the store when it has changed, and this often as a sign of life, in milliseconds. */
const heartbeatMs = 5000;

/**
 * Decides when a ledger is due: returns a snapshot of the time `nowMs` to write, or `undefined`. `monotonicMs` is a
 * clock in milliseconds that never steps.
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
