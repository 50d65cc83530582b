import helmet from 'koa-helmet';
import type { Middleware } from 'koa';

/**
 * Sets a strict content security policy: own style sheets, images, scripts and forms only. The page may be served over
 * plain HTTP, so nothing here makes browsers insist on HTTPS; a proxy in front can.
 */
export function securityHeaders(): Middleware {
  const headers = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        'default-src': ["'none'"],
        'style-src': ["'self'"],
        'img-src': ["'self'"],
        'script-src': ["'self'"],
        'connect-src': ["'self'"],
        'form-action': ["'self'"],
        'base-uri': ["'none'"],
        'frame-ancestors': ["'none'"],
      },
    },
    strictTransportSecurity: false,
    // Browsers ignore these over plain HTTP, and warn in the console.
    crossOriginOpenerPolicy: false,
    originAgentCluster: false,
  });
  return async (ctx, next) => {
    ctx.set('Cache-Control', 'no-store');
    await headers(ctx, next);
  };
}
