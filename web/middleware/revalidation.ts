import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Middleware } from 'koa';

/** `Cache-Control` of responses that only the browser may store, and must revalidate with their ETag. */
export const mustRevalidate = 'private, no-cache';

/** Adds an ETag to the responses of the API and the charts, and answers 304 to a client that has the same content. */
export function revalidation(): Middleware {
  return async (ctx, next) => {
    await next();
    if (ctx.status !== 200 || !/^\/(?:api|chart)\//.test(ctx.path)) return;
    ctx.set('Cache-Control', mustRevalidate);
    if (ctx.body instanceof Readable) return; // not known yet
    ctx.set('ETag', etagOf(typeof ctx.body === 'string' ? ctx.body : JSON.stringify(ctx.body)));
    if (ctx.fresh) ctx.status = 304;
  };
}

/** A weak ETag: the same content may be sent with several encodings. */
export function etagOf(content: string): string {
  return `W/"${createHash('sha256').update(content).digest('base64url').slice(0, 22)}"`;
}
