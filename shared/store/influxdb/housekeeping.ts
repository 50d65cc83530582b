import { detailedMessageOf, messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { windowRetentions, type WindowRetention } from '../retention.js';
import { eventsRetentionMsDefault, type Retention } from '../../rollup/rollup.js';
import type { RetentionGuard } from '../retention-guard.js';
import { levelTags } from './line-values.js';

/** Dependencies of housekeeping. */
export interface HousekeepingParts {
  /** Decides which rows have expired. */
  readonly guard: Pick<RetentionGuard, 'check'>;
  /** Deletes points that match a predicate and are older than a time in milliseconds since 1970. */
  readonly deleteBefore: (predicate: string, timeMs: number) => Promise<unknown>;
  /** Writes the schema version of the bucket. */
  readonly writeVersion: () => Promise<unknown>;
  readonly log: Log;
  /**
   * Delay after a failure in milliseconds. Default: five minutes, since a deletion that timed out may still be
   * running.
   */
  readonly retryMs?: number;
}

/**
 * Interval between deletions in milliseconds. Each one makes InfluxDB examine every series of a measurement (40 ms
 * for 40 series with 600,000 points).
 */
const everyMs = 3_600_000;

/**
 * Deletes expired rows now and every hour, since the bucket has a single retention: raw requests, ledgers and rollups
 * of fine levels expire before those of hours and days. A failure is logged once and soon retried. Returns a function
 * that stops it.
 */
export function startHousekeeping({
  guard,
  deleteBefore,
  writeVersion,
  log,
  retryMs = 300_000,
}: HousekeepingParts): () => void {
  let problem: string | undefined;
  let isStopped = false;
  let timer: NodeJS.Timeout | undefined;
  const run = async (): Promise<void> => {
    let nextMs = everyMs;
    try {
      await writeVersion();
      const due = await guard.check();
      for (const [predicate, retentionMs] of rulesOf(due.retention)) {
        if (isStopped) return;
        await deleteBefore(predicate, due.nowMs - retentionMs);
      }
      problem = undefined;
    } catch (error) {
      const message = messageOf(error);
      if (!isStopped && message !== problem)
        log.warn(`Cannot delete expired requests and rollups, retrying: ${detailedMessageOf(error)}`);
      problem = message;
      nextMs = retryMs;
    }
    if (!isStopped) timer = setTimeout(() => void run(), nextMs).unref();
  };
  void run();
  return () => {
    isStopped = true;
    clearTimeout(timer);
  };
}

/** Predicates with the retention of matching points, in milliseconds. */
function rulesOf({
  requestsMs,
  rollupsMs,
  eventsMs = eventsRetentionMsDefault,
}: Retention): (readonly [string, number])[] {
  return [
    ['_measurement="request_metrics"', requestsMs],
    ['_measurement="collector_ledger"', requestsMs],
    ['_measurement="caddy_event"', eventsMs],
    ['_measurement="imported_request"', rollupsMs],
    ...windowRetentions(rollupsMs).map(
      ({ table, level, retentionMs }) => [`${predicates[table]} AND level="${levelTags[level]}"`, retentionMs] as const,
    ),
  ];
}

/**
 * InfluxDB 2 has no `!=` in delete predicates, so that of `request_rollup` also matches rows of hosts. No level has a
 * longer retention for these.
 */
const predicates: Readonly<Record<WindowRetention['table'], string>> = {
  request_rollup: '_measurement="request_rollup"',
  host_rollup: '_measurement="request_rollup" AND scope="host"',
  request_top: '_measurement="request_top"',
};
