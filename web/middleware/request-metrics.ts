/**
 * Measures every request of a Koa app and hands it to a recorder as a `RequestEvent`.
 *
 * The clock starts when the middleware is entered. Node gives a request to Koa once its headers are parsed, which is
 * also when Caddy starts its own clock; so use it first, before all other middleware. The clock stops when the last
 * byte of the response is handed to the operating system, or when the connection closes before that: Node emits `close`
 * in both cases, right after `finish` in the first.
 *
 * The event is made after the response has ended, so the response never waits for it.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { performance } from 'node:perf_hooks';
import type { TLSSocket } from 'node:tls';
import type { Context, Middleware } from 'koa';
import { UsageError } from '../../shared/errors.js';
import { caddySource, dashboardSource, type RequestEvent } from '../../shared/request-event.js';
import { isEventStream } from '../../shared/status.js';

/** What `requestMetrics` needs; all but the recorder have a default. */
export interface RequestMetricsOptions {
  /** Takes the events. `record` must not throw and must not wait. */
  readonly recorder: { record(event: RequestEvent): boolean };
  /** The name of the app: the events' `source`. Default: `app`. */
  readonly source?: string;
  /** A clock in milliseconds and fractions of them that never steps. Default: `performance.now`. */
  readonly monotonicMs?: () => number;
  /** The wall clock in milliseconds since 1970. Default: `Date.now`. */
  readonly nowMs?: () => number;
}

/** The `endpoint` of a request that no route took. */
export const unmatchedEndpoint = 'unmatched';

/**
 * The middleware. It changes neither the response nor errors that are thrown downstream. An error of its own (there
 * should be none) goes to the app's `error` event.
 */
export function requestMetrics({ recorder, source = 'app', ...options }: RequestMetricsOptions): Middleware {
  if (source === caddySource || source === dashboardSource)
    throw new UsageError(
      `source is "${source}": it must be another name, because ${source === caddySource ? 'the edge' : 'the dashboard itself'} has that one.`,
    );
  return measureRequests({ recorder, source, ...options });
}

/** The same with any source. */
export function measureRequests({
  recorder,
  source,
  monotonicMs = () => performance.now(),
  nowMs = Date.now,
}: RequestMetricsOptions & { readonly source: string }): Middleware {
  const wallTimeAt = createWallClock(nowMs);
  return (ctx, next) => {
    const startMs = monotonicMs();
    const { ip: clientIp } = ctx; // a socket that its client has closed no longer knows it
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
          // A response that was cut short has the status that the client was told; one that never began has none.
          status: res.headersSent ? res.statusCode : 0,
          durationMs: isEventStream(String(res.getHeader('content-type') ?? ''))
            ? null
            : Math.round((endMs - startMs) * 1e6) / 1e6, // what is below a nanosecond is the clock's arithmetic
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
          requestId: textOf(headers['x-request-id']),
        });
      } catch (error) {
        ctx.app.emit('error', error, ctx);
      }
    });
    return next();
  };
}

/** A header that may be missing. Node joins one that came several times. */
function textOf(header: string | string[] | undefined): string {
  return typeof header === 'string' ? header : '';
}

/** A text that is there already need not be made, and hashed, for each request. */
const usualProtocol = 'HTTP/1.1';

/**
 * `ctx.host`, which takes a header apart for each request: most have one host, and no proxy in front that is trusted to
 * name another.
 */
function hostOf(ctx: Context): string {
  const {
    headers: { host },
    httpVersionMajor,
  } = ctx.req;
  return host === undefined || ctx.app.proxy || httpVersionMajor > 1 || /[\s,@]/.test(host) ? ctx.host : host;
}

/**
 * What `@koa/router` leaves on the context: the routes and the middleware layers whose path matched, of all routers.
 */
interface RoutedContext {
  readonly matched?: readonly { readonly path: string | RegExp; readonly methods: readonly string[] }[];
  readonly _matchedRoute?: string | RegExp;
}

/**
 * The pattern of the route that handled the request, never its path. Where several match, that is the last one entered;
 * where `router.use` middleware answered before any route was entered, it is the first that would have been.
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
 * Counts the bytes of the request's body as they are parsed. Listening for `data` would start the stream before the app
 * asks for it, so the count is taken where Node pushes chunks into it.
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
 * Counts the bytes of the response's body that are given to the socket, without headers and chunk framing. When the
 * client leaves early, that includes what was still in flight: Node does not tell how much of a chunk it had sent.
 */
function countResponseBytes(response: ServerResponse): { bytes: number } {
  const sent = { bytes: 0 };
  const { write, end } = response as {
    write: (...args: unknown[]) => boolean;
    end: (...args: unknown[]) => typeof response;
  };
  // `end` passes its chunk on inside Node, not through the `write` that is replaced here.
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
 * The wall clock to the nanosecond, at a time of the monotonic one: `Date.now` carried on by that. It is anchored again
 * when the two are more than 5 ms apart, so that it follows a wall clock that is set.
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
    // A double holds the fraction to a tenth of a nanosecond.
    return { timeMs: anchorWallMs + wholeMs, timeNs: Math.min(Math.round((sinceMs - wholeMs) * 1e6), 999_999) };
  };
}
