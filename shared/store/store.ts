import type { RequestEvent } from '../request-event.js';
import type { RequestLists } from '../top-list/top-lists-of-requests.js';
import type { Level, RollupRow, Scope, SeriesAggregate } from '../rollup/rollup.js';
import type { TopKind, TopLevel, TopRow } from '../top-list/top-row.js';
import type { ImportedRow } from '../record/imported-requests.js';
import type { SpoolCounts } from './spool/spool.js';
import type { StoreChanges } from './changes.js';

/** What a recorder hands to a store in one piece: all of it is written, or nothing. */
export interface Batch {
  /**
   * The stable name of the recorder: two of them may give two requests of one series the same time, so it is a tag in
   * InfluxDB.
   */
  readonly recorder: string;
  /** Which recorder made it: drawn at random when the recorder starts. */
  readonly writer: string;
  /** 1, 2, 3, …: a store ignores a batch of a writer whose number it has written already. */
  readonly sequence: number;
  /** No two requests of one recorder and series (source, host, method, status, endpoint) have the same time. */
  readonly requests: RequestList;
  /**
   * Those of them that are to be kept one by one; all when it is not given. The others are in the rollups and the top
   * lists alone.
   */
  readonly kept?: RequestList | undefined;
  /** What the requests add to the rollups. */
  readonly aggregates: readonly SeriesAggregate[];
  /** The rollup rows that the tallies changed, as they stand now. Empty for a store that `keepsOpenRollups`. */
  readonly rollups: readonly RollupRow[];
  /**
   * The rows of the top lists that are due. They hold requests of earlier and later batches too, and what is refused of
   * a batch is not taken out of them again: a list says what came most often, and owes nobody an exact sum.
   */
  readonly topLists: readonly TopRow[];
  readonly ledger: LedgerSnapshot | undefined;
  /** The import that made it; `undefined` for other recorders. */
  readonly importId?: number | undefined;
  /** Of an import: what identifies its requests. */
  readonly imported?: readonly ImportedRow[] | undefined;
}

/**
 * Requests in the order in which they came: an array, or what a store has made of them. To go through the latter takes
 * as long as to read them.
 */
export interface RequestList extends Iterable<RequestEvent> {
  readonly length: number;
}

/**
 * Gathers the requests of a batch in the form in which they are written. Objects that wait for their batch would be
 * moved about by the garbage collector, which was a third of all the work that a line makes.
 */
export interface BatchEncoder {
  /** Takes a request, which must not change any more. */
  add(event: RequestEvent): void;
  /** Requests since the last `take`. */
  readonly length: number;
  /** What they hold in memory, about, in bytes. */
  readonly bytes: number;
  /** What has gathered, with what it holds in memory from now on, in bytes; begins anew. */
  take(): { readonly requests: RequestList; readonly bytes: number };
}

/** A collector's counts of lines since its process started. */
export interface Ledger {
  readonly received: number;
  readonly accepted: number;
  readonly runtime: number;
  /** By reason. */
  readonly rejected: Readonly<Record<string, number>>;
  /** By reason. */
  readonly dropped: Readonly<Record<string, number>>;
  readonly stored: number;
  readonly spooled: number;
  readonly inMemory: number;
  readonly deadLettered: number;
  /**
   * What is worth knowing and is no line that came in, by name: see `LedgerWarning`. Absent or 0 where there is nothing
   * to say.
   */
  readonly warnings: Readonly<Partial<Record<LedgerWarning, number>>>;
  /** When the last line came in, in milliseconds since 1970; `null` before the first. */
  readonly lastLineMs: number | null;
}

/**
 * Peers that were turned away since the process started, by the reason; connections without a line that were closed to
 * make room; datagrams that the kernel dropped, as far as it tells; requests that an earlier start has left in the
 * spool and that are not delivered yet; by how many seconds the clocks of a Caddy and of the collector differ, from 30
 * on.
 */
export const ledgerWarnings = [
  'peers-not-allowed',
  'peers-too-many-connections',
  'connections-evicted',
  'datagrams-lost',
  'earlier-spooled',
  'clock-skew',
] as const;
/** One of them. */
export type LedgerWarning = (typeof ledgerWarnings)[number];

/** A ledger's warnings with what an earlier start has left in the spool. */
export function withEarlierSpooled(
  warnings: Ledger['warnings'],
  spool: Pick<SpoolState, 'earlier'> | undefined,
): Ledger['warnings'] {
  const spooled = spool?.earlier.spooled ?? 0;
  return spooled === 0 ? { ...warnings } : { ...warnings, 'earlier-spooled': spooled };
}

/** A ledger as it stood at a time. */
export interface LedgerSnapshot extends Ledger {
  readonly collector: string;
  readonly timeMs: number;
}

/** What a spool holds, and what became of what it held. */
export interface SpoolState {
  /** Requests that were written since the store was opened. */
  readonly own: SpoolCounts;
  /** Requests that an earlier process left behind. */
  readonly earlier: SpoolCounts;
  /** What its files take. */
  readonly bytes: number;
  /** Damaged places that were found since the store was opened; their requests are dead-lettered. */
  readonly damages: number;
  /** Why nothing can be delivered at present. */
  readonly problem: string | undefined;
}

/** Which rows to read; what is left out does not restrict. */
export interface Filter {
  readonly source?: string;
  /** Any source but this. */
  readonly exceptSource?: string;
  readonly host?: string;
  readonly method?: string;
  /** Both ends included: 404 to 404, or 400 to 499. */
  readonly status?: { readonly min: number; readonly max: number };
  /** The path without the query. Only raw requests know it, and what follows. */
  readonly path?: string;
  /** The client's address as it is stored. */
  readonly client?: string;
  readonly userAgent?: string;
  /** Without query and fragment. */
  readonly referrer?: string;
  readonly requestId?: string;
}

/** Whether only raw requests know what a filter asks for. */
export function needsRequests(filter: Filter): boolean {
  return requestFilters.some((name) => filter[name] !== undefined);
}

const requestFilters = [
  'path',
  'client',
  'userAgent',
  'referrer',
  'requestId',
] as const satisfies readonly (keyof Filter)[];

/** A time range in milliseconds since 1970, `fromMs` included, `toMs` not. */
export interface TimeRange {
  readonly fromMs: number;
  readonly toMs: number;
}

/** The starts of the first and last rollup windows, in milliseconds since 1970. */
export interface StoredWindows {
  /** The oldest of each level that has any. */
  readonly oldest: ReadonlyMap<Level, number>;
  /** The newest of any level. */
  readonly newestMs: number;
}

/** Which rollup rows to read. */
export interface RollupsQuery extends TimeRange {
  readonly level: Level;
  readonly scope: Scope;
  readonly filter: Filter;
  /** Only these hosts, for scope `host`. Default: all. */
  readonly hosts?: readonly string[] | undefined;
  /** Whether the store may merge cells by status class: see `byStatusClass`. Default: no. */
  readonly byClass?: boolean | undefined;
}

/** Which windows to count hosts over. A part consists of whole windows of its level. */
export interface HostCountsQuery {
  readonly parts: readonly (TimeRange & { readonly level: Level })[];
  /** Must not be one that `needsRequests`. */
  readonly filter: Filter;
}

/** The requests of one host of a source. */
export interface HostCounts {
  readonly source: string;
  readonly host: string;
  readonly requests: number;
  /** Those with a status of 5xx. */
  readonly errors: number;
  /** Those with a status of 4xx. */
  readonly clientErrors: number;
  /** Bytes of the responses' bodies. */
  readonly bytes: number;
}

/** Which rows of the top lists to read. Their windows know no more than the source, and of unique clients the host. */
export interface TopListsQuery extends TimeRange {
  readonly level: TopLevel;
  readonly kinds: readonly TopKind[];
  readonly filter: Pick<Filter, 'source' | 'host'>;
}

/** An import that a store remembers. */
export interface ImportSummary {
  /** When it began, in milliseconds since 1970. */
  readonly importId: number;
  readonly requests: number;
  /** Its hours: the start of the first and of the last, in milliseconds since 1970. */
  readonly firstHourMs: number;
  readonly lastHourMs: number;
}

/** What every read takes besides its query. */
export interface ReadOptions {
  /** Cancels the read: the store stops working on it, and it throws a `StoreError`. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Where requests are kept. Two backends stand behind it and pass one contract suite (`contract.ts`). All methods throw
 * a `StoreError` that says what to do.
 */
export interface Store {
  /** What it is and where, without secrets: for messages. */
  readonly description: string;
  /**
   * Writes a batch; writing the same batch again changes nothing. Resolves to how many of its requests are refused for
   * good and set aside; the others are written, or are in the spool of a store that has one. `waitedMs` is how long a
   * batch of lines has waited for the store, in milliseconds: an embedded store reads less while it is behind.
   */
  write(batch: Batch, options?: { readonly waitedMs?: number }): Promise<number>;
  /** Whether the store keeps the rows of open windows itself, and takes the tallies of batches instead. */
  readonly keepsOpenRollups?: boolean | undefined;
  /** Makes what gathers the requests of a recorder for `write`, which takes those of arrays as well. */
  readonly createBatchEncoder?: ((recorder: string) => BatchEncoder) | undefined;
  /**
   * So many requests in one batch take the store the least work, where nobody waits for any of them; `undefined` where
   * that of a recorder will do.
   */
  readonly bulkRequests?: number | undefined;
  /** What waits in the store's spool; `undefined` for a store without one. */
  readonly spool: SpoolState | undefined;
  /** How long single requests are kept, in milliseconds; `undefined` where that is not known here. */
  readonly requestRetentionMs: number | undefined;
  /** How long rollups of an hour and of a day are kept, in milliseconds; `undefined` where that is not known here. */
  readonly rollupRetentionMs: number | undefined;
  /** Why the store takes nothing at present; `undefined` while it does, as far as is known. */
  readonly problem: string | undefined;
  /** Tells of all that is written; `undefined` for a store that others write to as well. */
  readonly changes: StoreChanges | undefined;
  /**
   * All rows of one level and scope whose window starts in the range, in no particular order, with the cells that the
   * filter admits. A filter by host needs scope `host`. Not for a filter that `needsRequests`.
   */
  readRollups(query: RollupsQuery, options?: ReadOptions): Promise<RollupRow[]>;
  /** The same in pages, each of which has all rows of its windows. */
  streamRollups(query: RollupsQuery, options?: ReadOptions): AsyncIterable<readonly RollupRow[]>;
  /** Counts the requests of each host, in no particular order. */
  countHosts(query: HostCountsQuery, options?: ReadOptions): Promise<HostCounts[]>;
  /** All rows of one level and of these kinds whose window starts in the range, in no particular order. */
  readTopLists(query: TopListsQuery, options?: ReadOptions): Promise<TopRow[]>;
  /** The same in pages, each of which has all rows of its windows. */
  streamTopLists(query: TopListsQuery, options?: ReadOptions): AsyncIterable<readonly TopRow[]>;
  /** The latest requests of the range that are kept one by one, newest first, `limit` at most. */
  readRequests(query: TimeRange & { filter: Filter; limit: number }, options?: ReadOptions): Promise<RequestEvent[]>;
  /** The same in pages, newest first. The store holds nothing for a reader that pauses between two pages. */
  streamRequests(
    query: TimeRange & { filter: Filter; limit: number },
    options?: ReadOptions,
  ): AsyncIterable<readonly RequestEvent[]>;
  /**
   * The rollup rows of the requests of the range, as the recorder would have made them, for a filter that
   * `needsRequests`. A store that has to put each request together for it reads the newest `requestsMax`, and says in
   * `isBounded` whether there were more.
   */
  rollUpRequests(
    query: RollupsQuery & { requestsMax: number },
    options?: ReadOptions,
  ): Promise<{ rows: RollupRow[]; isBounded: boolean }>;
  /**
   * The lists of the requests of the range by source, with the `valuesMax` most frequent values of each, and the unique
   * clients, as `topListsOfRequests` makes them. A store that has to put each request together for it reads the newest
   * `requestsMax`. `ofNewest` says how many requests, the newest, were listed, where that is not all.
   */
  topListsOfRequests(
    query: TimeRange & { filter: Filter; kinds: readonly TopKind[]; valuesMax: number; requestsMax: number },
    options?: ReadOptions,
  ): Promise<{ bySource: ReadonlyMap<string, RequestLists>; ofNewest: number | undefined }>;
  /** Which rollup windows there are, by source. */
  readStoredWindows(options?: ReadOptions): Promise<ReadonlyMap<string, StoredWindows>>;
  /** The newest ledger of each collector that wrote one since `sinceMs`. */
  readLedgers(query: { sinceMs: number }, options?: ReadOptions): Promise<LedgerSnapshot[]>;
  /** What is remembered of imports whose hours start in the range, in no particular order. */
  readImported(query: TimeRange, options?: ReadOptions): Promise<ImportedRow[]>;
  /** The imports that are remembered, oldest first. */
  listImports(options?: ReadOptions): Promise<ImportSummary[]>;
  /**
   * Takes an import back: its requests, what they add to rollups and top lists, and what is remembered of it. Resolves
   * to how many requests it had. 0 when there is no such import. One that failed can be repeated.
   */
  takeBack(importId: number): Promise<number>;
  /** Resolves to the time, in milliseconds since 1970, before which raw requests may be deleted. */
  requestsFrom(): Promise<number>;
  /** Resolves when the store can be read. */
  ping(): Promise<void>;
  /** Resolves when the store takes what is written; nothing is. A token that may only write is enough. */
  pingToWrite(): Promise<void>;
  close(): Promise<void>;
}
