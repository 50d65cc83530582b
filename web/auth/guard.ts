/** Who may look at the dashboard: what stands before all routes. */
import type { Context, Middleware } from 'koa';
import { crossSiteRefusal } from '../../shared/net/cross-site.js';
import { rateLimitedWarn, type Log } from '../../shared/log.js';
import { isLoopbackName } from '../../shared/net/loopback-name.js';
import { attemptAddress, createAttemptLimit } from './attempts.js';
import { isAuthorised } from './password.js';
import { Problem } from '../problem.js';

/** What machines ask for to see how the web app is: counted at `/metrics` only. */
export const probes: ReadonlySet<string> = new Set(['/health', '/ready', '/metrics']);

/**
 * Answers requests that a browser sends for pages of other origins with 403, before anything is read: links to the
 * dashboard pass. Such a page could read no answer, but make the server work, as often as it likes.
 */
export function refuseOtherSites({ log }: { log: Log }): Middleware {
  const warn = rateLimitedWarn(log.warn);
  return async (ctx, next) => {
    const refusal = crossSiteRefusal(ctx.req);
    if (refusal === undefined) {
      await next();
      return;
    }
    warn('cross-site', `Refused a request that a page of another site made a browser send: ${refusal}.`, {
      path: ctx.url.slice(0, 100),
    });
    ctx.status = 403;
    ctx.body = {
      error: {
        message: `Requests of pages of other sites are refused: ${refusal}. Links to the dashboard work; if this is your own page behind a proxy, let the proxy pass Host on as it is.`,
      },
    };
  };
}

/**
 * Refuses requests under names that may be somebody else's, but for the probes: monitoring in a container may know this
 * machine by a name, and they say nothing of the traffic. What a proxy passes on is let through: it says so with `Via`,
 * a header that browsers let no page set.
 */
export function refuseOtherNames({ log }: { log: Log }): Middleware {
  const warn = rateLimitedWarn(log.warn, { intervalMs: openWarningEveryMs });
  return async (ctx, next) => {
    const harmless = isOpen(ctx) || probes.has(ctx.path);
    if (!harmless && !isLoopbackName(ctx.get('Host')) && ctx.get('Via') === '') {
      throw new Problem(
        403,
        'Not under this name',
        `The dashboard has no password, so it answers only to localhost and to addresses, and not to ${JSON.stringify(ctx.get('Host').slice(0, 100))}: any page on the web could lead a browser here under a name of its own. Set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true when a proxy in front guards it.`,
      );
    }
    if (!harmless && proxyHeaders.some((name) => ctx.get(name) !== '')) {
      ctx.state['isOpenThroughProxy'] = true;
      warn(
        'open',
        'The dashboard is open to everybody who reaches the proxy in front of it, under any name: it has no password. Set DASHBOARD_PASSWORD, or DASHBOARD_OPEN=true if the proxy guards it.',
        { host: ctx.get('Host').slice(0, 100) },
      );
    }
    await next();
  };
}

/** Headers that tell of a proxy: Caddy sends the first three. */
const proxyHeaders = ['Via', 'X-Forwarded-For', 'X-Forwarded-Host', 'X-Real-IP', 'Forwarded'];
/** How often the log says that the page is open, in milliseconds. */
const openWarningEveryMs = 3_600_000;

/**
 * Whether a request came through a proxy to a dashboard that has no password, and of which nothing says that it is
 * meant to be open.
 */
export function isOpenThroughProxy({ state }: Context): boolean {
  return state['isOpenThroughProxy'] === true;
}

/** Asks for the password, and lets each address guess only so often. */
export function requirePassword(
  password: string,
  { log, monotonicMs }: { log: Log; monotonicMs?: (() => number) | undefined },
): Middleware {
  const limit = createAttemptLimit({ monotonicMs });
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
        `Too many wrong passwords came from this address. Try again in ${waitSeconds} s.`,
      );
    }
    if (!isAuthorised(authorization, password)) {
      if (authorization !== '') {
        limit.fail(address);
        if (limit.waitMs(address) > 0)
          warn('passwords', 'Too many wrong passwords: no more are taken from the address for up to a minute.', {
            address,
          });
      }
      ctx.set('WWW-Authenticate', 'Basic realm="Caddy Log Sink", charset="UTF-8"');
      throw new Problem(
        401,
        'Password needed',
        'This dashboard asks for a password: DASHBOARD_PASSWORD, with any user name.',
      );
    }
    await next();
  };
}

/** Open to everybody: the health check, and the files that a problem's page links to. */
function isOpen({ path }: Context): boolean {
  return path === '/health' || path.startsWith('/assets/');
}
