import type { RequestEvent } from '../shared/request-event.js';

/** A request of which little is known, for tests to spread: they name what matters to them. */
export const emptyRequest: RequestEvent = {
  source: 'caddy',
  timeMs: 0,
  timeNs: 0,
  host: '',
  method: 'GET',
  status: 200,
  durationMs: null,
  size: 0,
  bytesRead: 0,
  uri: '/',
  endpoint: '',
  clientIp: '',
  userAgent: '',
  referrer: '',
  protocol: '',
  tls: '',
  upstreamMs: null,
  requestId: '',
  error: '',
  errorId: '',
  upstream: '',
  retries: null,
  contentType: '',
};
