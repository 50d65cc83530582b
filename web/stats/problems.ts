import type { EventRow } from '../../shared/record/event-folder.js';
import { isServerError } from '../../shared/status.js';

/** Why requests fail, or what else Caddy reports as an error: all events with one reason and upstream. */
export interface Problem {
  readonly reason: string;
  /** `''` if none is known. */
  readonly upstream: string;
  readonly count: number;
  /** Hosts by number of events, most first. */
  readonly hosts: readonly { readonly host: string; readonly count: number }[];
  /** Number of the events that are about a request that failed with 5xx. */
  readonly requests: number;
  /** In milliseconds since 1970. */
  readonly firstMs: number;
  readonly lastMs: number;
}

/** Groups events by reason and upstream, most events first. Ignores events that report no failure. */
export function problemsOf(rows: readonly EventRow[]): Problem[] {
  const found = new Map<string, { -readonly [Key in keyof Problem]: Problem[Key] } & { byHost: Map<string, number> }>();
  for (const { count, event, lastMs } of rows) {
    if (!isFailure(event)) continue;
    const { reason, upstream, host, timeMs } = event;
    const key = JSON.stringify([reason, upstream]);
    let problem = found.get(key);
    if (problem === undefined)
      found.set(
        key,
        (problem = { reason, upstream, count: 0, hosts: [], requests: 0, firstMs: timeMs, lastMs, byHost: new Map() }),
      );
    problem.count += count;
    if (isServerError(event.status)) problem.requests += count;
    problem.firstMs = Math.min(problem.firstMs, timeMs);
    problem.lastMs = Math.max(problem.lastMs, lastMs);
    if (host !== '') problem.byHost.set(host, (problem.byHost.get(host) ?? 0) + count);
  }
  return [...found.values()]
    .map(({ byHost, ...problem }) => ({
      ...problem,
      hosts: [...byHost]
        .map(([host, count]) => ({ host, count }))
        .sort((a, b) => b.count - a.count || compare(a.host, b.host)),
    }))
    .sort((a, b) => b.count - a.count || b.lastMs - a.lastMs || compare(a.reason, b.reason));
}

/** Whether an event reports a failure: of a request with 5xx, of a health check, or of anything at level `error`. */
function isFailure({ level, logger, status, error, reason }: EventRow['event']): boolean {
  if (reason === '') return false;
  if (status !== 0) return isServerError(status);
  if (level === 'info' || level === 'debug') return error !== '' && logger.includes('.health_checker.');
  return level !== 'warn' || error !== '';
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
