/** How many answers over the store are made at once. */
import { setMaxListeners } from 'node:events';
import type { Middleware } from 'koa';
import { Semaphore } from '../shared/semaphore.js';
import { Problem } from './problem.js';

/**
 * Answers that are made at once: more would take turns on one thread, and none would be ready sooner. The others wait in
 * order. One that has waited for `waitMsMax` is refused, as its reader has given up or reloads.
 */
const activeMax = 8;
const waitingMax = 1000;
const waitMsMax = 8000;

/** Thrown where more is asked for at once than can be answered. */
export function busy(what: string): Problem {
  return new Problem(503, 'Too busy', `${what} Try again in a few seconds.`, { retry: true });
}

/** Admits answers. `ctx.state.signal` is aborted when an answer has been sent, or its client has gone. */
export function admission(): Middleware {
  const answers = new Semaphore({ permits: activeMax, waitingMax, waitMsMax });
  return async (ctx, next) => {
    if (!/^\/(?:$|(?:api|chart)\/)/.test(ctx.path) || ctx.path === '/api/ping') {
      await next();
      return;
    }
    const gone = new AbortController();
    setMaxListeners(0, gone.signal); // each read of the answer listens until it is done
    ctx.res.once('close', () => { gone.abort(); });
    ctx.state['signal'] = gone.signal;
    const release = await answers.acquire(gone.signal);
    if (release === undefined) throw busy('More pages and API answers are asked for at once than can be made.');
    try {
      await next();
    } finally {
      release();
    }
  };
}
