/** What the routes have in common: their dependencies, the parameters of a request, and rows as an answer. */
import type { Context } from 'koa';
import type { WebConfig } from '../config.js';
import { parseQuery, unknownParameters, type DashboardQuery } from '../query/query.js';
import type { Reads } from '../query/reads.js';
import type { Assets } from '../render.js';
import { csv, type CsvValue } from './csv.js';

/** Dependencies of the routes. */
export interface RouteParts {
  readonly reads: Reads;
  readonly assets: Assets;
  /** The lines for a Caddyfile that a page without data shows. */
  readonly connectHint: readonly string[];
  readonly clientIp: WebConfig['clientIp'];
  /** The clock, in milliseconds since 1970. */
  readonly now: () => number;
}

/** The signal that aborts when the client of a response is gone. `admission` sets it. */
export function signalOf(ctx: Context): AbortSignal {
  return ctx.state['signal'] as AbortSignal;
}

/** The reads for one response. They are cancelled when its client is gone. */
export function readsOf(ctx: Context, reads: Reads): Reads {
  return reads.withSignal(signalOf(ctx));
}

/**
 * Parses the parameters of a request, and lists unknown ones in `X-Ignored-Parameters`. `raw` replaces its own
 * parameters. Throws a `QueryError`.
 */
export function queryOf(
  ctx: Context,
  { now, clientIp }: Pick<RouteParts, 'now' | 'clientIp'>,
  raw = ctx.query,
): DashboardQuery {
  const ignored = unknownParameters(raw).map((name) => encodeURIComponent(name.toWellFormed()));
  if (ignored.length > 0) ctx.set('X-Ignored-Parameters', ignored.join(', ').slice(0, 500));
  return parseQuery(raw, now(), { clientIp });
}

/** A parameter that is given exactly once; `undefined` if it is empty. */
export function textOf(value: string | string[] | undefined): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

/** The formats of rows, by the extension of the path. */
export const extensions = ['', '.csv'] as const;
/** See `extensions`: none for JSON. */
export type Extension = (typeof extensions)[number];

/** Sends rows as JSON or CSV. `columns` are those of the CSV. */
export function answerRows(
  ctx: Context,
  extension: Extension,
  rows: readonly Readonly<Record<string, CsvValue>>[],
  columns: readonly string[],
): void {
  if (extension === '') {
    ctx.body = rows;
    return;
  }
  ctx.body = csv(columns, rows);
  ctx.set('Content-Type', csvType);
}

/** The content type of CSV with a header line (RFC 4180). */
export const csvType = 'text/csv; charset=utf-8; header=present';
