/**
 * Tells for which requests of a file nobody can say whether they are counted already: those that are not found one by one in windows of which the store
 * keeps a part of the requests alone (`SAMPLE_RATIO`). To add them might count them twice.
 *
 * A window is looked at once, when the file comes to it: what the import itself adds to it from then on changes nothing. Hours are looked at first, as there
 * are few of them; windows of an hour of which all is kept are not looked at.
 */
import { fineLevelKeptMs, levels, windowStart, type Level, type RollupRow } from '../../shared/rollup.js';
import type { RequestEvent } from '../../shared/request-event.js';
import type { Store } from '../../shared/store/store.js';

/** Looks at the windows of one file. */
export interface SampledWindows {
  /** Looks at the windows of requests that come next, before anything of them is written. Throws the store's `StoreError`. */
  look(requests: readonly RequestEvent[]): Promise<void>;
  /** Whether the store keeps only a part of the requests of this one's window. It has been looked at. */
  isSampled(request: RequestEvent): boolean;
}

const hour: Level = 3600;

/** Makes what looks at the windows of one file. `now` is the clock in milliseconds since 1970. */
export function createSampledWindows(store: Pick<Store, 'readRollups'>, { now = Date.now } = {}): SampledWindows {
  const hours = new Map<number, boolean>();
  /** By level and start, of sampled hours alone. */
  const windows = new Map<string, boolean>();

  return {
    async look(requests) {
      const newHours = new Set(requests.map(({ timeMs }) => windowStart(timeMs, hour)).filter((startMs) => !hours.has(startMs)));
      for (const [startMs, isSampled] of await sampledOf(hour, [...newHours])) hours.set(startMs, isSampled);
      const unknown = requests.filter(({ timeMs }) => hours.get(windowStart(timeMs, hour)) === true && !windows.has(keyOf(timeMs)));
      for (const level of levels) {
        const starts = new Set(unknown.filter(({ timeMs }) => levelOf(timeMs) === level).map(({ timeMs }) => windowStart(timeMs, level)));
        for (const [startMs, isSampled] of await sampledOf(level, [...starts])) windows.set(`${level} ${startMs}`, isSampled);
      }
    },
    isSampled: ({ timeMs }) => hours.get(windowStart(timeMs, hour)) === true && windows.get(keyOf(timeMs)) === true,
  };

  function keyOf(timeMs: number): string {
    const level = levelOf(timeMs);
    return `${level} ${windowStart(timeMs, level)}`;
  }

  /** The finest level whose windows of that time are there for as long again. */
  function levelOf(timeMs: number): Level {
    return levels.find((level) => 2 * (now() - timeMs) < (fineLevelKeptMs[level] ?? Infinity)) ?? hour;
  }

  async function sampledOf(level: Level, startsMs: readonly number[]): Promise<Map<number, boolean>> {
    if (startsMs.length === 0) return new Map();
    const fromMs = startsMs.reduce((least, startMs) => Math.min(least, startMs));
    const toMs = startsMs.reduce((greatest, startMs) => Math.max(greatest, startMs)) + 1;
    const rows = await store.readRollups({ fromMs, toMs, level, filter: {} });
    const sampled = new Set(rows.filter(({ sampledOut }: RollupRow) => sampledOut > 0).map(({ windowMs }) => windowMs));
    return new Map(startsMs.map((startMs) => [startMs, sampled.has(startMs)]));
  }
}
