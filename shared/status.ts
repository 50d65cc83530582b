/** Status classes and latency rules, shared by the collector, the middleware, rollups, lists, pages and SQL. */

/** An inclusive range of statuses. */
export interface StatusRange {
  readonly min: number;
  readonly max: number;
}

/** The statuses of a class: 4 for 4xx. */
export function statusesOfClass(statusClass: number): StatusRange {
  return { min: statusClass * 100, max: statusClass * 100 + 99 };
}

/** The class of a status, 1 to 5; `undefined` for 0 (no response) and for numbers that are no HTTP status. */
export function statusClassOf(status: number): number | undefined {
  return status >= 100 && status <= 599 ? Math.floor(status / 100) : undefined;
}

/** 4xx: errors of the client. */
const clientErrors = statusesOfClass(4);
/** 5xx: errors of the server. What figures and pages call errors. */
export const serverErrors = statusesOfClass(5);

/** Whether a status is 5xx. */
export function isServerError(status: number): boolean {
  return status >= serverErrors.min && status <= serverErrors.max;
}

/** Whether a status is 1xx to 3xx. */
export function isSuccess(status: number): boolean {
  return status >= 100 && status < clientErrors.min;
}

/** Whether a status is 4xx. */
export function isClientError(status: number): boolean {
  return status >= clientErrors.min && status <= clientErrors.max;
}

/**
 * Statuses without a latency: aborted (499) and unanswered (0) requests have no response, and a WebSocket (101) lasts
 * as long as its connection.
 */
export const statusesWithoutLatency: readonly number[] = [0, 101, 499];
/**
 * Method of tunnels: WebSockets over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220), and forward proxies. They last as long
 * as their connection, with any status.
 */
export const methodWithoutLatency = 'CONNECT';

/** Whether the duration of a request is the latency of its response. */
export function hasLatency({ status, method }: { readonly status: number; readonly method: string }): boolean {
  return !statusesWithoutLatency.includes(status) && method !== methodWithoutLatency;
}

/**
 * Whether a response with this `Content-Type` is an event stream. Its duration is not recorded: it depends on the
 * client, and stored rows have no content type to tell it by.
 */
export function isEventStream(contentType: string): boolean {
  return /^\s*text\/event-stream\s*(?:;|$)/i.test(contentType);
}
