/**
 * What a status says about a request: one rule for the collector, the middleware, rollups, lists and the SQL of raw
 * requests.
 */

/** Whether a status is 5xx. */
export function isServerError(status: number): boolean {
  return status >= 500 && status <= 599;
}

/** Whether a status is 4xx. */
export function isClientError(status: number): boolean {
  return status >= 400 && status <= 499;
}

/**
 * Statuses without a latency. A request that was aborted (499) or not answered at all (0) never got its response. A
 * WebSocket (101) lasts as long as its connection.
 */
export const statusesWithoutLatency: readonly number[] = [0, 101, 499];
/**
 * The method of tunnels: WebSockets over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220), and forward proxies. They last as
 * long as their connection, whatever the status.
 */
export const methodWithoutLatency = 'CONNECT';

/** Whether the duration of a request says how long its response took. */
export function hasLatency({ status, method }: { readonly status: number; readonly method: string }): boolean {
  return !statusesWithoutLatency.includes(status) && method !== methodWithoutLatency;
}

/**
 * Whether a response with this `Content-Type` is an event stream. It lasts as long as its reader wants: its duration is
 * not recorded, since no stored row says what its type was.
 */
export function isEventStream(contentType: string): boolean {
  return /^\s*text\/event-stream\s*(?:;|$)/i.test(contentType);
}
