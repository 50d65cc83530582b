/** Plans which windows answer a query: their scope, level and range. Pure. */
import { levelRetentionMs, levelsOf, type Level, type Scope } from '../../shared/rollup/rollup.js';
import { retainedFrom } from '../../shared/store/retention.js';
import { needsRequests, type Filter, type Store, type TimeRange } from '../../shared/store/store.js';
import { alignRange, coverRange, levelFor, windowsMax } from '../../shared/time-range.js';

/** Which windows answer a query, and from which time on they are retained. */
export interface TrafficPlan {
  readonly scope: Scope;
  readonly level: Level;
  /** The range of the query, extended to whole windows of the level. */
  readonly range: TimeRange;
  /** Length of a window of the answer: that of the level, or a multiple of it to stay within `windowsMax` windows. */
  readonly stepMs: number;
  /** The period of the same length before the range; `undefined` if it is partly past its retention. */
  readonly previous: TimeRange | undefined;
  /** See `Traffic.retainedFromMs`. */
  readonly retainedFromMs: number | undefined;
  /** See `Traffic.rollupsFromMs`. */
  readonly rollupsFromMs: number | undefined;
}

/** Plans the windows of a query. */
export function planTraffic(
  query: TimeRange & { readonly filter: Filter },
  { requestRetentionMs, rollupRetentionMs }: Pick<Store, 'requestRetentionMs' | 'rollupRetentionMs'>,
  nowMs: number,
): TrafficPlan {
  const { filter, fromMs: askedFromMs } = query;
  const scope = scopeOf(filter);
  const level = levelFor(query, nowMs, scope);
  const range = alignRange(query, level);
  const stepMs = level * 1000 * Math.ceil((range.toMs - range.fromMs) / (level * 1000) / (windowsMax + 1));
  const previous = { fromMs: 2 * range.fromMs - range.toMs, toMs: range.fromMs };
  const requestsFrom = (fromMs: number): number | undefined =>
    needsRequests(filter) ? retainedFrom(requestRetentionMs, fromMs, { windowMs: stepMs, nowMs }) : undefined;
  const isPreviousRetained =
    nowMs - previous.fromMs <= levelRetentionMs(level, rollupRetentionMs ?? Infinity, scope) &&
    requestsFrom(previous.fromMs) === undefined;
  return {
    scope,
    level,
    range,
    stepMs,
    previous: isPreviousRetained ? previous : undefined,
    retainedFromMs: requestsFrom(askedFromMs),
    rollupsFromMs: retainedFrom(rollupRetentionMs, askedFromMs, { windowMs: stepMs, nowMs }),
  };
}

/** Rows of scope `host` answer a filter by host; rows of scope `all` all others. */
export function scopeOf({ host }: Filter): Scope {
  return host === undefined ? 'all' : 'host';
}

/** The conditions of a filter that rollups support. */
export function seriesFilter({ source, host, method, status }: Filter): Filter {
  return {
    ...(source !== undefined && { source }),
    ...(host !== undefined && { host }),
    ...(method !== undefined && { method }),
    ...(status !== undefined && { status }),
  };
}

/** The fewest windows of scope `host` that cover a range, ascending. */
export function hostParts(range: TimeRange, nowMs: number): (TimeRange & { readonly level: Level })[] {
  const finest = levelFor(range, nowMs, 'host');
  return coverRange(
    alignRange(range, finest),
    levelsOf.host.filter((each) => each >= finest),
  );
}
