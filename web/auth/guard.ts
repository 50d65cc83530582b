/** Access control of the dashboard. Runs before all routes. */
import type { Context, Middleware } from 'koa';
import { crossSiteRefusal } from '../../shared/net/cross-site.js';
import { rateLimitedWarn, type Log } from '../../shared/log.js';
import { isLoopbackName } from '../../shared/net/loopback-name.js';
import { attemptAddress, AttemptLimit } from './attempts.js';
import { isAuthorised } from './password.js';
import { Problem } from '../problem.js';

/** Monitoring endpoints. Their requests are counted only at `/metrics`. */
export const probes: ReadonlySet<string> = new Set(['/health', '/ready', '/metrics']);

/**
 * Refuses cross-site requests with 403, except links to the dashboard. Other sites could not read the response, but
 * could make browsers overload the server.
 */
export function refuseOtherSites({ log }: { log: Log }): Middleware {
  const warn = rateLimitedWarn(log.warn);
  return async (ctx, next) => {
    const refusal = crossSiteRefusal(ctx.req);
    if (refusal === undefined) {
      await next();
      return;
    }
    warn('cross-site', `Refused a cross-site request by a page of another site: ${refusal}.`, {
      path: ctx.url.slice(0, 100),
    });
    ctx.status = 403;
    ctx.body = {
      error: {
        message: `Requests of pages of other sites are refused: ${refusal}. Links to the dashboard are allowed. If the dashboard is behind a proxy, configure the proxy to preserve the Host header.`,
      },
    };
  };
}

/**
 * Refuses requests under host names other than loopback names and addresses, as protection against DNS rebinding.
 * Allows probes, which reveal nothing about the traffic, and requests with `Via` from a proxy, a header that pages
 * cannot set.
 */
export function refuseOtherNames({ log }: { log: Log }): Middleware {
  const warn = rateLimitedWarn(log.warn, { intervalMs: openWarningEveryMs });
  return async (ctx, next) => {
    const harmless = isOpen(ctx) || probes.has(ctx.path);
    if (!harmless && !isLoopbackName(ctx.get('Host')) && ctx.get('Via') === '') {
      throw new Problem(
        403,
        'Host name not allowed',
        `The dashboard has no password, so it responds only to localhost and IP addresses, not to ${JSON.stringify(ctx.get('Host').slice(0, 100))}: other sites could point a name at it to read it (DNS rebinding). Set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true if a proxy restricts access.`,
      );
    }
    if (!harmless && proxyHeaders.some((name) => ctx.get(name) !== '')) {
      ctx.state['isOpenThroughProxy'] = true;
      warn(
        'open',
        'The dashboard has no password and is open to everyone who can reach the proxy in front of it, under any host name. Set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true if the proxy restricts access.',
        { host: ctx.get('Host').slice(0, 100) },
      );
    }
    await next();
  };
}

/** Headers set by proxies. Caddy sends the first three. */
const proxyHeaders = ['Via', 'X-Forwarded-For', 'X-Forwarded-Host', 'X-Real-IP', 'Forwarded'];
/** Interval between warnings that the page is open, in milliseconds. */
const openWarningEveryMs = 3_600_000;

/** Whether the request came through a proxy to a dashboard without a password and without `DASHBOARD_OPEN`. */
export function isOpenThroughProxy({ state }: Context): boolean {
  return state['isOpenThroughProxy'] === true;
}

/** Requires the password, and limits attempts per address. */
export function requirePassword(
  password: string,
  { log, monotonicMs }: { log: Log; monotonicMs?: (() => number) | undefined },
): Middleware {
  const limit = new AttemptLimit({ monotonicMs });
  const warn = rateLimitedWarn(log.warn);
  return async (ctx, next) => {
    if (isOpen(ctx)) {
      await next();
      return;
    }
    const authorization = ctx.get('Authorization');
    const address = attemptAddress(ctx.req);
    const waitSeconds = Math.ceil(limit.waitMs(address) / 1000);
    if (authorization !== '' && waitSeconds > 0) {
      ctx.set('Retry-After', String(waitSeconds));
      throw new Problem(
        429,
        'Too many wrong passwords',
        `Too many wrong passwords from this address. Try again in ${waitSeconds} s.`,
      );
    }
    if (!isAuthorised(authorization, password)) {
      if (authorization !== '') {
        limit.fail(address);
        if (limit.waitMs(address) > 0)
          warn('passwords', 'Too many wrong passwords: attempts of this address are refused for up to a minute.', {
            address,
          });
      }
      ctx.set('WWW-Authenticate', 'Basic realm="Caddy Log Sink", charset="UTF-8"');
      throw new Problem(
        401,
        'Password required',
        'Log in with the password set in DASHBOARD_PASSWORD and any user name.',
      );
    }
    await next();
  };
}

/** Whether a path is public: the health check, and the assets of error pages. */
function isOpen({ path }: Context): boolean {
  return path === '/health' || path.startsWith('/assets/');
}
