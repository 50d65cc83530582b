/**
 * The one domain type: a request that has ended, as an edge (Caddy) or an app saw it.
 *
 * Text that is not known is `''`, so that every event has the same shape.
 */
export interface RequestEvent {
  /** `caddy`, or the name of the app that measured itself. */
  readonly source: string;
  /** When the request ended: whole milliseconds since 1970 in UTC. */
  readonly timeMs: number;
  /** What `timeMs` leaves out, in nanoseconds: 0 to 999,999. A single number could not hold both exactly. */
  readonly timeNs: number;
  readonly host: string;
  readonly method: string;
  /** The HTTP status; 0 when no response was sent (aborted, or nothing handled the request). */
  readonly status: number;
  /**
   * From the first byte in to the response finished or aborted, in milliseconds; `null` when the log does not say, and
   * of an event stream: see `status.ts`.
   */
  readonly durationMs: number | null;
  /** Bytes of the response's body. */
  readonly size: number;
  /** Bytes of the request's body. */
  readonly bytesRead: number;
  /** The request target as it was sent: path and query. */
  readonly uri: string;
  /** The route pattern that an app matched (`/users/:id`, `unmatched`); `''` at the edge. */
  readonly endpoint: string;
  readonly clientIp: string;
  readonly userAgent: string;
  readonly referrer: string;
  /** `HTTP/1.1`, `HTTP/2.0`, … */
  readonly protocol: string;
  /** `TLS 1.3`, …; `''` for plain HTTP. */
  readonly tls: string;
  /** How long the edge waited for its upstream, in milliseconds; `null` when the log does not say. */
  readonly upstreamMs: number | null;
  /** An identifier that the edge and the app share for one request. */
  readonly requestId: string;
}

/** The `source` of what Caddy's access log says. */
export const caddySource = 'caddy';

/** The `source` of the dashboard's own requests. */
export const dashboardSource = 'dashboard';

/** The one under which older versions recorded those. It is also the default name of a user's own app. */
export const formerDashboardSource = 'app';

/** `timeMs` and `timeNs` of a count of nanoseconds since 1970. */
export function splitNanoseconds(nanoseconds: bigint): { timeMs: number; timeNs: number } {
  return { timeMs: Number(nanoseconds / 1_000_000n), timeNs: Number(nanoseconds % 1_000_000n) };
}

/** Nanoseconds since 1970 as decimal digits, as line protocol has them. */
export function nanosecondsText({ timeMs, timeNs }: { timeMs: number; timeNs: number }): string {
  return `${timeMs}${String(timeNs).padStart(6, '0')}`;
}

/** RFC 3339 in UTC, to the nanosecond: `2026-11-23T20:00:00.000000000Z`. */
export function rfc3339(event: { timeMs: number; timeNs: number }): string {
  return `${new Date(event.timeMs).toISOString().slice(0, -1)}${String(event.timeNs).padStart(6, '0')}Z`;
}

/**
 * What a request holds in memory, about, in bytes: an object of 18 properties, its time among the used ones, and its
 * texts.
 */
export function heldBytes({ uri, userAgent, referrer }: RequestEvent): number {
  return 600 + 2 * (uri.length + userAgent.length + referrer.length);
}
