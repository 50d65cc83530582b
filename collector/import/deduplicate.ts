/**
 * Finds the requests of a file that the store does not have: see docs/decisions, "An import adds nothing twice".
 *
 * A request matches a stored row if source, method, status, URI, sizes and the digits of the duration are equal, and if
 * the row has the same time, or a later one because the recorder has moved it past rows of its series on every
 * nanosecond in between. The n-th of several equal requests in a file is a duplicate if the store has n such rows. The
 * store also remembers imported requests, even after their rows were deleted: n remembered ones count as well.
 */
import { StoreError } from '../../shared/errors.js';
import { groupBy } from '../../shared/group-by.js';
import { dedupeKey } from '../../shared/record/imported-requests.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { seriesKey } from '../../shared/rollup/rollup.js';
import type { Store, TimeRange } from '../../shared/store/store.js';
import type { ImportedHours } from './imported-hours.js';

/** Requests that the store does not have. */
export interface Missing {
  /** In the order of the file. */
  readonly requests: readonly RequestEvent[];
  /** Stored requests at or just after the times of the missing ones. Their times are taken. */
  readonly neighbours: readonly RequestEvent[];
}

/** Finds missing requests of one file. */
export interface MissingFinder {
  /**
   * Returns those of the next requests of the file that the store does not have. Write or discard the result of a call
   * before the next one. Throws the store's `StoreError`.
   */
  find(requests: readonly RequestEvent[]): Promise<Missing>;
}

/**
 * Creates a finder for one file: equal requests within a file are separate requests, equal requests in two files are
 * duplicates. `pageRowsMax`: rows per read. `rememberedMin`: maximum distance of equal requests, in requests.
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
        const matches =
          rows.length === 0
            ? undefined
            : rowsByKey
                .get(dedupeKey(request))
                ?.filter(({ row, runStart }) => nsBetween(runStart, request) >= 0 && nsBetween(request, row) >= 0);
        return Math.max(matches?.length ?? 0, imported.count(request)) <= earlier;
      });
      const missingMs = new Set(missing.map(({ timeMs }) => timeMs));
      const neighbours = rows
        .map(({ row }) => row)
        .filter(({ timeMs }) => missingMs.has(timeMs) || missingMs.has(timeMs - 1));
      return { requests: missing, neighbours };
    },
  };
}

/** A stored request near the time of one of the file. */
interface NearRow {
  readonly row: RequestEvent;
  readonly key: string;
  /** The first of the rows of its series that lead to it on consecutive nanoseconds. */
  readonly runStart: RequestEvent;
}

/** Nanoseconds from one time to another. Exact within 100 days; the sign is always correct. */
function nsBetween(from: RequestEvent, to: RequestEvent): number {
  return (to.timeMs - from.timeMs) * 1e6 + to.timeNs - from.timeNs;
}

/** Reads the stored rows of the milliseconds in which requests ended, and of the millisecond after each. */
async function readNear(
  store: Pick<Store, 'readRequests'>,
  requests: readonly RequestEvent[],
  pageRowsMax: number,
): Promise<NearRow[]> {
  const timesMs = Float64Array.from(requests, ({ timeMs }) => timeMs).sort();
  const rows: RequestEvent[] = [];
  let nearMs: Set<number> | undefined; // created lazily: most ranges are empty
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

/** Minimum gap between two ranges, in milliseconds. */
const gapMsMin = 60_000;
/** Maximum number of ranges. Beyond it, further reads would cost more than reading the gaps. */
const rangesMax = 16;

/** Covers ascending times, and the millisecond after each, with a few ranges, separated at the longest gaps. */
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

/** Maximum number of rows per millisecond. */
const rowsOfOneMsMax = 1_000_000;

/** Reads a range backwards, in pages of whole milliseconds. */
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
    const oldestMs = rows.at(-1)!.timeMs; // this millisecond may be incomplete
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
          `Cannot look up the requests of ${new Date(oldestMs).toISOString()}: more than ${limit / 2} are stored for this millisecond.`,
        );
      }
    }
  }
}

/**
 * Counts earlier occurrences of a request with the same time, among the last `rememberedMin` requests or up to twice as
 * many. Computes keys only for requests that share a microsecond, which is rare.
 */
function createOccurrences(rememberedMin: number): { count(request: RequestEvent): number } {
  /** The only request of a microsecond, or the counts of several, by nanosecond and `dedupeKey`. */
  type Seen = RequestEvent | Map<string, number>;
  let current = new Map<number, Seen>();
  let previous = new Map<number, Seen>();
  let remembered = 0;
  const keyOf = (request: RequestEvent): string => `${request.timeNs} ${dedupeKey(request)}`;
  const countsOf = (seen: Seen): Map<string, number> => (seen instanceof Map ? seen : new Map([[keyOf(seen), 1]]));
  return {
    count(request) {
      if (remembered >= rememberedMin) {
        previous = current;
        current = new Map();
        remembered = 0;
      }
      remembered += 1;
      const microsecond = request.timeMs * 1000 + Math.floor(request.timeNs / 1000);
      const seen = current.get(microsecond) ?? previous.get(microsecond);
      if (seen === undefined) {
        current.set(microsecond, request);
        return 0;
      }
      const counts = countsOf(seen);
      const key = keyOf(request);
      const earlier = counts.get(key) ?? 0;
      counts.set(key, earlier + 1);
      current.set(microsecond, counts);
      return earlier;
    },
  };
}
