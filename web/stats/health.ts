/**
 * Evaluates the health of a source from its windows. Pure. A single window may have too few requests, so each is
 * evaluated with as many windows before it as needed for `healthRequestsMin`. Thresholds have hysteresis, so that
 * states do not flap.
 */
import { Histogram } from '../../shared/sketch/histogram.js';
import { dashboardSource, formerDashboardSource } from '../../shared/request-event.js';
import type { Figures, WindowFigures } from './figures.js';

/** Severity of a finding, or `well`. */
export type State = 'well' | 'degraded' | 'failing';

/** The health of a source as of its last window. */
export type HealthStatus =
  /** Fewer than `healthRequestsMin` requests. */
  { readonly kind: 'unknown' } | { readonly kind: 'well' } | Finding;

/** A problem of a source. */
export type Finding =
  /** `share` of 5xx among the last evaluated requests. */
  | { readonly kind: 'errors'; readonly state: State; readonly sinceMs: number; readonly share: number }
  /** `p95Ms` of the last evaluated requests, and of the previous period. */
  | {
      readonly kind: 'slow';
      readonly state: State;
      readonly sinceMs: number;
      readonly p95Ms: number;
      readonly usualMs: number;
    }
  /** No requests for longer than `limitMs`. */
  | { readonly kind: 'silent'; readonly state: State; readonly sinceMs: number; readonly limitMs: number };

/** Minimum number of requests to evaluate. */
export const healthRequestsMin = 120;
/** Minimum number of requests to evaluate a p95, or all if there are fewer. A p95 of fewer requests is too noisy. */
const healthLatenciesMin = 600;
/** Share of 5xx above which a source enters a state, and below which it leaves it. */
export const errorShares = { failing: { enter: 0.05, leave: 0.025 }, degraded: { enter: 0.02, leave: 0.01 } } as const;
/** The same for the p95, as multiples of the previous period's. */
export const slowFactors = { enter: 2, leave: 1.5 } as const;
/** Minimum time without requests until a source is silent, in milliseconds. */
const silenceMsMin = 300_000;
/** The same in multiples of the mean interval between requests. In random traffic one gap in 20,000 is that long. */
const silenceDistancesMin = 10;
/** The same in multiples of the usual gap between windows with requests. Allows for bursty traffic. */
const silenceGapsMin = 3;

/** Context of `evaluateHealth`. */
export interface EvaluatedRange {
  readonly stepMs: number;
  /** The figures of the previous period, if any. */
  readonly previous: Figures | undefined;
  /** Time of the last request, if known more precisely than by its window. */
  readonly lastMs?: number | undefined;
  /** Now, in milliseconds since 1970, if the range ends now. Silence is only evaluated then. */
  readonly liveMs: number | undefined;
  /** The last hours of this source in fine windows. Used to detect silence if they have enough requests. */
  readonly recent?: RecentWindows | undefined;
  /** See `Recent.ownSinceMs`. Default: unknown. */
  readonly ownSinceMs?: number | undefined;
}

/** Windows that end now. */
export interface RecentWindows {
  readonly windows: readonly WindowFigures[];
  readonly stepMs: number;
}

/** Evaluates the health of a source from its windows, ascending. Returns the most severe of several findings. */
export function evaluateHealth(windows: readonly WindowFigures[], range: EvaluatedRange): HealthStatus {
  const found = findingsOf(windows, range);
  return found === undefined ? { kind: 'unknown' } : (found[0] ?? { kind: 'well' });
}

/** Returns the findings of a source, at most one of each kind, most severe first; `undefined` for too few requests. */
export function findingsOf(
  windows: readonly WindowFigures[],
  { stepMs, previous, lastMs, liveMs, recent, ownSinceMs }: EvaluatedRange,
): readonly Finding[] | undefined {
  const silent = silence([...(recent === undefined ? [] : [recent]), { windows, stepMs }], {
    lastMs,
    liveMs,
    ownSinceMs,
  });
  const requests = windows.reduce((sum, window) => sum + window.requests, 0);
  const blocks = blocksOf(windows, healthRequestsMin);
  const last = blocks.at(-1);
  if (last === undefined) return silent === undefined ? undefined : [silent];
  const errorsIn = (state: 'failing' | 'degraded'): Finding | undefined => {
    const sinceMs = sinceOf(blocks, errorShare, errorShares[state]);
    return sinceMs === undefined ? undefined : { kind: 'errors', state, sinceMs, share: errorShare(last) };
  };
  const failing = errorsIn('failing');
  return [
    failing,
    silent,
    failing === undefined ? errorsIn('degraded') : undefined,
    slowness(windows, requests, previous),
  ].filter((finding) => finding !== undefined);
}

function slowness(
  windows: readonly WindowFigures[],
  requests: number,
  previous: Figures | undefined,
): Finding | undefined {
  const usualMs = previous === undefined || previous.requests < healthRequestsMin ? null : previous.latencyMs.p95;
  if (usualMs === null || usualMs <= 0) return undefined;
  const factorOf = (block: Block): number => (histogramOf(block).quantile(0.95) ?? 0) / usualMs;
  const blocks = blocksOf(windows, Math.min(healthLatenciesMin, requests));
  const sinceMs = sinceOf(blocks, factorOf, slowFactors);
  return sinceMs === undefined
    ? undefined
    : { kind: 'slow', state: 'degraded', sinceMs, p95Ms: factorOf(blocks.at(-1)!) * usualMs, usualMs };
}

/** A window plus as many preceding windows as it takes to reach the minimum number of requests. */
interface Block {
  /** Start of its last window. */
  readonly timeMs: number;
  readonly requests: number;
  readonly errors: number;
  readonly windows: readonly WindowFigures[];
}

function blocksOf(windows: readonly WindowFigures[], requestsMin: number): Block[] {
  const blocks: Block[] = [];
  windows.forEach(({ timeMs }, end) => {
    let requests = 0;
    let errors = 0;
    let at = end + 1;
    while (at > 0 && requests < requestsMin) {
      at -= 1;
      requests += windows[at]!.requests;
      errors += windows[at]!.errors;
    }
    if (requests >= requestsMin) blocks.push({ timeMs, requests, errors, windows: windows.slice(at, end + 1) });
  });
  return blocks;
}

function histogramOf({ windows }: Block): Histogram {
  if (windows.length === 1) return windows[0]!.histogram;
  const histogram = new Histogram();
  for (const window of windows) histogram.merge(window.histogram);
  return histogram;
}

function errorShare({ errors, requests }: Block): number {
  return errors / requests;
}

/** When the current state was entered; `undefined` if the last block is not in it. */
function sinceOf(
  blocks: readonly Block[],
  valueOf: (block: Block) => number,
  { enter, leave }: { enter: number; leave: number },
): number | undefined {
  let sinceMs: number | undefined;
  for (const block of blocks) {
    const value = valueOf(block);
    if (sinceMs === undefined && value > enter) sinceMs = block.timeMs;
    else if (value < leave) sinceMs = undefined;
  }
  return sinceMs;
}

/** A past period of too many errors. */
export interface PastErrors {
  readonly fromMs: number;
  readonly toMs: number;
  /** Maximum share of 5xx during the period. */
  readonly share: number;
}

/** Returns the worst past period of too many errors; `undefined` if there is none or one is still going on. */
export function pastErrors(windows: readonly WindowFigures[]): PastErrors | undefined {
  let open: PastErrors | undefined;
  let worst: PastErrors | undefined;
  for (const block of blocksOf(windows, healthRequestsMin)) {
    const share = errorShare(block);
    if (open === undefined && share > errorShares.degraded.enter)
      open = { fromMs: block.timeMs, toMs: block.timeMs, share };
    else if (open !== undefined && share >= errorShares.degraded.leave)
      open = { ...open, share: Math.max(open.share, share) };
    else if (open !== undefined) {
      if (worst === undefined || open.share > worst.share) worst = { ...open, toMs: block.timeMs };
      open = undefined;
    }
  }
  return open === undefined ? worst : undefined;
}

/**
 * Evaluates the time since the last request. Uses the first view with enough requests and a history longer than the
 * limit. The dashboard is never silent: having no viewers is normal.
 */
function silence(
  views: readonly RecentWindows[],
  { lastMs, liveMs, ownSinceMs = -Infinity }: Pick<EvaluatedRange, 'lastMs' | 'liveMs' | 'ownSinceMs'>,
): Finding | undefined {
  if (liveMs === undefined) return undefined;
  for (const { windows, stepMs } of views) {
    const requests = windows.reduce((sum, window) => sum + window.requests, 0);
    if (requests < healthRequestsMin) continue;
    const last = windows.at(-1)!;
    if (last.source === dashboardSource || (last.source === formerDashboardSource && last.timeMs <= ownSinceMs))
      return undefined;
    const sinceMs = lastMs !== undefined && lastMs >= last.timeMs ? lastMs : last.timeMs + stepMs;
    const seenMs = sinceMs - windows[0]!.timeMs;
    const limitMs = Math.max(
      silenceMsMin,
      (silenceDistancesMin * seenMs) / requests,
      silenceGapsMin * usualGapMs(windows, stepMs),
    );
    if (seenMs < limitMs) continue;
    return liveMs - sinceMs > limitMs ? { kind: 'silent', state: 'failing', sinceMs, limitMs } : undefined;
  }
  return undefined;
}

/**
 * The second longest interval between the starts of windows with requests: a gap that occurred once may be an outage, a
 * gap that occurred twice is usual. At least one window.
 */
function usualGapMs(windows: readonly WindowFigures[], stepMs: number): number {
  let [largest, second] = [stepMs, stepMs];
  for (let at = 1; at < windows.length; at += 1) {
    const gapMs = windows[at]!.timeMs - windows[at - 1]!.timeMs;
    if (gapMs > largest) [largest, second] = [gapMs, largest];
    else if (gapMs > second) second = gapMs;
  }
  return second;
}
