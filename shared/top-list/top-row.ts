/** Stored rows of top lists and unique clients: names, levels and retention. */
import type { RequestEvent } from '../request-event.js';
import type { Level } from '../rollup/rollup.js';

/** Lists that raw requests have values for. Hosts and methods are in the rollups. */
export const requestDimensions = ['path', 'referrer', 'user_agent', 'client', 'error', 'upstream'] as const;
/** One of them. */
export type RequestDimension = (typeof requestDimensions)[number];
/**
 * Stored lists. The country is looked up from the full address and not stored with the request, whose address may be
 * truncated.
 */
export const topDimensions = [...requestDimensions, 'country'] as const;
/** One of them. */
export type TopDimension = (typeof topDimensions)[number];

/**
 * Kinds of rows: a list, or a sketch of the distinct clients of a source or of a host. Earlier versions wrote a row
 * of `unique_clients` for each host instead of one for the source.
 */
export const topKinds = [...topDimensions, 'unique_clients', 'host_clients'] as const;
/** One of them. */
export type TopKind = (typeof topKinds)[number];

/** Whether rows of a kind are sketches of clients, not lists. */
export function isOfClients(kind: TopKind): kind is 'unique_clients' | 'host_clients' {
  return kind === 'unique_clients' || kind === 'host_clients';
}

/**
 * Lengths of the windows of lists in seconds, finest first. Lists cover a whole range, never the points of a chart,
 * so they need no windows of ten seconds.
 */
export const topLevels = [60, 600, 3600, 86_400] as const satisfies readonly Level[];
/** One of them. */
export type TopLevel = (typeof topLevels)[number];

/** Levels with a sketch per host. */
export const hostClientsLevels: readonly TopLevel[] = [3600, 86_400];

const dayMs = 86_400_000;

/**
 * Retention of the finer levels, in milliseconds; only the settings limit that of a day. A row has 5 to 15 kB on a
 * busy site.
 */
export const topListRetentionMs: Readonly<Partial<Record<TopLevel, number>>> = {
  60: dayMs,
  600: 7 * dayMs,
  3600: 60 * dayMs,
};

/** Retention of a level in milliseconds, if that of daily rows is `rollupsMs`. */
export function topRetentionMs(level: TopLevel, rollupsMs: number): number {
  return Math.min(topListRetentionMs[level] ?? rollupsMs, rollupsMs);
}

/**
 * A stored row. It is cumulative: it replaces an earlier one with the same `level`, `windowMs`, `rowId`, `source`,
 * `host` and `kind`. Rows that differ only in `rowId` are to be merged.
 */
export interface TopRow {
  readonly level: TopLevel;
  /** Start of the window in milliseconds since 1970, a multiple of the level. */
  readonly windowMs: number;
  /** Distinguishes rows of the same window, as in `RollupRow`. */
  readonly rowId: number;
  readonly source: string;
  /** `''` except for `host_clients`. */
  readonly host: string;
  readonly kind: TopKind;
  /** A packed `SpaceSaving` or, for clients, `HyperLogLog`. At most 60,000 bytes, not only ASCII. */
  readonly packed: string;
}

/** Value of a request in each list; `''` if unknown. */
export const topValueOf = {
  path: ({ uri }: Pick<RequestEvent, 'uri'>) => before(uri, '?'),
  /** Without the query, which is almost always unique. */
  referrer: ({ referrer }: Pick<RequestEvent, 'referrer'>) => before(before(referrer, '?'), '#'),
  user_agent: ({ userAgent }: Pick<RequestEvent, 'userAgent'>) => userAgent,
  client: ({ clientIp }: Pick<RequestEvent, 'clientIp'>) => clientIp,
  error: ({ error }: Pick<RequestEvent, 'error'>) => error,
  upstream: ({ upstream }: Pick<RequestEvent, 'upstream'>) => upstream,
} satisfies Readonly<Record<RequestDimension, (event: RequestEvent) => string>>;

function before(text: string, mark: string): string {
  const at = text.indexOf(mark);
  return at < 0 ? text : text.slice(0, at);
}
