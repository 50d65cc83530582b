/** A finished request, as seen by Caddy or by an app. Unknown text is `''`, so that every event has the same shape. */
export interface RequestEvent {
  /** `caddy`, or the name of the app that recorded its own requests. */
  readonly source: string;
  /** End of the request, in whole milliseconds since 1970 in UTC. */
  readonly timeMs: number;
  /** Nanoseconds within `timeMs`: 0 to 999,999. A single number could not hold both exactly. */
  readonly timeNs: number;
  readonly host: string;
  readonly method: string;
  /** HTTP status; 0 if no response was sent (the request was aborted, or nothing handled it). */
  readonly status: number;
  /**
   * Milliseconds from the first byte received to the end of the response. `null` if it is not logged, and for event
   * streams: see `status.ts`.
   */
  readonly durationMs: number | null;
  /** Response body size in bytes. */
  readonly size: number;
  /** Request body size in bytes. */
  readonly bytesRead: number;
  /** Request target as sent: path and query. */
  readonly uri: string;
  /** Route pattern that the app matched (`/users/:id`, `unmatched`); `''` for requests logged by Caddy. */
  readonly endpoint: string;
  readonly clientIp: string;
  readonly userAgent: string;
  readonly referrer: string;
  /** `HTTP/1.1`, `HTTP/2.0`, … */
  readonly protocol: string;
  /** `TLS 1.3`, …; `''` for plain HTTP. */
  readonly tls: string;
  /** Upstream latency in milliseconds; `null` if it is not logged. */
  readonly upstreamMs: number | null;
  /** Request id shared by Caddy and the app. */
  readonly requestId: string;
  /** Why the request failed, from Caddy's error line: see `collector/decode/reason.ts`. */
  readonly error: string;
  /** Caddy's id of that error. */
  readonly errorId: string;
  /** `HOST:PORT` or path of the upstream. */
  readonly upstream: string;
  /** Number of times that Caddy tried another upstream; `null` if it is not logged. */
  readonly retries: number | null;
  /** Media type of the response, without parameters. */
  readonly contentType: string;
}

/** The `source` of requests from Caddy's access log. */
export const caddySource = 'caddy';

/** The `source` of the dashboard's own requests. */
export const dashboardSource = 'dashboard';

/** The `source` that older versions used for the dashboard's own requests. Also the default name of a user's app. */
export const formerDashboardSource = 'app';

/** Splits nanoseconds since 1970 into `timeMs` and `timeNs`. */
export function splitNanoseconds(nanoseconds: bigint): { timeMs: number; timeNs: number } {
  return { timeMs: Number(nanoseconds / 1_000_000n), timeNs: Number(nanoseconds % 1_000_000n) };
}

/** Nanoseconds since 1970 in decimal digits, as in line protocol. */
export function nanosecondsText({ timeMs, timeNs }: { timeMs: number; timeNs: number }): string {
  return `${timeMs}${String(timeNs).padStart(6, '0')}`;
}

/** RFC 3339 in UTC with nanoseconds: `2026-11-23T20:00:00.000000000Z`. */
export function rfc3339(event: { timeMs: number; timeNs: number }): string {
  return `${new Date(event.timeMs).toISOString().slice(0, -1)}${String(event.timeNs).padStart(6, '0')}Z`;
}

/**
 * Estimated size of a request in memory, in bytes: an object with 23 properties, an entry among the used times, and
 * its texts.
 */
export function heldBytes({ uri, userAgent, referrer, error }: RequestEvent): number {
  return 640 + 2 * (uri.length + userAgent.length + referrer.length + error.length);
}
