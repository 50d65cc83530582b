/**
 * Tells which requests of a file the store does not hold, by what they are: see docs/decisions, "An import adds nothing
 * twice".
 *
 * A request and a stored row are the same when they agree in source, method, status, URI, sizes and the digits of the
 * duration, and when the row's time follows from the request's: it is the same, or the recorder has moved it forward,
 * past rows of its series that stand on every nanosecond between the two. Of several equal requests in one file, the
 * n-th is there already when the store holds n such rows. Of requests that were imported, the store also remembers
 * which: then it is there already when n are remembered, whether or not their rows are deleted by now.
 */
import { StoreError } from '../../shared/errors.js';
import { groupBy } from '../../shared/group-by.js';
import { dedupeKey } from '../../shared/record/imported-requests.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { seriesKey } from '../../shared/rollup/rollup.js';
import type { Store, TimeRange } from '../../shared/store/store.js';
import type { ImportedHours } from './imported-hours.js';

/** What the store lacks. */
export interface Missing {
  /** In the order in which they were given. */
  readonly requests: readonly RequestEvent[];
  /** Stored requests with times at or just after those of the missing ones: no missing one may take one of these. */
  readonly neighbours: readonly RequestEvent[];
}

/** Looks through one file. */
export interface MissingFinder {
  /**
   * Finds what the store lacks of the next requests of the file. What an earlier call found has to be in the store by
   * now, or never to be. Throws the store's `StoreError`.
   */
  find(requests: readonly RequestEvent[]): Promise<Missing>;
}

/**
 * A finder for one file: equal requests in one file are several, the same request in two files is one. `pageRowsMax`
 * rows are read at once. Equal requests are told apart when at most `rememberedMin` others are between them.
 */
export function createMissingFinder(
  store: Pick<Store, 'readRequests'>,
  imported: Pick<ImportedHours, 'count'>,
  { pageRowsMax = 10_000, rememberedMin = 20_000 } = {},
): MissingFinder {
  const occurrences = createOccurrences(rememberedMin);
  return {
    async find(requests) {
      const rows = await readNear(store, requests, pageRowsMax);
      const rowsByKey = groupBy(rows, ({ key }) => key);
      const missing = requests.filter((request) => {
        const earlier = occurrences.count(request);
        const same =
          rows.length === 0
            ? undefined
            : rowsByKey
                .get(dedupeKey(request))
                ?.filter(({ row, runStart }) => nsBetween(runStart, request) >= 0 && nsBetween(request, row) >= 0);
        return Math.max(same?.length ?? 0, imported.count(request)) <= earlier;
      });
      const missingMs = new Set(missing.map(({ timeMs }) => timeMs));
      const neighbours = rows
        .map(({ row }) => row)
        .filter(({ timeMs }) => missingMs.has(timeMs) || missingMs.has(timeMs - 1));
      return { requests: missing, neighbours };
    },
  };
}

/** A stored request near one that is looked for. */
interface NearRow {
  readonly row: RequestEvent;
  readonly key: string;
  /** The first time of the run of rows of its series that ends with it, one on each nanosecond. */
  readonly runStart: RequestEvent;
}

/** Nanoseconds from one time to another; exact when they are less than 100 days apart, and of the right sign always. */
function nsBetween(from: RequestEvent, to: RequestEvent): number {
  return (to.timeMs - from.timeMs) * 1e6 + to.timeNs - from.timeNs;
}

/** The stored rows of the milliseconds in which requests ended, and of the one after each. */
async function readNear(
  store: Pick<Store, 'readRequests'>,
  requests: readonly RequestEvent[],
  pageRowsMax: number,
): Promise<NearRow[]> {
  const timesMs = Float64Array.from(requests, ({ timeMs }) => timeMs).sort();
  const rows: RequestEvent[] = [];
  let nearMs: Set<number> | undefined; // most often nothing is stored there
  for (const range of rangesOf(timesMs)) {
    for await (const page of readPages(store, range, pageRowsMax)) {
      if (page.length === 0) continue;
      const near = (nearMs ??= new Set(requests.flatMap(({ timeMs }) => [timeMs, timeMs + 1])));
      rows.push(...page.filter(({ timeMs }) => near.has(timeMs)));
    }
  }
  return [...groupBy(rows, seriesKey).values()].flatMap(withRunStarts);
}

function withRunStarts(series: readonly RequestEvent[]): NearRow[] {
  let before: NearRow | undefined;
  return series
    .toSorted((one, other) => nsBetween(other, one))
    .map((row) => {
      before = {
        row,
        key: dedupeKey(row),
        runStart: before !== undefined && nsBetween(before.row, row) <= 1 ? before.runStart : row,
      };
      return before;
    });
}

/** What lies between two requests is read in vain when it is long; but so many reads cost more. */
const gapMsMin = 60_000;
const rangesMax = 16;

/** Times in ascending order, and the millisecond after each, as a few ranges, parted at the longest gaps. */
function rangesOf(timesMs: Float64Array): TimeRange[] {
  const gaps: { readonly at: number; readonly lengthMs: number }[] = [];
  for (let at = 1; at < timesMs.length; at += 1) {
    const lengthMs = timesMs[at]! - timesMs[at - 1]!;
    if (lengthMs > gapMsMin) gaps.push({ at, lengthMs });
  }
  const cuts = gaps
    .toSorted((one, other) => other.lengthMs - one.lengthMs)
    .slice(0, rangesMax - 1)
    .map(({ at }) => at)
    .toSorted((one, other) => one - other);
  return [0, ...cuts].flatMap((from, at, starts) => {
    const part = timesMs.subarray(from, starts[at + 1]);
    return part.length === 0 ? [] : [{ fromMs: part[0]!, toMs: part.at(-1)! + 2 }];
  });
}

/** No store holds so many requests of one millisecond. */
const rowsOfOneMsMax = 1_000_000;

/** Reads a range from its end, in pages of whole milliseconds. */
async function* readPages(
  store: Pick<Store, 'readRequests'>,
  { fromMs, toMs }: TimeRange,
  pageRowsMax: number,
): AsyncGenerator<RequestEvent[]> {
  let limit = pageRowsMax;
  for (let endMs = toMs; ; ) {
    const rows = await store.readRequests({ fromMs, toMs: endMs, filter: {}, limit });
    if (rows.length < limit) {
      yield rows;
      return;
    }
    const oldestMs = rows.at(-1)!.timeMs; // the limit may have cut this millisecond
    const whole = rows.filter(({ timeMs }) => timeMs > oldestMs);
    if (whole.length > 0) {
      yield whole;
      endMs = oldestMs + 1;
      limit = pageRowsMax;
    } else {
      limit *= 2;
      if (limit > rowsOfOneMsMax) {
        throw new StoreError(
          'stop',
          `Cannot tell which requests of ${new Date(oldestMs).toISOString()} are stored: there are more than ${limit / 2} in this millisecond.`,
        );
      }
    }
  }
}

/**
 * Counts how often a request came before with the same time, as far as the last `rememberedMin` to twice as many go.
 * Few have a microsecond in common: what they agree in is looked at only then.
 */
function createOccurrences(rememberedMin: number): { count(request: RequestEvent): number } {
  /** The one request of a microsecond, or how often each of several came, by nanosecond and `dedupeKey`. */
  type Seen = RequestEvent | Map<string, number>;
  let current = new Map<number, Seen>();
  let previous = new Map<number, Seen>();
  let remembered = 0;
  const keyOf = (request: RequestEvent): string => `${request.timeNs} ${dedupeKey(request)}`;
  const countsOf = (came: Seen): Map<string, number> => (came instanceof Map ? came : new Map([[keyOf(came), 1]]));
  return {
    count(request) {
      if (remembered >= rememberedMin) {
        previous = current;
        current = new Map();
        remembered = 0;
      }
      remembered += 1;
      const microsecond = request.timeMs * 1000 + Math.floor(request.timeNs / 1000);
      const came = current.get(microsecond) ?? previous.get(microsecond);
      if (came === undefined) {
        current.set(microsecond, request);
        return 0;
      }
      const counts = countsOf(came);
      const key = keyOf(request);
      const earlier = counts.get(key) ?? 0;
      counts.set(key, earlier + 1);
      current.set(microsecond, counts);
      return earlier;
    },
  };
}
