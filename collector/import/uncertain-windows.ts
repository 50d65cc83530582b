/**
 * Finds possible duplicates: requests without a stored row that may be counted already.
 *
 * They occur in two kinds of windows: in sampled ones (`SAMPLE_RATIO`), and in those whose rows are deleted
 * (`RETENTION_REQUESTS`) and which count more requests than the store remembers as imported.
 *
 * Each window is loaded once, when the file reaches it, so that the import's own requests do not affect the result.
 * Hours are loaded first, since they are few, and finer windows only for sampled hours.
 */
import { groupBy } from '../../shared/group-by.js';
import { levelRetentionMsMax, levels, windowStart, type Level, type RollupRow } from '../../shared/rollup/rollup.js';
import type { RequestEvent } from '../../shared/request-event.js';
import type { Store } from '../../shared/store/store.js';
import type { ImportedHours } from './imported-hours.js';

/** The windows of one file. */
export interface UncertainWindows {
  /**
   * Loads the windows of the next requests. Call it before they are written, and after their imported hours are loaded.
   * Throws the store's `StoreError`.
   */
  load(requests: readonly RequestEvent[]): Promise<void>;
  /**
   * Whether a request without a stored row may be counted already. Its window must be loaded. Rows before
   * `requestsFromMs`, in milliseconds since 1970, may be deleted.
   */
  isUncertain(request: RequestEvent, requestsFromMs: number): boolean;
}

const hour: Level = 3600;

/** Creates the windows of one file. `now` returns the time in milliseconds since 1970. */
export function createUncertainWindows(
  store: Pick<Store, 'readRollups'>,
  imported: Pick<ImportedHours, 'countOf'>,
  { now = Date.now } = {},
): UncertainWindows {
  const hours = new Map<number, { readonly isSampled: boolean; readonly uncertainSources: ReadonlySet<string> }>();
  /** Whether a window is sampled, by level and start. Only for windows of sampled hours. */
  const windows = new Map<string, boolean>();

  return {
    async load(requests) {
      const newHours = new Set(
        requests.map(({ timeMs }) => windowStart(timeMs, hour)).filter((startMs) => !hours.has(startMs)),
      );
      for (const [startMs, rows] of await rowsOf(hour, [...newHours])) {
        const counts = new Map<string, number>();
        for (const { source, cells } of rows)
          counts.set(
            source,
            cells.reduce((sum, { count }) => sum + count, counts.get(source) ?? 0),
          );
        const uncertain = [...counts].filter(([source, count]) => count > imported.countOf(startMs, source));
        hours.set(startMs, {
          isSampled: isSampled(rows),
          uncertainSources: new Set(uncertain.map(([source]) => source)),
        });
      }
      const unknown = requests.filter(
        ({ timeMs }) => hours.get(windowStart(timeMs, hour))?.isSampled === true && !windows.has(keyOf(timeMs)),
      );
      for (const level of levels) {
        const starts = new Set(
          unknown.filter(({ timeMs }) => levelOf(timeMs) === level).map(({ timeMs }) => windowStart(timeMs, level)),
        );
        for (const [startMs, rows] of await rowsOf(level, [...starts]))
          windows.set(`${level} ${startMs}`, isSampled(rows));
      }
    },

    isUncertain({ timeMs, source }, requestsFromMs) {
      const found = hours.get(windowStart(timeMs, hour));
      if (found === undefined) return false;
      return timeMs < requestsFromMs
        ? found.uncertainSources.has(source)
        : found.isSampled && windows.get(keyOf(timeMs)) === true;
    },
  };

  function keyOf(timeMs: number): string {
    const level = levelOf(timeMs);
    return `${level} ${windowStart(timeMs, level)}`;
  }

  /** The finest level with a retention of more than twice the age of that time. */
  function levelOf(timeMs: number): Level {
    return levels.find((level) => 2 * (now() - timeMs) < levelRetentionMsMax(level)) ?? hour;
  }

  async function rowsOf(
    level: Level,
    startsMs: readonly number[],
  ): Promise<[startMs: number, rows: readonly RollupRow[]][]> {
    if (startsMs.length === 0) return [];
    const fromMs = startsMs.reduce((least, startMs) => Math.min(least, startMs));
    const toMs = startsMs.reduce((greatest, startMs) => Math.max(greatest, startMs)) + 1;
    const rows = groupBy(
      await store.readRollups({ fromMs, toMs, level, scope: 'all', filter: {} }),
      ({ windowMs }) => windowMs,
    );
    return startsMs.map((startMs) => [startMs, rows.get(startMs) ?? []]);
  }
}

function isSampled(rows: readonly RollupRow[]): boolean {
  return rows.some(({ cells }) => cells.some(({ sampledOut }) => sampledOut > 0));
}
