import type { EventRow } from '../../shared/record/event-folder.js';

/** A time at which Caddy's configuration came into force. */
export interface CaddyStart {
  /** `reload` if it is not known to be a start. */
  readonly kind: 'start' | 'reload';
  /** In milliseconds since 1970. */
  readonly timeMs: number;
}

/** Maximum time between the messages of one start or reload, in milliseconds. */
const oneStartMsMax = 5000;

/**
 * Finds when Caddy started or reloaded, oldest first. Caddy writes `server running` for each server, and after a start
 * `serving initial configuration`. Reloads within seconds are one.
 */
export function caddyStartsIn(rows: readonly EventRow[]): CaddyStart[] {
  const timesOf = (logger: string, message: string): number[] =>
    rows
      .filter(({ event }) => event.logger === logger && event.message === message)
      .flatMap(({ event, lastMs, count }) => (count > 1 ? [event.timeMs, lastMs] : [event.timeMs]))
      .sort((a, b) => a - b);
  const starts = timesOf('', 'serving initial configuration');
  const found: CaddyStart[] = [];
  for (const timeMs of timesOf('http.log', 'server running')) {
    if (timeMs - (found.at(-1)?.timeMs ?? -Infinity) <= oneStartMsMax) continue;
    const isStart = starts.some((startMs) => Math.abs(startMs - timeMs) <= oneStartMsMax);
    found.push({ kind: isStart ? 'start' : 'reload', timeMs });
  }
  return found;
}
