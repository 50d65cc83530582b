import type { RequestEvent } from '../shared/request-event.js';
import { isServerError } from '../shared/status.js';

const tlsVersions: Readonly<Record<string, number>> = { 'TLS 1.2': 0x0303, 'TLS 1.3': 0x0304 };

/**
 * Formats a request as Caddy 2.11 logs it, without a newline: with the JSON encoder and default formats, and with
 * `log_append upstream_ms {http.reverse_proxy.upstream.latency_ms}` and `log_append request_id {http.request.uuid}`.
 */
export function caddyLine(event: RequestEvent): string {
  const { timeMs, timeNs, durationMs, tls } = event;
  const headers = {
    'User-Agent': [event.userAgent],
    Accept: ['*/*'],
    ...(event.referrer !== '' && { Referer: [event.referrer] }),
  };
  return JSON.stringify({
    level: isServerError(event.status) ? 'error' : 'info',
    // In this century, a double has microsecond precision, and Caddy writes no more digits.
    ts: (timeMs * 1000 + Math.floor(timeNs / 1000)) / 1e6,
    logger: 'http.log.access.log0',
    msg: 'handled request',
    request: {
      remote_ip: event.clientIp,
      remote_port: '50000',
      client_ip: event.clientIp,
      proto: event.protocol,
      method: event.method,
      host: event.host,
      uri: event.uri,
      headers,
      ...(tls !== '' && {
        tls: { resumed: false, version: tlsVersions[tls], cipher_suite: 4865, proto: 'h2', server_name: event.host },
      }),
    },
    bytes_read: event.bytesRead,
    user_id: '',
    duration: seconds(durationMs ?? 0),
    size: event.size,
    status: event.status,
    resp_headers: { Server: ['Caddy'] },
    ...(event.upstreamMs !== null && { upstream_ms: event.upstreamMs }),
    ...(event.requestId !== '' && { request_id: event.requestId }),
  });
}

/** Always has a fraction: an integer would be read as nanoseconds or milliseconds. */
function seconds(durationMs: number): number {
  return durationMs % 1000 === 0 ? durationMs / 1000 + 1e-6 : durationMs / 1000;
}
