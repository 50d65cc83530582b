/** Status classes and latency rules, shared by the collector, the middleware, rollups, lists and SQL. */

/** Whether a status is 5xx. */
export function isServerError(status: number): boolean {
  return status >= 500 && status <= 599;
}

/** Whether a status is 4xx. */
export function isClientError(status: number): boolean {
  return status >= 400 && status <= 499;
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
