/**
 * When an alert is sent, and when it is over: pure. The thresholds are those of the status line (`evaluateHealth.ts`),
 * which are left at lower values than they are entered at; on top of that a finding has to last before it fires, and to
 * be gone for a while before it is resolved.
 */
import type { CollectionFinding } from '../stats/collection.js';
import type { Finding as SourceFinding } from '../stats/health.js';

/** What an alert can be about. */
export type Finding = SourceFinding | (CollectionFinding & { readonly sinceMs: number });

/** What was found of one source, of the store or of a collector. */
export interface Observation {
  readonly source: string;
  /** `undefined` where it has too few requests to be judged. */
  readonly findings: readonly Finding[] | undefined;
  /** When its last window ended, or will end: milliseconds since 1970. Later than a silence began: it is over. */
  readonly lastMs: number;
}

/** An alert that begins or ends. */
export interface Change {
  readonly status: 'firing' | 'resolved';
  readonly source: string;
  /** As it was when it was last found. */
  readonly finding: Finding;
  /** Since when, in milliseconds since 1970. */
  readonly sinceMs: number;
}

/** Remembers what was found. */
export interface Watch {
  /**
   * Takes what is found now of every source that had requests; returns what changes by it. `monotonicMs` is the time of
   * a clock that never steps: how long a finding lasts goes by that.
   */
  observe(observations: readonly Observation[], monotonicMs: number): Change[];
}

interface State {
  readonly source: string;
  finding: Finding;
  readonly sinceMs: number;
  /** When it was first found, by the monotonic clock. */
  readonly foundMs: number;
  firing: boolean;
  /** Since when it is no longer found, by the monotonic clock. */
  goneMs: number | undefined;
}

/**
 * `fireAfterMs`: how long a finding lasts before it fires, 15 s; `resolveAfterMs`: how long it is gone before it is
 * resolved, 60 s; `alertsMax`: what is found beyond so many at once is left out.
 */
export function createWatch({ fireAfterMs = 15_000, resolveAfterMs = 60_000, alertsMax = 200 } = {}): Watch {
  const states = new Map<string, State>();

  return {
    observe(observations, monotonicMs) {
      const bySource = new Map(observations.map((observation) => [observation.source, observation]));
      const found = new Set<string>();
      for (const { source, findings = [] } of observations) {
        for (const finding of findings) {
          const key = `${finding.kind} ${source}`;
          found.add(key);
          const state = states.get(key);
          if (state !== undefined) Object.assign(state, { finding, goneMs: undefined });
          else if (states.size < alertsMax)
            states.set(key, {
              source,
              finding,
              sinceMs: finding.sinceMs,
              foundMs: monotonicMs,
              firing: false,
              goneMs: undefined,
            });
        }
      }
      return [...states].flatMap(([key, state]) => {
        const status = found.has(key)
          ? rise(state, monotonicMs)
          : fall(key, state, bySource.get(state.source), monotonicMs);
        return status === undefined
          ? []
          : [{ status, source: state.source, finding: state.finding, sinceMs: state.sinceMs }];
      });
    },
  };

  function rise(state: State, monotonicMs: number): 'firing' | undefined {
    if (state.firing || monotonicMs - state.foundMs < fireAfterMs) return undefined;
    state.firing = true;
    return 'firing';
  }

  function fall(
    key: string,
    state: State,
    observation: Observation | undefined,
    monotonicMs: number,
  ): 'resolved' | undefined {
    if (!state.firing) {
      states.delete(key);
      return undefined;
    }
    if (!isOver(state.finding, observation)) {
      state.goneMs = undefined;
      return undefined;
    }
    state.goneMs ??= monotonicMs;
    if (monotonicMs - state.goneMs < resolveAfterMs) return undefined;
    states.delete(key);
    return 'resolved';
  }
}

/**
 * Too few requests do not say that errors or slowness are over. Silence is over with the first request, and not when
 * there is too little left to judge it by.
 */
function isOver(finding: Finding, observation: Observation | undefined): boolean {
  if (observation === undefined) return false;
  return finding.kind === 'silent' ? observation.lastMs > finding.sinceMs : observation.findings !== undefined;
}
