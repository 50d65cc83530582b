/** Limits the number of concurrent answers that read the store. */
import { setMaxListeners } from 'node:events';
import type { Middleware } from 'koa';
import { Semaphore } from '../../shared/semaphore.js';
import { Problem } from '../problem.js';

/**
 * Maximum number of concurrent answers. More would only share one thread. Further requests queue, and are refused after
 * `waitMsMax` milliseconds, when their readers have probably given up or reloaded.
 */
const activeMax = 8;
const waitingMax = 1000;
const waitMsMax = 8000;

/** The error of a request that is refused because a limit is reached: 503. */
export function busy(what: string): Problem {
  return new Problem(503, 'Too busy', `${what} Try again in a few seconds.`, { retry: true });
}

/**
 * Limits the requests that read the store. Sets `ctx.state.signal`, which is aborted when the answer has been sent or
 * the client has disconnected.
 */
export function admission(): Middleware {
  const answers = new Semaphore({ permits: activeMax, waitingMax, waitMsMax });
  return async (ctx, next) => {
    if (!/^\/(?:$|(?:api|chart)\/)/.test(ctx.path) || ctx.path === '/api/ping') {
      await next();
      return;
    }
    const gone = new AbortController();
    setMaxListeners(0, gone.signal); // each read of the answer listens until it is done
    ctx.res.once('close', () => {
      gone.abort();
    });
    ctx.state['signal'] = gone.signal;
    const release = await answers.acquire(gone.signal);
    if (release === undefined) throw busy('Too many concurrent requests for pages and the API.');
    try {
      await next();
    } finally {
      release();
    }
  };
}
