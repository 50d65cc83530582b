/** Whether collectors currently store log lines. Pure, except for `RecentDrops`, which remembers counts. */
import type { LedgerSnapshot } from '../../shared/store/store.js';
import { sumOf } from './fold.js';
import type { State } from './health.js';

/** A reason why requests are currently missing from the store. */
export type CollectionFinding =
  /** The store does not accept writes. `problem` is its error. */
  | {
      readonly kind: 'not-stored';
      readonly state: State;
      readonly sinceMs: number | undefined;
      readonly problem: string;
      readonly heldIn: Collection['heldIn'];
    }
  /** A collector has not written a ledger for `reportSilenceMsMax`. */
  | { readonly kind: 'no-report'; readonly state: State; readonly sinceMs: number; readonly collector: string }
  /** A collector is dropping lines. `dropped` counts them by reason since its start. */
  | {
      readonly kind: 'dropping';
      readonly state: State;
      readonly sinceMs: number;
      readonly collector: string;
      readonly dropped: Readonly<Record<string, number>>;
    };

/** The state of the store and the collectors. */
export interface Collection {
  /** `Store.problem`. */
  readonly problem: string | undefined;
  /** Where requests are queued while the store is down. */
  readonly heldIn: 'memory' | 'spool';
  /** Newest ledgers of the last hours. */
  readonly ledgers: readonly LedgerSnapshot[];
  /** The collectors that are dropping lines. See `RecentDrops`. */
  readonly dropping: ReadonlySet<string>;
}

/** Time without a report until a collector counts as silent, in milliseconds. Collectors report every 5 s. */
export const reportSilenceMsMax = 15_000;

/**
 * Returns why requests are currently not stored, most severe first. While the store is down, silent collectors are not
 * reported separately.
 */
export function collectionFindings(
  { problem, heldIn, ledgers, dropping }: Collection,
  nowMs: number,
): readonly CollectionFinding[] {
  const silent = ledgers.filter(({ timeMs }) => nowMs - timeMs > reportSilenceMsMax);
  const dropped = ledgers
    .filter(({ collector }) => dropping.has(collector))
    .map(
      ({ collector, timeMs, dropped: counts }): CollectionFinding => ({
        kind: 'dropping',
        state: 'failing',
        sinceMs: timeMs,
        collector,
        dropped: counts,
      }),
    );
  if (problem !== undefined) {
    return [
      {
        kind: 'not-stored',
        state: 'failing',
        sinceMs: ledgers.length === 0 ? undefined : Math.max(...ledgers.map(({ timeMs }) => timeMs)),
        problem,
        heldIn,
      },
      ...dropped,
    ];
  }
  const state = silent.length === ledgers.length ? 'failing' : 'degraded';
  return [
    ...dropped,
    ...silent.map(
      ({ collector, timeMs: sinceMs }): CollectionFinding => ({ kind: 'no-report', state, sinceMs, collector }),
    ),
  ];
}

/** Whether no requests are stored at all, so that missing requests do not mean that a source is silent. */
export function isNothingStored(findings: readonly CollectionFinding[]): boolean {
  return findings.some(({ kind, state }) => kind === 'not-stored' || (kind === 'no-report' && state === 'failing'));
}

/** Detects collectors that have dropped lines within the last minute, from the counters of their ledgers. */
export class RecentDrops {
  readonly #minuteMs = 60_000;
  #seen = new Map<string, { readonly timeMs: number; readonly dropped: number; readonly droppedMs: number }>();

  /**
   * Accepts the newest ledgers of all collectors and returns the names of those that dropped lines. The first ledger
   * of a collector is only a baseline.
   */
  observe(ledgers: readonly LedgerSnapshot[], nowMs: number): ReadonlySet<string> {
    this.#seen = new Map(ledgers.map((ledger) => [ledger.collector, this.#entryOf(ledger)]));
    return new Set(
      [...this.#seen]
        .filter(([, { droppedMs }]) => nowMs - droppedMs <= this.#minuteMs)
        .map(([collector]) => collector),
    );
  }

  #entryOf({ collector, timeMs, dropped: counts }: LedgerSnapshot) {
    const dropped = sumOf(counts);
    const before = this.#seen.get(collector);
    if (before === undefined || before.timeMs > timeMs) return before ?? { timeMs, dropped, droppedMs: -Infinity };
    const isRecent = dropped > before.dropped && timeMs - before.timeMs <= this.#minuteMs;
    return { timeMs, dropped, droppedMs: isRecent ? timeMs : before.droppedMs };
  }
}
