/**
 * Measures every request of a Koa app and hands it to a recorder as a `RequestEvent`.
 *
 * The clock starts when the middleware is entered. Node gives a request to Koa once its headers are parsed, which is
 * also when Caddy starts its own clock; so use it first, before all other middleware. The clock stops when the last byte
 * of the response is handed to the operating system (`finish`), or when the connection closes before that.
 *
 * The event is made after the response has ended, so the response never waits for it.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { TLSSocket } from 'node:tls';
import type { Context, Middleware } from 'koa';
import { UsageError } from '../shared/errors.js';
import { caddySource, splitNanoseconds, type RequestEvent } from '../shared/request-event.js';

/** What `requestMetrics` needs; all but the recorder have a default. */
export interface RequestMetricsOptions {
  /** Takes the events. `record` must not throw and must not wait. */
  readonly recorder: { record(event: RequestEvent): boolean };
  /** The name of the app: the events' `source`. Default: `app`. */
  readonly source?: string;
  /** A clock in nanoseconds that never steps. Default: `process.hrtime.bigint`. */
  readonly monotonicNs?: () => bigint;
  /** The wall clock in milliseconds since 1970. Default: `Date.now`. */
  readonly nowMs?: () => number;
}

/** The `endpoint` of a request that no route took. */
export const unmatchedEndpoint = 'unmatched';

/**
 * The middleware. It changes neither the response nor errors that are thrown downstream. An error of its own (there
 * should be none) goes to the app's `error` event.
 */
export function requestMetrics({ recorder, source = 'app', monotonicNs = process.hrtime.bigint, nowMs = Date.now }: RequestMetricsOptions): Middleware {
  if (source === caddySource) throw new UsageError('source is "caddy": it must be another name, because the edge has that one.');
  const wallNs = createWallClock(monotonicNs, nowMs);
  return (ctx, next) => {
    const startNs = monotonicNs();
    const bytesReadOf = countRequestBytes(ctx.req);
    const bytesSentOf = countResponseBytes(ctx.req, ctx.res);
    whenEnded(ctx.res, () => {
      try {
        recorder.record(eventOf(ctx, {
          source,
          durationMs: Number(monotonicNs() - startNs) / 1e6,
          endNs: wallNs(),
          size: bytesSentOf(),
          bytesRead: bytesReadOf(),
        }));
      } catch (error) {
        ctx.app.emit('error', error, ctx);
      }
    });
    return next();
  };
}

interface Measured {
  readonly source: string;
  readonly durationMs: number;
  readonly endNs: bigint;
  readonly size: number;
  readonly bytesRead: number;
}

function eventOf(ctx: Context, { source, durationMs, endNs, size, bytesRead }: Measured): RequestEvent {
  return {
    source,
    ...splitNanoseconds(endNs),
    host: ctx.host,
    method: ctx.method,
    // A response that was cut short has the status that the client was told; one that never began has none.
    status: ctx.res.headersSent ? ctx.res.statusCode : 0,
    durationMs,
    size,
    bytesRead,
    uri: ctx.originalUrl,
    endpoint: endpointOf(ctx),
    clientIp: ctx.ip,
    userAgent: ctx.get('User-Agent'),
    referrer: ctx.get('Referrer'),
    protocol: `HTTP/${ctx.req.httpVersion}`,
    tls: tlsVersionOf(ctx.req),
    upstreamMs: null,
    requestId: ctx.get('X-Request-Id'),
  };
}

/** What `@koa/router` leaves on the context: the routes and the middleware layers whose path matched, of all routers. */
interface RoutedContext {
  readonly matched?: readonly { readonly path: string | RegExp; readonly methods: readonly string[] }[];
  readonly _matchedRoute?: string | RegExp;
}

/**
 * The pattern of the route that handled the request, never its path. Where several match, that is the last one entered; where
 * `router.use` middleware answered before any route was entered, it is the first that would have been.
 */
function endpointOf(ctx: Context): string {
  const { matched = [], _matchedRoute: entered } = ctx as unknown as RoutedContext;
  const routes = matched.filter((layer) => layer.methods.includes(ctx.method));
  const route = routes.find((layer) => layer.path === entered) ?? routes[0];
  return route === undefined ? unmatchedEndpoint : String(route.path);
}

function tlsVersionOf(request: IncomingMessage): string {
  const socket = request.socket as Partial<TLSSocket>;
  return socket.encrypted ? (socket.getProtocol?.() ?? '').replace(/^TLSv/, 'TLS ') : '';
}

/** Calls `listener` once, when the response is finished or its connection has closed. */
function whenEnded(response: ServerResponse, listener: () => void): void {
  let ended = false;
  const end = (): void => {
    if (ended) return;
    ended = true;
    listener();
  };
  response.once('finish', end);
  response.once('close', end);
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
 * Counts the bytes of the response's body that are given to the socket, without headers and chunk framing. When the client
 * leaves early, that includes what was still in flight: Node does not tell how much of a chunk it had sent.
 */
function countResponseBytes(request: IncomingMessage, response: ServerResponse): () => number {
  let bytes = 0;
  const add = (chunk: unknown, encoding: unknown): void => {
    if (response.destroyed) return;
    if (typeof chunk === 'string') bytes += Buffer.byteLength(chunk, typeof encoding === 'string' ? encoding as BufferEncoding : 'utf8');
    else if (chunk instanceof Uint8Array) bytes += chunk.byteLength;
  };
  const write = response.write.bind(response) as (...args: unknown[]) => boolean;
  const end = response.end.bind(response) as (...args: unknown[]) => typeof response;
  // `end` passes its chunk on inside Node, not through the `write` that is replaced here.
  response.write = (...args: unknown[]) => {
    add(args[0], args[1]);
    return write(...args);
  };
  response.end = (...args: unknown[]) => {
    add(args[0], args[1]);
    return end(...args);
  };
  return () => {
    const { statusCode } = response;
    const withoutBody = request.method === 'HEAD' || statusCode === 204 || statusCode === 304;
    return withoutBody ? 0 : bytes;
  };
}

/**
 * The wall clock in nanoseconds since 1970: `Date.now` carried on by the monotonic clock. It is anchored again when the two
 * are more than 5 ms apart, so that it follows a wall clock that is set.
 */
function createWallClock(monotonicNs: () => bigint, nowMs: () => number): () => bigint {
  const driftNsMax = 5_000_000n;
  let offsetNs: bigint | undefined;
  return () => {
    const monotonic = monotonicNs();
    const wall = BigInt(nowMs()) * 1_000_000n;
    const drift = offsetNs === undefined ? undefined : monotonic + offsetNs - wall;
    if (offsetNs === undefined || drift === undefined || drift > driftNsMax || drift < -driftNsMax) offsetNs = wall - monotonic;
    return monotonic + offsetNs;
  };
}
