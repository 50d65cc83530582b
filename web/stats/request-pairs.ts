/** Single requests that edge and app have logged under one id: only the two together tell the time outside the app. */
import { groupBy } from '../../shared/group-by.js';
import { caddySource, type RequestEvent } from '../../shared/request-event.js';

/** One request as both have measured it, in milliseconds. */
export interface RequestPair {
  readonly edgeMs: number;
  readonly appMs: number;
  /** What the edge took and the app did not. */
  readonly proxyOverheadMs: number;
}

/** Pairs by request id. */
export type RequestPairs = ReadonlyMap<string, RequestPair>;

/**
 * The pairs among these requests, by request id. An id that one side has twice (a retry, a second app) tells no pair,
 * and neither does a duration that is not known.
 */
export function requestPairs(requests: readonly RequestEvent[]): RequestPairs {
  const pairs = new Map<string, RequestPair>();
  for (const [id, [one, other, ...more]] of groupBy(
    requests.filter(({ requestId }) => requestId !== ''),
    ({ requestId }) => requestId,
  )) {
    if (other === undefined || more.length > 0) continue;
    const [edge, app] = one!.source === caddySource ? [one!, other] : [other, one!];
    if (
      edge.source !== caddySource ||
      app.source === caddySource ||
      edge.durationMs === null ||
      app.durationMs === null
    )
      continue;
    // Rounded to a nanosecond: the difference of two decimals has digits of its own.
    pairs.set(id, {
      edgeMs: edge.durationMs,
      appMs: app.durationMs,
      proxyOverheadMs: Math.round((edge.durationMs - app.durationMs) * 1e6) / 1e6,
    });
  }
  return pairs;
}
