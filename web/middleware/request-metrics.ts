/**
 * Measures every request of a Koa app and passes it to a recorder as a `RequestEvent`.
 *
 * Use it before all other middleware: the clock starts when it is entered. Node calls Koa once the request headers are
 * parsed, which is also when Caddy starts its clock. The clock stops at `close`: when the last byte of the response has
 * been passed to the operating system, or when the connection closes before that.
 *
 * The event is recorded after the response has ended and does not delay it.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { performance } from 'node:perf_hooks';
import type { TLSSocket } from 'node:tls';
import type { Context, Middleware } from 'koa';
import { UsageError } from '../../shared/errors.js';
import { caddySource, dashboardSource, type RequestEvent } from '../../shared/request-event.js';
import { isEventStream } from '../../shared/status.js';

/** Options of `requestMetrics`. */
export interface RequestMetricsOptions {
  /** Receives the events. `record` must neither throw nor block. */
  readonly recorder: { record(event: RequestEvent): boolean };
  /** Name of the app, the `source` of its events. Default: `app`. */
  readonly source?: string;
  /** Monotonic clock, in fractional milliseconds. Default: `performance.now`. */
  readonly monotonicMs?: () => number;
  /** Wall clock, in milliseconds since 1970. Default: `Date.now`. */
  readonly nowMs?: () => number;
}

/** `endpoint` of a request that matches no route. */
export const unmatchedEndpoint = 'unmatched';

/**
 * Creates the middleware. It affects neither the response nor errors thrown downstream. Its own errors, which should
 * not occur, are emitted as `error` events of the app.
 */
export function requestMetrics({ recorder, source = 'app', ...options }: RequestMetricsOptions): Middleware {
  if (source === caddySource || source === dashboardSource)
    throw new UsageError(
      `source is "${source}", which is reserved for ${source === caddySource ? 'Caddy' : 'the dashboard'}. Use another name.`,
    );
  return measureRequests({ recorder, source, ...options });
}

/** Creates the middleware for any source, including reserved ones. */
export function measureRequests({
  recorder,
  source,
  monotonicMs = () => performance.now(),
  nowMs = Date.now,
}: RequestMetricsOptions & { readonly source: string }): Middleware {
  const wallTimeAt = createWallClock(nowMs);
  return (ctx, next) => {
    const startMs = monotonicMs();
    const { ip: clientIp } = ctx; // unavailable once the socket is closed
    const bytesReadOf = countRequestBytes(ctx.req);
    const sent = countResponseBytes(ctx.res);
    ctx.res.on('close', () => {
      try {
        const endMs = monotonicMs();
        const { timeMs, timeNs } = wallTimeAt(endMs);
        const { req, res } = ctx;
        const { headers } = req;
        recorder.record({
          source,
          timeMs,
          timeNs,
          host: hostOf(ctx),
          method: ctx.method,
          // A truncated response has the status that was sent; one that never began has status 0.
          status: res.headersSent ? res.statusCode : 0,
          durationMs: isEventStream(String(res.getHeader('content-type') ?? ''))
            ? null
            : Math.round((endMs - startMs) * 1e6) / 1e6, // rounded to nanoseconds
          size: isWithoutBody(req, res) ? 0 : sent.bytes,
          bytesRead: bytesReadOf(),
          uri: ctx.originalUrl,
          endpoint: endpointOf(ctx),
          clientIp,
          userAgent: textOf(headers['user-agent']),
          referrer: textOf(headers['referrer']) || textOf(headers.referer),
          protocol:
            req.httpVersionMajor === 1 && req.httpVersionMinor === 1 ? usualProtocol : `HTTP/${req.httpVersion}`,
          tls: tlsVersionOf(req),
          upstreamMs: null,
          error: '',
          errorId: '',
          upstream: '',
          retries: null,
          contentType: '',
          requestId: textOf(headers['x-request-id']),
        });
      } catch (error) {
        ctx.app.emit('error', error, ctx);
      }
    });
    return next();
  };
}

/** Returns a header, or `''` if it is missing. Node joins repeated headers. */
function textOf(header: string | string[] | undefined): string {
  return typeof header === 'string' ? header : '';
}

/** A constant avoids building and hashing the string for each request. */
const usualProtocol = 'HTTP/1.1';

/** Returns `ctx.host`. Avoids parsing the header in the common case of a single host and no trusted proxy. */
function hostOf(ctx: Context): string {
  const {
    headers: { host },
    httpVersionMajor,
  } = ctx.req;
  return host === undefined || ctx.app.proxy || httpVersionMajor > 1 || /[\s,@]/.test(host) ? ctx.host : host;
}

/** Properties that `@koa/router` sets on the context: the matched routes and middleware layers of all routers. */
interface RoutedContext {
  readonly matched?: readonly { readonly path: string | RegExp; readonly methods: readonly string[] }[];
  readonly _matchedRoute?: string | RegExp;
}

/**
 * Returns the pattern of the route that handled the request. If several match, it is the last one entered; if
 * `router.use` middleware responded before any route was entered, it is the first match.
 */
function endpointOf(ctx: Context): string {
  const { matched, _matchedRoute: entered } = ctx as unknown as RoutedContext;
  if (matched === undefined) return unmatchedEndpoint;
  const routes = matched.filter((layer) => layer.methods.includes(ctx.method));
  const route = routes.find((layer) => layer.path === entered) ?? routes[0];
  return route === undefined ? unmatchedEndpoint : String(route.path);
}

function tlsVersionOf(request: IncomingMessage): string {
  const socket = request.socket as Partial<TLSSocket>;
  return socket.encrypted ? (socket.getProtocol?.() ?? '').replace(/^TLSv/, 'TLS ') : '';
}

/**
 * Counts the bytes of the request body as they are parsed. Hooks into `push`, because listening for `data` would start
 * the stream before the app reads it.
 */
function countRequestBytes(request: IncomingMessage): () => number {
  const { 'content-length': length, 'transfer-encoding': encoding } = request.headers;
  if (encoding === undefined && (length === undefined || length === '0')) return () => 0;
  let bytes = 0;
  const push = request.push.bind(request);
  request.push = (chunk: Buffer | null, ...rest) => {
    if (chunk !== null) bytes += chunk.length;
    return push(chunk, ...rest);
  };
  return () => bytes;
}

/**
 * Counts the bytes of the response body written to the socket, without headers and chunk framing. If the client
 * disconnects early, the count includes unsent parts of the last chunk, which Node does not report.
 */
function countResponseBytes(response: ServerResponse): { bytes: number } {
  const sent = { bytes: 0 };
  const { write, end } = response as {
    write: (...args: unknown[]) => boolean;
    end: (...args: unknown[]) => typeof response;
  };
  // `end` does not call the replaced `write`.
  response.write = (chunk: unknown, encoding?: unknown, done?: unknown) => {
    if (!response.destroyed) sent.bytes += bytesIn(chunk, encoding);
    return write.call(response, chunk, encoding, done);
  };
  response.end = (chunk?: unknown, encoding?: unknown, done?: unknown) => {
    if (!response.destroyed) sent.bytes += bytesIn(chunk, encoding);
    return end.call(response, chunk, encoding, done);
  };
  return sent;
}

function bytesIn(chunk: unknown, encoding: unknown): number {
  if (typeof chunk === 'string')
    return Buffer.byteLength(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8');
  return chunk instanceof Uint8Array ? chunk.byteLength : 0;
}

function isWithoutBody({ method }: IncomingMessage, { statusCode }: ServerResponse): boolean {
  return method === 'HEAD' || statusCode === 204 || statusCode === 304;
}

/**
 * Creates a wall clock with nanoseconds: `Date.now` advanced by the monotonic clock. It is re-anchored when the two
 * differ by more than 5 ms, so that it follows changes of the wall clock.
 */
function createWallClock(nowMs: () => number): (monotonicMs: number) => { timeMs: number; timeNs: number } {
  const driftMsMax = 5;
  let anchorMs = 0;
  let anchorWallMs = Number.NaN;
  return (monotonicMs) => {
    const wallMs = nowMs();
    if (!(Math.abs(anchorWallMs + monotonicMs - anchorMs - wallMs) <= driftMsMax)) {
      anchorMs = monotonicMs;
      anchorWallMs = wallMs;
    }
    const sinceMs = monotonicMs - anchorMs;
    const wholeMs = Math.floor(sinceMs);
    // A double represents the fraction to a tenth of a nanosecond.
    return { timeMs: anchorWallMs + wholeMs, timeNs: Math.min(Math.round((sinceMs - wholeMs) * 1e6), 999_999) };
  };
}
