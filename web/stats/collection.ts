/** Whether the lines of Caddy are stored now: pure, but for `RecentDrops`, which remembers counts. */
import type { LedgerSnapshot } from '../../shared/store/store.js';
import { sumOf } from './fold.js';
import type { State } from './health.js';

/** A reason why requests are missing from the store now. */
export type CollectionFinding =
  /** The store takes nothing, and says why. */
  | {
      readonly kind: 'not-stored';
      readonly state: State;
      readonly sinceMs: number | undefined;
      readonly problem: string;
      readonly heldIn: Collection['heldIn'];
    }
  /** A collector has written no ledger for `reportSilenceMsMax`. */
  | { readonly kind: 'no-report'; readonly state: State; readonly sinceMs: number; readonly collector: string }
  /** A collector drops lines, by reason since it started. */
  | {
      readonly kind: 'dropping';
      readonly state: State;
      readonly sinceMs: number;
      readonly collector: string;
      readonly dropped: Readonly<Record<string, number>>;
    };

/** What is known of the collection. */
export interface Collection {
  /** `Store.problem`. */
  readonly problem: string | undefined;
  /** Where requests wait until the store takes them. */
  readonly heldIn: 'memory' | 'spool';
  /** Newest ledgers of the last hours. */
  readonly ledgers: readonly LedgerSnapshot[];
  /** The collectors that drop lines now: see `RecentDrops`. */
  readonly dropping: ReadonlySet<string>;
}

/**
 * A collector reports at least every 5 s: one that has not for this long, in milliseconds, has stopped or cannot write
 * to the store.
 */
export const reportSilenceMsMax = 15_000;

/**
 * Finds why requests are not stored now, the gravest first. When the store takes nothing, that is why collectors do not
 * report.
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

/** Whether no request at all is stored now, so that nothing can be said of those that do not come. */
export function isNothingStored(findings: readonly CollectionFinding[]): boolean {
  return findings.some(({ kind, state }) => kind === 'not-stored' || (kind === 'no-report' && state === 'failing'));
}

/** Tells which collectors have dropped lines within the last minute, from ledgers whose counts only grow. */
export class RecentDrops {
  readonly #minuteMs = 60_000;
  #seen = new Map<string, { readonly timeMs: number; readonly dropped: number; readonly droppedMs: number }>();

  /**
   * Takes the newest ledgers of all collectors; returns those that drop. The first ledger of a collector is compared
   * with nothing.
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
