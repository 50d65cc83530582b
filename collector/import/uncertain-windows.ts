/**
 * Finds the requests of a file that may be counted already although neither a row nor an import of them is known: to
 * add them could count them twice.
 *
 * Two kinds of windows hold such requests: those of which only a part of the requests is stored (`SAMPLE_RATIO`), and
 * those whose rows are deleted (`RETENTION_REQUESTS`), where more requests are counted than the store remembers as
 * imported.
 *
 * A window is looked at once, when the file comes to it: what the import itself adds to it from then on changes
 * nothing. Hours are looked at first, as there are few of them; finer windows only of hours that are sampled.
 */
import { groupBy } from '../../shared/group-by.js';
import { levelRetentionMsMax, levels, windowStart, type Level, type RollupRow } from '../../shared/rollup/rollup.js';
import type { RequestEvent } from '../../shared/request-event.js';
import type { Store } from '../../shared/store/store.js';
import type { ImportedHours } from './imported-hours.js';

/** Looks at the windows of one file. */
export interface UncertainWindows {
  /**
   * Looks at the windows of requests that come next, before anything of them is written. Their imported hours have been
   * loaded. Throws the store's `StoreError`.
   */
  look(requests: readonly RequestEvent[]): Promise<void>;
  /**
   * Whether a request may be counted already, without a trace of itself. Its window has been looked at. Rows from
   * before `requestsFromMs`, in milliseconds since 1970, may be deleted.
   */
  isUncertain(request: RequestEvent, requestsFromMs: number): boolean;
}

const hour: Level = 3600;

/** Makes what looks at the windows of one file. `now` is the clock in milliseconds since 1970. */
export function createUncertainWindows(
  store: Pick<Store, 'readRollups'>,
  imported: Pick<ImportedHours, 'countOf'>,
  { now = Date.now } = {},
): UncertainWindows {
  const hours = new Map<number, { readonly isSampled: boolean; readonly uncertainSources: ReadonlySet<string> }>();
  /** By level and start, of sampled hours alone. */
  const windows = new Map<string, boolean>();

  return {
    async look(requests) {
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

  /** The finest level whose windows of that time are there for as long again. */
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
