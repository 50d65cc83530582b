/** What is stored of the top lists and the unique clients: names, levels and how long they are kept. */
import type { RequestEvent } from '../request-event.js';
import type { Level } from '../rollup/rollup.js';

/** The lists whose values a stored request tells. By host and by method the rollups tell all. */
export const requestDimensions = ['path', 'referrer', 'user_agent', 'client'] as const;
/** One of them. */
export type RequestDimension = (typeof requestDimensions)[number];
/**
 * The lists that are kept. A country is that of the whole address, and so is not stored with the request, whose address
 * may be truncated.
 */
export const topDimensions = [...requestDimensions, 'country'] as const;
/** One of them. */
export type TopDimension = (typeof topDimensions)[number];

/**
 * What a row holds: a list, or a sketch of the distinct clients of a source or of one host. Earlier versions wrote a
 * row of `unique_clients` for each host instead of one for the source.
 */
export const topKinds = [...topDimensions, 'unique_clients', 'host_clients'] as const;
/** One of them. */
export type TopKind = (typeof topKinds)[number];

/** Whether rows of a kind hold a sketch of clients, and not a list. */
export function isOfClients(kind: TopKind): kind is 'unique_clients' | 'host_clients' {
  return kind === 'unique_clients' || kind === 'host_clients';
}

/**
 * The lengths of the windows that have lists, in seconds, finest first. Lists are for a whole range, never for a chart:
 * windows of ten seconds would be read for nothing.
 */
export const topLevels = [60, 600, 3600, 86_400] as const satisfies readonly Level[];
/** One of them. */
export type TopLevel = (typeof topLevels)[number];

/** The levels that have a sketch for each host. */
export const hostClientsLevels: readonly TopLevel[] = [3600, 86_400];

const dayMs = 86_400_000;

/**
 * How long the rows of the finer levels are kept, in milliseconds; those of a day as long as the settings say. A row
 * has some 5 to 15 kB where there is traffic.
 */
export const topListRetentionMs: Readonly<Partial<Record<TopLevel, number>>> = {
  60: dayMs,
  600: 7 * dayMs,
  3600: 60 * dayMs,
};

/** How long rows of a level are kept, in milliseconds, where those of a day are kept for `rollupsMs`. */
export function topRetentionMs(level: TopLevel, rollupsMs: number): number {
  return Math.min(topListRetentionMs[level] ?? rollupsMs, rollupsMs);
}

/**
 * A stored row. It is cumulative: written again with the same `level`, `windowMs`, `rowId`, `source`, `host` and `kind`
 * it replaces the earlier one; rows of one window with other ids are to be merged.
 */
export interface TopRow {
  readonly level: TopLevel;
  /** The window's start: milliseconds since 1970, a multiple of the level. */
  readonly windowMs: number;
  /** Which of the rows of this window it is: as in `RollupRow`. */
  readonly rowId: number;
  readonly source: string;
  /** `''` but for `host_clients`. */
  readonly host: string;
  readonly kind: TopKind;
  /** A packed `SpaceSaving`, or a packed `HyperLogLog` of clients; ASCII or not, at most 60,000 bytes. */
  readonly packed: string;
}

/** A stored request's value in each list; `''` where it is not known. */
export const topValueOf = {
  path: ({ uri }: Pick<RequestEvent, 'uri'>) => before(uri, '?'),
  /** Without its query, which is as good as never the same twice. */
  referrer: ({ referrer }: Pick<RequestEvent, 'referrer'>) => before(before(referrer, '?'), '#'),
  user_agent: ({ userAgent }: Pick<RequestEvent, 'userAgent'>) => userAgent,
  client: ({ clientIp }: Pick<RequestEvent, 'clientIp'>) => clientIp,
} satisfies Readonly<Record<RequestDimension, (event: RequestEvent) => string>>;

function before(text: string, mark: string): string {
  const at = text.indexOf(mark);
  return at < 0 ? text : text.slice(0, at);
}
