/** Requests that both Caddy and an app logged, matched by request id. */
import { groupBy } from '../../shared/group-by.js';
import { caddySource, type RequestEvent } from '../../shared/request-event.js';

/** One request as measured by both, in milliseconds. */
export interface RequestPair {
  readonly edgeMs: number;
  readonly appMs: number;
  /** `edgeMs` minus `appMs`. */
  readonly proxyOverheadMs: number;
}

/** Pairs by request id. */
export type RequestPairs = ReadonlyMap<string, RequestPair>;

/**
 * Returns the pairs among requests, by request id. Skips ids with more than two requests (a retry, a second app) and
 * requests without a duration.
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
    // Rounded to nanoseconds, to remove floating-point noise from the difference.
    pairs.set(id, {
      edgeMs: edge.durationMs,
      appMs: app.durationMs,
      proxyOverheadMs: Math.round((edge.durationMs - app.durationMs) * 1e6) / 1e6,
    });
  }
  return pairs;
}
