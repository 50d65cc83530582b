/** Top lists of raw requests, for filters that stored top lists do not support. */
import { groupBy } from '../group-by.js';
import type { RequestEvent } from '../request-event.js';
import { latencyBucketOf } from '../rollup/rollup.js';
import { requestDimensions, topValueOf, type RequestDimension, type TopKind } from './top-row.js';
import { SpaceSaving, type TopEntry } from '../sketch/space-saving.js';

/** A list with exact counts. */
export interface RequestList {
  /** Number of requests with a known value. */
  readonly total: number;
  /** Most requests first. */
  readonly entries: readonly TopEntry[];
}

/** Top lists and unique clients of the raw requests of one source. */
export interface RequestLists {
  /** The requested lists that have values. */
  readonly lists: ReadonlyMap<RequestDimension, RequestList>;
  /** Number of distinct client addresses; 0 if none is known, or they were not requested. */
  readonly clients: number;
}

/** Returns the lists by source, each with at most `valuesMax` values. */
export function topListsOfRequests(
  requests: readonly RequestEvent[],
  { kinds, valuesMax }: { kinds: readonly TopKind[]; valuesMax: number },
): ReadonlyMap<string, RequestLists> {
  return new Map(
    [...groupBy(requests, ({ source }) => source)].map(([source, ofSource]) => {
      const lists = requestDimensions
        .filter((dimension) => kinds.includes(dimension))
        .flatMap((dimension) => {
          const summary = new SpaceSaving({ entriesMax: Infinity });
          for (const request of ofSource) {
            const value = topValueOf[dimension](request);
            if (value !== '') summary.add(value, request, latencyBucketOf(request));
          }
          return summary.total === 0
            ? []
            : [[dimension, { total: summary.total, entries: summary.entries().slice(0, valuesMax) }] as const];
        });
      const clients = kinds.includes('unique_clients')
        ? new Set(ofSource.map(({ clientIp }) => clientIp).filter((address) => address !== '')).size
        : 0;
      return [source, { lists: new Map(lists), clients }];
    }),
  );
}
