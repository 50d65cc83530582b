/** Error responses. */
import type { Context, Middleware } from 'koa';
import { detailedMessageOf, StoreError } from '../shared/errors.js';
import { rateLimitedWarn, type Log } from '../shared/log.js';
import { QueryError } from './query/query.js';
import type { Assets } from './render.js';

/** `Retry-After` and refresh interval of temporary errors, in seconds. */
const retrySeconds = 5;

/** An error with its HTTP status and a title for the page. */
export class Problem extends Error {
  override readonly name = 'Problem';
  readonly status: number;
  readonly title: string;
  /** Further fields of the JSON error. */
  readonly details: Readonly<Record<string, string>>;
  readonly retry: boolean;

  constructor(
    status: number,
    title: string,
    message: string,
    { details = {}, retry = false }: { details?: Readonly<Record<string, string>>; retry?: boolean } = {},
  ) {
    super(message);
    this.status = status;
    this.title = title;
    this.details = details;
    this.retry = retry;
  }
}

/** Renders errors thrown downstream as a page or, under `/api`, `/chart` and the probes, as JSON. */
export function answerErrors({ log, assets }: { log: Log; assets: Assets }): Middleware {
  const warn = rateLimitedWarn(log.warn);
  return async (ctx, next) => {
    let problem: Problem | undefined;
    try {
      if (pathOf(ctx) === undefined)
        throw new Problem(
          400,
          'Invalid request target',
          `The request target is ${JSON.stringify(ctx.url.slice(0, 100))}; it must be a path such as /.`,
        );
      await next();
      problem = problemOfStatus(ctx);
    } catch (error) {
      problem = problemOf(error);
      if (error instanceof StoreError)
        warn('store', `Cannot answer from the store: ${detailedMessageOf(error)}`, {
          path: (pathOf(ctx) ?? '').slice(0, 200),
        });
      if (problem.status === 500)
        log.error(
          `Cannot answer ${ctx.method} ${JSON.stringify(ctx.url.slice(0, 200))}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
        );
    }
    if (problem === undefined) return;
    ctx.status = problem.status;
    if (problem.retry) ctx.set('Retry-After', String(retrySeconds));
    if (/^\/(?:api|chart|ready|metrics|health)(?:\/|$)/.test(pathOf(ctx) ?? '/')) {
      ctx.body = { error: { ...problem.details, message: problem.message } };
    } else {
      await ctx.render('problem', {
        assets,
        view: {
          title: problem.title,
          status: problem.status,
          message: problem.message,
          retry: problem.retry,
          refreshSeconds: problem.retry ? retrySeconds : undefined,
        },
      });
    }
  };
}

/** The path; `undefined` for an invalid request target, which Node does not reject. */
function pathOf(ctx: Context): string | undefined {
  try {
    return ctx.path;
  } catch {
    return undefined;
  }
}

function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof QueryError) {
    return new Problem(400, 'Invalid parameter', error.message, {
      details: { parameter: error.parameter, value: error.value },
    });
  }
  if (error instanceof StoreError) return new Problem(503, 'Store unavailable', error.message, { retry: true });
  return new Problem(500, 'Internal error', 'The request failed. See the log of the web app for the reason.');
}

function problemOfStatus(ctx: Context): Problem | undefined {
  if (ctx.body !== undefined && ctx.body !== null) return undefined;
  switch (ctx.status) {
    case 404:
      return new Problem(404, 'Not found', 'There is no page at this address. The dashboard is at /.');
    case 405:
    case 501:
      return new Problem(
        ctx.status,
        'Method not allowed',
        `The method is ${ctx.method.slice(0, 20)}; allowed is ${ctx.response.get('Allow') || 'GET'}.`,
      );
    default:
      return undefined;
  }
}
