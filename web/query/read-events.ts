import type { CaddyLevel } from '../../shared/caddy-event.js';
import { eventWindow, type EventRow } from '../../shared/record/event-folder.js';
import { windowStart } from '../../shared/rollup/rollup.js';
import type { DashboardQuery } from './query.js';
import type { Reads } from './reads.js';

/** Maximum number of rows that are searched for a logger. */
const searchedMax = 10_000;

/** Which events of a query to read. */
export interface EventsOptions {
  /** Default: all. */
  readonly levels?: readonly CaddyLevel[] | undefined;
  /** A logger, or the beginning of its name followed by `*`: `tls*`. Default: all. */
  readonly logger?: string | undefined;
  readonly limit: number;
}

/**
 * Reads the events of a range, newest minute first. Of the filters, `host`, `status`, `method`, `error` and `upstream`
 * apply to events. Throws a `StoreError`.
 */
export async function readEvents(
  reads: Reads,
  { fromMs, toMs, filter }: Pick<DashboardQuery, 'fromMs' | 'toMs' | 'filter'>,
  { levels, logger, limit }: EventsOptions,
): Promise<EventRow[]> {
  const { host, method, status, error, upstream } = filter;
  const isSearched = [logger, method, status, error, upstream].some((condition) => condition !== undefined);
  const rows = await reads.readEvents({
    fromMs: windowStart(fromMs, eventWindow),
    toMs,
    levels,
    host,
    limit: isSearched ? Math.max(limit, searchedMax) : limit,
  });
  const hasLogger = logger?.endsWith('*')
    ? (name: string) => name.startsWith(logger.slice(0, -1))
    : (name: string) => logger === undefined || name === logger;
  return rows
    .filter(
      ({ event }) =>
        hasLogger(event.logger) &&
        (method === undefined || event.method === method) &&
        (status === undefined || (event.status >= status.min && event.status <= status.max)) &&
        (error === undefined || event.reason === error) &&
        (upstream === undefined || event.upstream === upstream),
    )
    .slice(0, limit);
}
