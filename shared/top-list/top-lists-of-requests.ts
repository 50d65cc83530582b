/** The top lists of single requests, for filters that the stored lists know nothing of. */
import { groupBy } from '../group-by.js';
import type { RequestEvent } from '../request-event.js';
import { requestDimensions, topValueOf, type RequestDimension, type TopKind } from './top-row.js';
import { SpaceSaving, type TopEntry } from '../sketch/space-saving.js';

/** One list: its values are counted exactly. */
export interface RequestList {
  /** All requests whose value is known. */
  readonly total: number;
  /** Most requests first. */
  readonly entries: readonly TopEntry[];
}

/** What single requests of one source tell. */
export interface RequestLists {
  /** Those that were asked for, and have a value. */
  readonly lists: ReadonlyMap<RequestDimension, RequestList>;
  /** How many different client addresses there were; 0 where none is known, or they were not asked for. */
  readonly clients: number;
}

/** Lists requests by source, `valuesMax` values in each list at most. */
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
            if (value !== '') summary.add(value, request);
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
