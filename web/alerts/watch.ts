/**
 * Decides when alerts fire and when they are resolved. Pure. Uses the thresholds of the status line (`health.ts`),
 * which have hysteresis. In addition, a finding must persist before it fires, and be absent for a while before it is
 * resolved.
 */
import type { CollectionFinding } from '../stats/collection.js';
import type { Finding as SourceFinding } from '../stats/health.js';

/** The subject of an alert. */
export type Finding = SourceFinding | (CollectionFinding & { readonly sinceMs: number });

/** The findings of a source, the store or a collector. */
export interface Observation {
  readonly source: string;
  /** `undefined` for too few requests to evaluate. */
  readonly findings: readonly Finding[] | undefined;
  /** End of its last window, in milliseconds since 1970. A later value than the start of a silence ends it. */
  readonly lastMs: number;
}

/** An alert that fires or is resolved. */
export interface Change {
  readonly status: 'firing' | 'resolved';
  readonly source: string;
  /** The last observed finding. */
  readonly finding: Finding;
  /** Start of the finding, in milliseconds since 1970. */
  readonly sinceMs: number;
}

interface State {
  readonly source: string;
  finding: Finding;
  readonly sinceMs: number;
  /** Time of the first observation, by the monotonic clock. */
  readonly foundMs: number;
  firing: boolean;
  /** Since when it has been absent, by the monotonic clock. */
  goneMs: number | undefined;
}

/** Options of `Watch`. */
export interface WatchOptions {
  /** How long a finding must persist before it fires, in milliseconds. Default: 15,000. */
  readonly fireAfterMs?: number | undefined;
  /** How long a finding must be absent before it is resolved, in milliseconds. Default: 60,000. */
  readonly resolveAfterMs?: number | undefined;
  /** Maximum number of findings to track. Others are ignored. Default: 200. */
  readonly alertsMax?: number | undefined;
}

/** Tracks findings over time. */
export class Watch {
  readonly #fireAfterMs: number;
  readonly #resolveAfterMs: number;
  readonly #alertsMax: number;
  /** By kind and source. */
  readonly #states = new Map<string, State>();

  constructor({ fireAfterMs = 15_000, resolveAfterMs = 60_000, alertsMax = 200 }: WatchOptions = {}) {
    this.#fireAfterMs = fireAfterMs;
    this.#resolveAfterMs = resolveAfterMs;
    this.#alertsMax = alertsMax;
  }

  /**
   * Accepts the current observations of all sources with requests and returns the alerts that change. Durations are
   * measured by `monotonicMs`.
   */
  observe(observations: readonly Observation[], monotonicMs: number): Change[] {
    const bySource = new Map(observations.map((observation) => [observation.source, observation]));
    const found = new Set<string>();
    for (const { source, findings = [] } of observations) {
      for (const finding of findings) {
        const key = `${finding.kind} ${source}`;
        found.add(key);
        this.#track(key, source, finding, monotonicMs);
      }
    }
    return [...this.#states].flatMap(([key, state]) => {
      const status = found.has(key)
        ? this.#rise(state, monotonicMs)
        : this.#fall(key, state, bySource.get(state.source), monotonicMs);
      return status === undefined
        ? []
        : [{ status, source: state.source, finding: state.finding, sinceMs: state.sinceMs }];
    });
  }

  #track(key: string, source: string, finding: Finding, foundMs: number): void {
    const state = this.#states.get(key);
    if (state !== undefined) Object.assign(state, { finding, goneMs: undefined });
    else if (this.#states.size < this.#alertsMax)
      this.#states.set(key, {
        source,
        finding,
        sinceMs: finding.sinceMs,
        foundMs,
        firing: false,
        goneMs: undefined,
      });
  }

  #rise(state: State, monotonicMs: number): 'firing' | undefined {
    if (state.firing || monotonicMs - state.foundMs < this.#fireAfterMs) return undefined;
    state.firing = true;
    return 'firing';
  }

  #fall(key: string, state: State, observation: Observation | undefined, monotonicMs: number): 'resolved' | undefined {
    if (!state.firing) {
      this.#states.delete(key);
      return undefined;
    }
    if (!isOver(state.finding, observation)) {
      state.goneMs = undefined;
      return undefined;
    }
    state.goneMs ??= monotonicMs;
    if (monotonicMs - state.goneMs < this.#resolveAfterMs) return undefined;
    this.#states.delete(key);
    return 'resolved';
  }
}

/**
 * Whether an absent finding is over. With too few requests to evaluate, errors and slowness persist. Silence ends only
 * with a new request.
 */
function isOver(finding: Finding, observation: Observation | undefined): boolean {
  if (observation === undefined) return false;
  return finding.kind === 'silent' ? observation.lastMs > finding.sinceMs : observation.findings !== undefined;
}
