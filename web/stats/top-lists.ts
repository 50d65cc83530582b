/** Top lists, computed from stored rows or from raw requests. Pure. */
import { groupBy } from '../../shared/group-by.js';
import { Histogram } from '../../shared/sketch/histogram.js';
import { HyperLogLog } from '../../shared/sketch/hyperloglog.js';
import { SpaceSaving, type TopEntry } from '../../shared/sketch/space-saving.js';
import type { RequestList, RequestLists } from '../../shared/top-list/top-lists-of-requests.js';
import { isOfClients, type TopDimension, type TopRow } from '../../shared/top-list/top-row.js';
import { agentOf, type Agent } from './agents.js';
import { latencyOf, type Figures } from './figures.js';
import type { HostList } from './fold.js';

/** The figures of one value of a list. */
export interface TopFigures extends Pick<Figures, 'requests' | 'errors' | 'bytes' | 'latencyMs'> {
  /** Maximum number of uncounted requests. */
  readonly missedMax: number;
}

/** A top list, most requests first. */
export interface TopList {
  /** Number of requests with any value of this dimension. */
  readonly total: number;
  /** Number of values. Default: the size of `values`. */
  readonly count?: number;
  readonly values: ReadonlyMap<string, TopFigures>;
}

/** The lists of one source. */
export interface SourceTopLists {
  readonly lists: Readonly<Record<TopDimension, RankedList>>;
  /** Derived from the list of user agents. Lazy and memoized, because that list is long. */
  readonly agents: Readonly<Record<(typeof agentDimensions)[number], () => TopList>>;
  /** Number of distinct client addresses; `null` if unknown. */
  readonly clients: number | null;
}

/** A list that ranks its values lazily. */
interface RankedList {
  readonly total: number;
  readonly entries: () => readonly TopEntry[];
}

/** The top lists of a range. */
export interface TopLists {
  readonly bySource: ReadonlyMap<string, SourceTopLists>;
  /** Number of raw requests read, newest first, if the read was truncated. */
  readonly ofNewest: number | undefined;
  /**
   * Start of the retained raw requests, in milliseconds since 1970, if the lists are computed from them and the range
   * starts earlier.
   */
  readonly retainedFromMs: number | undefined;
}

/** Dimensions derived from user agents. */
export const agentDimensions = ['browser', 'system', 'bot', 'who'] as const satisfies readonly (keyof Agent)[];
/** A dimension that has a list. */
export type ListedDimension = TopDimension | (typeof agentDimensions)[number];

/** Whether a list is derived from that of the user agents. */
export function isOfAgents(dimension: ListedDimension): dimension is (typeof agentDimensions)[number] {
  return agentDimensions.some((each) => each === dimension);
}

/** Unpacked sketches of the rows of a window, by source. Immutable. */
export type TopListsDigest = ReadonlyMap<string, WindowTopLists>;

interface WindowTopLists {
  readonly lists: readonly (readonly [TopDimension, SpaceSaving])[];
  /** Of all hosts; `undefined` without rows of unique clients. */
  readonly clients: HyperLogLog | undefined;
}

/** Computes the digest of the rows of one window. */
export function topListsDigestOf(rows: readonly TopRow[]): TopListsDigest {
  return new Map(
    [...groupBy(rows, ({ source }) => source)].map(([source, ofSource]) => {
      const sketches = ofSource.filter(({ kind }) => isOfClients(kind)).map(({ packed }) => HyperLogLog.unpack(packed));
      const [clients, ...others] = sketches;
      for (const other of others) clients!.merge(other);
      return [
        source,
        {
          lists: ofSource.flatMap(({ kind, packed }) =>
            isOfClients(kind) ? [] : [[kind, SpaceSaving.unpack(packed)] as const],
          ),
          clients,
        },
      ];
    }),
  );
}

/** Estimated size of a digest, in units of about 3 kB. */
export function piecesIn(digest: TopListsDigest): number {
  return [...digest.values()].reduce(
    (sum, { lists, clients }) => sum + 15 * lists.length + (clients === undefined ? 0 : 3),
    0,
  );
}

/** Merges the lists of several windows, and those of raw requests. */
export function mergeTopLists(
  digests: readonly TopListsDigest[],
  listed: ReadonlyMap<string, RequestLists>,
): TopLists['bySource'] {
  const parts = new Map<string, { lists: Record<TopDimension, SpaceSaving>; clients: HyperLogLog }>();
  const partOf = (of: string) => {
    let part = parts.get(of);
    if (part === undefined) parts.set(of, (part = { lists: emptyLists(), clients: new HyperLogLog() }));
    return part;
  };
  for (const digest of digests) {
    for (const [of, { lists, clients }] of digest) {
      const part = partOf(of);
      for (const [dimension, summary] of lists) part.lists[dimension].merge(summary);
      if (clients !== undefined) part.clients.merge(clients);
    }
  }
  for (const of of listed.keys()) partOf(of);
  return new Map(
    [...parts].map(([of, { lists, clients }]) => {
      const fromRequests = listed.get(of);
      // One of the two counts is 0.
      const ranked = rankedLists(lists, fromRequests?.lists);
      return [
        of,
        {
          lists: ranked,
          agents: agentLists(ranked.user_agent),
          clients: clients.count() + (fromRequests?.clients ?? 0) || null,
        },
      ];
    }),
  );
}

/** Returns the list of a dimension. */
export function listOf(topLists: SourceTopLists | undefined, dimension: ListedDimension): TopList {
  if (topLists === undefined) return { total: 0, values: new Map() };
  if (isOfAgents(dimension)) return topLists.agents[dimension]();
  const list = topLists.lists[dimension];
  return { total: list.total, values: new Map(list.entries().map((entry) => [entry.value, figuresOf(entry)])) };
}

/** Returns the most frequent reason of 5xx, and their number; `undefined` if no reason is known. */
export function leadingReason(
  topLists: SourceTopLists | undefined,
): { readonly reason: string; readonly requests: number } | undefined {
  let leading: { reason: string; requests: number } | undefined;
  for (const { value, errors } of topLists?.lists.error.entries() ?? [])
    if (errors > (leading?.requests ?? 0)) leading = { reason: value, requests: errors };
  return leading;
}

function agentLists({ total, entries }: RankedList): SourceTopLists['agents'] {
  const listBy = (dimension: (typeof agentDimensions)[number]): TopList => {
    const byAgent = groupBy(entries(), ({ value }) => agentOf(value)[dimension]);
    byAgent.delete('');
    return {
      total,
      values: new Map(
        [...byAgent]
          .map(([value, some]) => [value, figuresOfAll(some)] as const)
          .sort(([, a], [, b]) => b.requests - a.requests),
      ),
    };
  };
  return Object.fromEntries(
    agentDimensions.map((dimension) => [dimension, once(() => listBy(dimension))]),
  ) as SourceTopLists['agents'];
}

/** Returns an exact list of hosts or methods, from rollups. `all` includes hosts without figures. */
export function exactList(figures: ReadonlyMap<string, Figures>, all?: Pick<HostList, 'count' | 'requests'>): TopList {
  return {
    total: all?.requests ?? [...figures.values()].reduce((sum, { requests }) => sum + requests, 0),
    count: all?.count ?? figures.size,
    values: new Map(
      [...figures].map(([value, each]) => [
        value,
        {
          requests: each.requests,
          errors: each.errors,
          bytes: each.bytes,
          get latencyMs() {
            return each.latencyMs;
          },
          missedMax: 0,
        },
      ]),
    ),
  };
}

/** Percentiles are computed lazily: a page shows ten of thousands of values. */
function figuresOf(entry: TopEntry): TopFigures {
  return {
    requests: entry.count,
    errors: entry.errors,
    bytes: entry.sizeSum,
    get latencyMs() {
      return latencyOf(entry);
    },
    missedMax: entry.missedMax,
  };
}

function figuresOfAll(entries: readonly TopEntry[]): TopFigures {
  const sum = (valueOf: (entry: TopEntry) => number): number => entries.reduce((all, entry) => all + valueOf(entry), 0);
  const latency = once(() => {
    const histogram = new Histogram();
    for (const entry of entries) histogram.merge(entry.histogram);
    return latencyOf({
      histogram,
      durationSumMs: sum(({ durationSumMs }) => durationSumMs),
      durationMaxMs: Math.max(...entries.map(({ durationMaxMs }) => durationMaxMs)),
    });
  });
  return {
    requests: sum(({ count }) => count),
    errors: sum(({ errors }) => errors),
    bytes: sum(({ sizeSum }) => sizeSum),
    missedMax: sum(({ missedMax }) => missedMax),
    get latencyMs() {
      return latency();
    },
  };
}

function rankedLists(
  lists: Readonly<Record<TopDimension, SpaceSaving>>,
  listed: ReadonlyMap<string, RequestList> = new Map(),
): Record<TopDimension, RankedList> {
  return Object.fromEntries(
    Object.entries(lists).map(([dimension, list]) => {
      const counted = listed.get(dimension);
      if (counted !== undefined) return [dimension, { total: counted.total, entries: () => counted.entries }];
      return [dimension, { total: list.total, entries: once(() => list.entries()) }];
    }),
  ) as Record<TopDimension, RankedList>;
}

/** Returns a lazy, memoized `make`. */
function once<Value extends object>(make: () => Value): () => Value {
  let value: Value | undefined;
  return () => (value ??= make());
}

function emptyLists(): Record<TopDimension, SpaceSaving> {
  const all = (): SpaceSaving => new SpaceSaving({ entriesMax: Infinity });
  return {
    path: all(),
    referrer: all(),
    user_agent: all(),
    client: all(),
    error: all(),
    upstream: all(),
    country: all(),
  };
}
