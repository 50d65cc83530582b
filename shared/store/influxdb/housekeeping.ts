import { detailedMessageOf, messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { windowRetentions, type WindowRetention } from '../retention.js';
import type { Retention } from '../../rollup/rollup.js';
import type { RetentionGuard } from '../retention-guard.js';
import { levelTags } from './line-protocol.js';

/** What housekeeping works with. */
export interface HousekeepingParts {
  /** Decides what is too old. */
  readonly guard: Pick<RetentionGuard, 'look'>;
  /** Deletes the points that a predicate names and that are older than a time in milliseconds since 1970. */
  readonly deleteBefore: (predicate: string, timeMs: number) => Promise<unknown>;
  /** Writes which version the bucket has. */
  readonly writeVersion: () => Promise<unknown>;
  readonly log: Log;
  /**
   * How long to wait after a failure, in milliseconds: five minutes, since a deletion that took too long may still be
   * under way.
   */
  readonly retryMs?: number;
}

/**
 * How often what is old is deleted, in milliseconds: InfluxDB looks at each series of a measurement for it (40 ms for
 * 40 series of 600,000 points).
 */
const everyMs = 3_600_000;

/**
 * Does now and every hour what the retention of a bucket cannot: single requests, ledgers and totals of fine windows go
 * sooner than the totals of hours and days. What fails is said in the log once, and tried again soon. Gives what ends
 * it.
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
      const due = await guard.look();
      for (const [predicate, keptMs] of rulesOf(due.retention)) {
        if (isStopped) return;
        await deleteBefore(predicate, due.nowMs - keptMs);
      }
      problem = undefined;
    } catch (error) {
      const message = messageOf(error);
      if (!isStopped && message !== problem)
        log.warn(`Cannot delete old requests and totals yet: ${detailedMessageOf(error)}`);
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

/** Predicates, and how long what they name is kept, in milliseconds. */
function rulesOf({ requestsMs, rollupsMs }: Retention): (readonly [string, number])[] {
  return [
    ['_measurement="request_metrics"', requestsMs],
    ['_measurement="collector_ledger"', requestsMs],
    ['_measurement="imported_request"', rollupsMs],
    ...windowRetentions(rollupsMs).map(
      ({ table, level, keptMs }) => [`${predicates[table]} AND level="${levelTags[level]}"`, keptMs] as const,
    ),
  ];
}

/**
 * InfluxDB 2 has no `!=` in delete predicates, so the one for `request_rollup` also matches rows of hosts. No level
 * keeps these for longer than the others.
 */
const predicates: Readonly<Record<WindowRetention['table'], string>> = {
  request_rollup: '_measurement="request_rollup"',
  host_rollup: '_measurement="request_rollup" AND scope="host"',
  request_top: '_measurement="request_top"',
};
