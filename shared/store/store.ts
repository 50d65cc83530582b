import type { CaddyLevel } from '../caddy-event.js';
import type { RequestEvent } from '../request-event.js';
import type { RequestLists } from '../top-list/top-lists-of-requests.js';
import type { Level, RollupRow, Scope, SeriesAggregate } from '../rollup/rollup.js';
import type { TopKind, TopLevel, TopRow } from '../top-list/top-row.js';
import type { EventRow } from '../record/event-folder.js';
import type { ImportedRow } from '../record/imported-requests.js';
import type { SpoolCounts } from './spool/spool.js';
import type { StoreChanges } from './changes.js';

/** A unit of writing: either all of it is written, or nothing. */
export interface Batch {
  /**
   * Stable name of the recorder. A tag in InfluxDB, since two recorders may assign the same time to requests of one
   * series.
   */
  readonly recorder: string;
  /** Random id of the recorder instance. */
  readonly writer: string;
  /** 1, 2, 3, … A store ignores a sequence number that it has already written for this writer. */
  readonly sequence: number;
  /** Times are unique per recorder and series (source, host, method, status, endpoint). */
  readonly requests: RequestList;
  /** The sampled ones, which are stored as raw requests. Default: all. The others are only in rollups and top lists. */
  readonly kept?: RequestList | undefined;
  /** The requests, aggregated by series and window. */
  readonly aggregates: readonly SeriesAggregate[];
  /** Current state of the rollup rows that the aggregates changed. Empty for a store that `mergesRollups`. */
  readonly rollups: readonly RollupRow[];
  /**
   * Top list rows that are due. They also count requests of other batches, and rejected requests are not subtracted:
   * top lists are approximate.
   */
  readonly topLists: readonly TopRow[];
  /** Rows of events that changed. They replace rows with the same window and id. Default: none. */
  readonly events?: readonly EventRow[] | undefined;
  readonly ledger: LedgerSnapshot | undefined;
  /** Id of the import, if it is part of one. */
  readonly importId?: number | undefined;
  /** Keys of the imported requests, if it is part of an import. */
  readonly imported?: readonly ImportedRow[] | undefined;
}

/**
 * Requests in order of arrival: an array, or the output of a `BatchEncoder`. Iterating the latter decodes the
 * requests again.
 */
export interface RequestList extends Iterable<RequestEvent> {
  readonly length: number;
}

/** Encodes the requests of a batch as they arrive. Long-lived request objects would burden the garbage collector. */
export interface BatchEncoder {
  /** Adds a request, which must not change any more. */
  add(event: RequestEvent): void;
  /** Requests since the last `take`. */
  readonly length: number;
  /** Their estimated size in memory, in bytes. */
  readonly bytes: number;
  /** Returns the requests and their estimated size in bytes, and starts over. */
  take(): { readonly requests: RequestList; readonly bytes: number };
}

/** A collector's counts of lines since its process started. */
export interface Ledger {
  readonly received: number;
  readonly accepted: number;
  /** Lines of Caddy that are not access lines. */
  readonly runtime: number;
  /** Those of them that are stored as events. */
  readonly events: number;
  /** By reason. */
  readonly rejected: Readonly<Record<string, number>>;
  /** By reason. */
  readonly dropped: Readonly<Record<string, number>>;
  readonly stored: number;
  readonly spooled: number;
  readonly inMemory: number;
  readonly deadLettered: number;
  /** Other counts worth reporting, by name: see `LedgerWarning`. Absent or 0 if there is nothing to report. */
  readonly warnings: Readonly<Partial<Record<LedgerWarning, number>>>;
  /** Arrival of the last line, in milliseconds since 1970; `null` before the first. */
  readonly lastLineMs: number | null;
}

/**
 * Since the process started: peers rejected, by reason; connections evicted without a line; datagrams dropped by the
 * kernel, as far as known. Also requests of an earlier process still in the spool, and the clock skew of a Caddy in
 * seconds, from 30 on.
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

/** Adds the requests of an earlier process that are still in the spool to a ledger's warnings. */
export function withEarlierSpooled(
  warnings: Ledger['warnings'],
  spool: Pick<SpoolState, 'earlier'> | undefined,
): Ledger['warnings'] {
  const spooled = spool?.earlier.spooled ?? 0;
  return spooled === 0 ? { ...warnings } : { ...warnings, 'earlier-spooled': spooled };
}

/** A ledger at a point in time. */
export interface LedgerSnapshot extends Ledger {
  readonly collector: string;
  readonly timeMs: number;
}

/** Requests in a spool, and what became of the earlier ones. */
export interface SpoolState {
  /** Requests written since the store was opened. */
  readonly own: SpoolCounts;
  /** Requests left by an earlier process. */
  readonly earlier: SpoolCounts;
  /** Size of its files. */
  readonly bytes: number;
  /** Number of damaged ranges found since the store was opened. Their requests are dead-lettered. */
  readonly damages: number;
  /** Why nothing can be delivered; `undefined` if it can. */
  readonly problem: string | undefined;
}

/** Selects rows. Absent fields match everything. */
export interface Filter {
  readonly source?: string;
  /** Excludes this source. */
  readonly exceptSource?: string;
  readonly host?: string;
  readonly method?: string;
  /** Both ends included: 404 to 404, or 400 to 499. */
  readonly status?: { readonly min: number; readonly max: number };
  /** The path without the query. Only raw requests have this and the following fields. */
  readonly path?: string;
  /** The client address as stored. */
  readonly client?: string;
  readonly userAgent?: string;
  /** Without query and fragment. */
  readonly referrer?: string;
  readonly requestId?: string;
  readonly error?: string;
  readonly upstream?: string;
}

/** Whether a filter needs raw requests. */
export function needsRequests(filter: Filter): boolean {
  return requestFilters.some((name) => filter[name] !== undefined);
}

const requestFilters = [
  'path',
  'client',
  'userAgent',
  'referrer',
  'requestId',
  'error',
  'upstream',
] as const satisfies readonly (keyof Filter)[];

/** A time range in milliseconds since 1970, from `fromMs` up to but excluding `toMs`. */
export interface TimeRange {
  readonly fromMs: number;
  readonly toMs: number;
}

/** The starts of the first and last rollup windows, in milliseconds since 1970. */
export interface StoredWindows {
  /** The oldest window of each level that has any. */
  readonly oldest: ReadonlyMap<Level, number>;
  /** The newest window of any level. */
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
  /** Must not be a filter that `needsRequests`. */
  readonly filter: Filter;
}

/** The requests of one host of a source. */
export interface HostCounts {
  readonly source: string;
  readonly host: string;
  readonly requests: number;
  /** Requests with a 5xx status. */
  readonly errors: number;
  /** Requests with a 4xx status. */
  readonly clientErrors: number;
  /** Response body bytes. */
  readonly bytes: number;
}

/** Which rows of top lists to read. Rows only have a source and, for unique clients, a host. */
export interface TopListsQuery extends TimeRange {
  readonly level: TopLevel;
  readonly kinds: readonly TopKind[];
  readonly filter: Pick<Filter, 'source' | 'host'>;
}

/** Which events to read: those of minutes that start in the range. */
export interface EventsQuery extends TimeRange {
  /** Default: all. */
  readonly levels?: readonly CaddyLevel[] | undefined;
  /** Only those of this host; `''` for those without one. Default: all. */
  readonly host?: string | undefined;
  readonly limit: number;
}

/** A remembered import. */
export interface ImportSummary {
  /** Start of the import, in milliseconds since 1970. */
  readonly importId: number;
  readonly requests: number;
  /** Start of its first hour; `lastHourMs`: of its last. In milliseconds since 1970. */
  readonly firstHourMs: number;
  readonly lastHourMs: number;
}

/** Options of every read. */
export interface ReadOptions {
  /** Cancels the read, which then throws a `StoreError`. */
  readonly signal?: AbortSignal | undefined;
}

/** Stores requests. All methods throw a `StoreError`. */
export interface StoreWriter {
  /** Kind and location, without secrets. For messages. */
  readonly description: string;
  /**
   * Writes a batch; writing the same batch again changes nothing. Resolves to the number of rejected (dead-lettered)
   * requests; all others are stored or spooled. `waitedMs` is how long the batch has been queued, in milliseconds: an
   * embedded store slows down reads while it is behind.
   */
  write(batch: Batch, options?: { readonly waitedMs?: number }): Promise<number>;
  /** Whether the store merges the aggregates of batches into the rows of open windows itself. */
  readonly mergesRollups: boolean;
  /** Creates an encoder of requests for `write`, which also accepts arrays. */
  createBatchEncoder(recorder: string): BatchEncoder;
  /** Most efficient batch size when nobody waits for the requests; `undefined` if the recorder's default will do. */
  readonly bulkRequests: number | undefined;
  /** State of the store's spool; `undefined` for a store without one. */
  readonly spool: SpoolState | undefined;
  /** Why the store does not accept writes; `undefined` if it does, as far as known. */
  readonly problem: string | undefined;
  /** Resolves if the store accepts writes; writes nothing. A write-only token is enough. */
  pingToWrite(): Promise<void>;
}

/** Reads what is stored. All methods throw a `StoreError`. */
export interface StoreReader {
  /** Retention of raw requests in milliseconds; `undefined` if unknown. */
  readonly requestRetentionMs: number | undefined;
  /** Retention of hourly and daily rollups in milliseconds; `undefined` if unknown. */
  readonly rollupRetentionMs: number | undefined;
  /** Announces all writes; `undefined` for a store that other processes write to. */
  readonly changes: StoreChanges | undefined;
  /**
   * Reads all rows of one level and scope whose window starts in the range, in any order, with the cells that match
   * the filter. A filter by host needs scope `host`. Not for a filter that `needsRequests`.
   */
  readRollups(query: RollupsQuery, options?: ReadOptions): Promise<RollupRow[]>;
  /** The same in pages, each of which has all rows of its windows. */
  streamRollups(query: RollupsQuery, options?: ReadOptions): AsyncIterable<readonly RollupRow[]>;
  /** Counts the requests of each host, in any order. */
  countHosts(query: HostCountsQuery, options?: ReadOptions): Promise<HostCounts[]>;
  /** Reads all rows of one level and these kinds whose window starts in the range, in any order. */
  readTopLists(query: TopListsQuery, options?: ReadOptions): Promise<TopRow[]>;
  /** The same in pages, each of which has all rows of its windows. */
  streamTopLists(query: TopListsQuery, options?: ReadOptions): AsyncIterable<readonly TopRow[]>;
  /** Reads the latest raw requests of the range, newest first, at most `limit`. */
  readRequests(query: TimeRange & { filter: Filter; limit: number }, options?: ReadOptions): Promise<RequestEvent[]>;
  /** The same in pages, newest first. The store holds no resources for a reader that pauses between pages. */
  streamRequests(
    query: TimeRange & { filter: Filter; limit: number },
    options?: ReadOptions,
  ): AsyncIterable<readonly RequestEvent[]>;
  /**
   * Computes rollup rows of the raw requests of the range, for a filter that `needsRequests`. A store may limit this
   * to the newest requests; `isBounded` then says that there are more.
   */
  rollUpRequests(query: RollupsQuery, options?: ReadOptions): Promise<{ rows: RollupRow[]; isBounded: boolean }>;
  /**
   * Computes the top lists of the raw requests of the range, by source, with at most `valuesMax` values each: see
   * `topListsOfRequests`. A store may limit this to the newest requests; `ofNewest` is then their number.
   */
  topListsOfRequests(
    query: TimeRange & { filter: Filter; kinds: readonly TopKind[]; valuesMax: number },
    options?: ReadOptions,
  ): Promise<{ bySource: ReadonlyMap<string, RequestLists>; ofNewest: number | undefined }>;
  /** Reads events, newest minute first, at most `limit` rows. */
  readEvents(query: EventsQuery, options?: ReadOptions): Promise<EventRow[]>;
  /** Which rollup windows are stored, by source. */
  readStoredWindows(options?: ReadOptions): Promise<ReadonlyMap<string, StoredWindows>>;
  /** Reads the newest ledger of each collector that wrote one since `sinceMs`. */
  readLedgers(query: { sinceMs: number }, options?: ReadOptions): Promise<LedgerSnapshot[]>;
  /** Resolves if the store can be read. */
  ping(): Promise<void>;
}

/** Imports, and what is deleted. All methods throw a `StoreError`. */
export interface StoreMaintenance {
  /** Reads the keys of imported requests whose hours start in the range, in any order. */
  readImported(query: TimeRange, options?: ReadOptions): Promise<ImportedRow[]>;
  /** Lists the remembered imports, oldest first. */
  listImports(options?: ReadOptions): Promise<ImportSummary[]>;
  /**
   * Undoes an import: deletes its raw requests and keys, and subtracts it from rollups and top lists. Resolves to its
   * number of requests; 0 if there is no such import. Can be retried after a failure.
   */
  takeBack(importId: number): Promise<number>;
  /** Resolves to the time, in milliseconds since 1970, before which raw requests may be deleted. */
  requestsFrom(): Promise<number>;
}

/** A store of requests. Each backend passes the contract suite in `contract/`. */
export interface Store extends StoreWriter, StoreReader, StoreMaintenance {
  /** Waits for writes in progress. Afterwards, all methods throw a `StoreError` ('stop'). */
  close(): Promise<void>;
}
