/**
 * How a source does, judged by its windows: pure. A window alone may hold too few requests to say anything, so each is
 * judged together with as many before it as it takes to have `healthRequestsMin`. A state is left at a lower value than
 * it was entered at, so that it does not flicker.
 */
import { Histogram } from '../../shared/sketch/histogram.js';
import { dashboardSource, formerDashboardSource } from '../../shared/request-event.js';
import type { Figures, WindowFigures } from './figures.js';

/** How a source does. */
export type State = 'well' | 'degraded' | 'failing';

/** What was found, as of the last window. */
export type HealthStatus =
  /** Fewer than `healthRequestsMin` requests. */
  { readonly kind: 'unjudged' } | { readonly kind: 'well' } | Finding;

/** What there is to say against a source. */
export type Finding =
  /** `share` of 5xx among the requests judged last. */
  | { readonly kind: 'errors'; readonly state: State; readonly sinceMs: number; readonly share: number }
  /** `p95Ms` of the requests judged last, and that of the previous period. */
  | {
      readonly kind: 'slow';
      readonly state: State;
      readonly sinceMs: number;
      readonly p95Ms: number;
      readonly usualMs: number;
    }
  /** Longer than `limitMs`. */
  | { readonly kind: 'silent'; readonly state: State; readonly sinceMs: number; readonly limitMs: number };

/** Nothing is judged on fewer requests. */
export const healthRequestsMin = 120;
/** A p95 of so few requests would rise and fall by chance: it is judged on this many, or on all that there are. */
const healthLatenciesMin = 600;
/** Shares of 5xx above which a source gets into a state, and below which it leaves it. */
export const errorShares = { failing: { enter: 0.05, leave: 0.025 }, degraded: { enter: 0.02, leave: 0.01 } } as const;
/** The same for the p95, in multiples of the previous period's. */
export const slowFactors = { enter: 2, leave: 1.5 } as const;
/** No source is silent before this long without a request, in milliseconds. */
const silenceMsMin = 300_000;
/**
 * Silence in multiples of the mean distance of requests: in a steady stream a gap is that long once in 20,000 by
 * chance.
 */
const silenceDistancesMin = 10;
/** Silence in multiples of the usual gap between windows with requests: traffic may come in bursts. */
const silenceGapsMin = 3;

/** What `evaluateHealth` needs to know besides the windows. */
export interface EvaluatedRange {
  readonly stepMs: number;
  /** The figures of the period before; `undefined` where there are none. */
  readonly previous: Figures | undefined;
  /** When the last request came, where that is known better than by its window. */
  readonly lastMs?: number | undefined;
  /** Now, in milliseconds since 1970, where the range reaches up to now: only then can a source be silent. */
  readonly liveMs: number | undefined;
  /**
   * The last hours in fine windows, of this source, whatever the range is: silence is judged by them where they hold
   * enough requests.
   */
  readonly recent?: RecentWindows | undefined;
  /** See `Recent.ownSinceMs`. Default: nothing is known of it. */
  readonly ownSinceMs?: number | undefined;
}

/** Windows up to now. */
export interface RecentWindows {
  readonly windows: readonly WindowFigures[];
  readonly stepMs: number;
}

/** Judges one source by its windows, in order of time. Of several findings the gravest one is given. */
export function evaluateHealth(windows: readonly WindowFigures[], range: EvaluatedRange): HealthStatus {
  const found = findingsOf(windows, range);
  return found === undefined ? { kind: 'unjudged' } : (found[0] ?? { kind: 'well' });
}

/**
 * What there is to say against a source, of each kind once and the gravest first; `undefined` where it has too few
 * requests to be judged.
 */
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

/** A window and as many before it as it takes. */
interface Block {
  /** The start of its last window. */
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

/** When the state was entered that the last block is still in; `undefined` when it is in none. */
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

/** Too many errors that are over. */
export interface PastErrors {
  readonly fromMs: number;
  readonly toMs: number;
  /** The greatest share of 5xx meanwhile. */
  readonly share: number;
}

/**
 * When a source last was as it should not be, of several times the worst; `undefined` where it was not, or still is.
 */
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
 * Judges how long ago the last request came, by the first of several views of the same traffic that can tell: one with
 * enough requests, and from a source that was seen for at least as long as the gap that would be unusual. The dashboard
 * never falls silent: that nobody looks at it is no news.
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
 * The second largest distance of windows with requests, from start to start: a gap that came once was an outage, one
 * that came twice is usual. It is a window at least, since gaps within one are not seen.
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
