/**
 * How a source does, judged by its windows: pure. A window alone may hold too few requests to say anything, so each is judged
 * together with as many before it as it takes to have `judgedRequestsMin`. A state is left at a lower value than it was
 * entered at, so that it does not flicker.
 */
import { Histogram } from '../../shared/histogram.js';
import type { Figures, WindowFigures } from './figures.js';

/** How a source does. */
export type State = 'well' | 'troubled' | 'failing';

/** What was found, as of the last window. */
export type Verdict =
  /** Fewer than `judgedRequestsMin` requests. */
  | { readonly kind: 'unjudged' }
  | { readonly kind: 'well' }
  | Finding;

/** What there is to say against a source. */
export type Finding =
  /** `share` of 5xx among the requests judged last. */
  | { readonly kind: 'errors'; readonly state: State; readonly sinceMs: number; readonly share: number }
  /** `p95Ms` of the requests judged last, and that of the previous period. */
  | { readonly kind: 'slow'; readonly state: State; readonly sinceMs: number; readonly p95Ms: number; readonly usualMs: number }
  /** Longer than `limitMs`. */
  | { readonly kind: 'silent'; readonly state: State; readonly sinceMs: number; readonly limitMs: number };

/** Nothing is judged on fewer requests. */
export const judgedRequestsMin = 120;
/** A p95 of so few requests would rise and fall by chance: it is judged on this many, or on all that there are. */
const judgedLatenciesMin = 600;
/** Shares of 5xx above which a source gets into a state, and below which it leaves it. */
export const errorShares = { failing: { enter: 0.05, leave: 0.025 }, troubled: { enter: 0.02, leave: 0.01 } } as const;
/** The same for the p95, in multiples of the previous period's. */
export const slowFactors = { enter: 2, leave: 1.5 } as const;
/** A source without a request for this long is silent, in milliseconds, */
const silenceMsMin = 60_000;
/** unless its requests come so far apart that this many mean distances are longer still: by chance that happens once in 20,000. */
const silenceDistancesMin = 10;

/** The web app counts its own pages under this name: that nobody looks at them is no news. */
const ownSource = 'app';

/** What `judge` needs to know besides the windows. */
export interface JudgedRange {
  readonly stepMs: number;
  /** The figures of the period before; `undefined` where there are none. */
  readonly previous: Figures | undefined;
  /** When the last request came, where that is known better than by its window. */
  readonly lastMs?: number | undefined;
  /** Now, in milliseconds since 1970, where the range reaches up to now: only then can a source be silent. */
  readonly liveMs: number | undefined;
}

/** Judges one source by its windows, in order of time. Of several findings the gravest one is given. */
export function judge(windows: readonly WindowFigures[], range: JudgedRange): Verdict {
  const found = findingsOf(windows, range);
  return found === undefined ? { kind: 'unjudged' } : found[0] ?? { kind: 'well' };
}

/** What there is to say against a source, of each kind once and the gravest first; `undefined` where it has too few requests to be judged. */
export function findingsOf(windows: readonly WindowFigures[], { stepMs, previous, lastMs, liveMs }: JudgedRange): readonly Finding[] | undefined {
  const requests = windows.reduce((sum, window) => sum + window.requests, 0);
  const blocks = blocksOf(windows, judgedRequestsMin);
  const last = blocks.at(-1);
  if (last === undefined) return undefined;
  const errorsIn = (state: 'failing' | 'troubled'): Finding | undefined => {
    const sinceMs = sinceOf(blocks, errorShare, errorShares[state]);
    return sinceMs === undefined ? undefined : { kind: 'errors', state, sinceMs, share: errorShare(last) };
  };
  const failing = errorsIn('failing');
  return [
    failing,
    silence(windows, requests, { stepMs, lastMs, liveMs }),
    failing === undefined ? errorsIn('troubled') : undefined,
    slowness(windows, requests, previous),
  ].filter((finding) => finding !== undefined);
}

function slowness(windows: readonly WindowFigures[], requests: number, previous: Figures | undefined): Finding | undefined {
  const usualMs = previous === undefined || previous.requests < judgedRequestsMin ? null : previous.latencyMs.p95;
  if (usualMs === null || usualMs <= 0) return undefined;
  const factorOf = (block: Block): number => (histogramOf(block).quantile(0.95) ?? 0) / usualMs;
  const blocks = blocksOf(windows, Math.min(judgedLatenciesMin, requests));
  const sinceMs = sinceOf(blocks, factorOf, slowFactors);
  return sinceMs === undefined ? undefined : { kind: 'slow', state: 'troubled', sinceMs, p95Ms: factorOf(blocks.at(-1)!) * usualMs, usualMs };
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
function sinceOf(blocks: readonly Block[], valueOf: (block: Block) => number, { enter, leave }: { enter: number; leave: number }): number | undefined {
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

/** When a source last was as it should not be, of several times the worst; `undefined` where it was not, or still is. */
export function pastErrors(windows: readonly WindowFigures[]): PastErrors | undefined {
  let open: PastErrors | undefined;
  let worst: PastErrors | undefined;
  for (const block of blocksOf(windows, judgedRequestsMin)) {
    const share = errorShare(block);
    if (open === undefined && share > errorShares.troubled.enter) open = { fromMs: block.timeMs, toMs: block.timeMs, share };
    else if (open !== undefined && share >= errorShares.troubled.leave) open = { ...open, share: Math.max(open.share, share) };
    else if (open !== undefined) {
      if (worst === undefined || open.share > worst.share) worst = { ...open, toMs: block.timeMs };
      open = undefined;
    }
  }
  return open === undefined ? worst : undefined;
}

/** Since the last request, or the end of the window that it is in, where that is too long ago. */
function silence(windows: readonly WindowFigures[], requests: number, { stepMs, lastMs, liveMs }: Pick<JudgedRange, 'stepMs' | 'lastMs' | 'liveMs'>): Finding | undefined {
  const first = windows[0];
  const last = windows.at(-1);
  if (liveMs === undefined || first === undefined || last === undefined || first.source === ownSource) return undefined;
  const sinceMs = lastMs ?? last.timeMs + stepMs;
  const distanceMs = (sinceMs - first.timeMs) / requests;
  const limitMs = Math.max(silenceMsMin, silenceDistancesMin * distanceMs);
  return liveMs - sinceMs > limitMs ? { kind: 'silent', state: 'failing', sinceMs, limitMs } : undefined;
}
