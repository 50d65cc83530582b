import type { Retention } from '../../rollup/rollup.js';
import { createChanges } from '../changes.js';
import { collect } from '../collect.js';
import type { EventRow } from '../../record/event-folder.js';
import type { EventsQuery, HostCounts, HostCountsQuery, LedgerSnapshot, ReadOptions, Store } from '../store.js';
import { readEvents } from './events.js';
import type { OpenWindows } from './open-windows.js';
import { countHosts } from './queries/host-counts.js';
import { listImports, readImported } from './queries/imports.js';
import { readLedgers } from './queries/ledgers.js';
import { streamRequests } from './queries/raw-requests.js';
import { rollUpRequests } from './queries/request-rollups.js';
import { topListsOfRequests } from './queries/request-top-lists.js';
import { readStoredWindows, streamRollups } from './queries/rollups.js';
import { streamTopLists } from './queries/top-lists.js';
import type { Query } from './read-pool.js';
import { createBatchEncoder, rowGroupRows } from './request-appender.js';

/** The reads of a store in a DuckDB file, whether it also writes or not. */
export abstract class DuckdbReads {
  readonly mergesRollups = true;
  readonly createBatchEncoder = createBatchEncoder;
  readonly bulkRequests = rowGroupRows;
  readonly spool = undefined;
  readonly description: string;
  readonly requestRetentionMs: number;
  readonly rollupRetentionMs: number;
  readonly changes = createChanges();
  protected readonly now: () => number;

  constructor(description: string, { requestsMs, rollupsMs }: Retention, now = Date.now) {
    this.description = description;
    this.requestRetentionMs = requestsMs;
    this.rollupRetentionMs = rollupsMs;
    this.now = now;
  }

  async ping(): Promise<void> {
    await this.readLedgers({ sinceMs: this.now() });
  }

  protected abstract get windows(): OpenWindows;
  protected abstract read<Result>(
    run: (query: Query) => Promise<Result>,
    signal: AbortSignal | undefined,
  ): Promise<Result>;

  readRollups(query: Parameters<Store['readRollups']>[0], options?: ReadOptions): ReturnType<Store['readRollups']> {
    return collect(this.streamRollups(query, options));
  }
  readTopLists(query: Parameters<Store['readTopLists']>[0], options?: ReadOptions): ReturnType<Store['readTopLists']> {
    return collect(this.streamTopLists(query, options));
  }
  readRequests(query: Parameters<Store['readRequests']>[0], options?: ReadOptions): ReturnType<Store['readRequests']> {
    return collect(this.streamRequests(query, options));
  }
  streamRollups(
    query: Parameters<Store['streamRollups']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['streamRollups']> {
    return streamRollups((run) => this.read(run, signal), query, this.windows.snapshot(query));
  }
  streamTopLists(
    query: Parameters<Store['streamTopLists']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['streamTopLists']> {
    return streamTopLists((run) => this.read(run, signal), query);
  }
  streamRequests(
    query: Parameters<Store['streamRequests']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['streamRequests']> {
    return streamRequests((run) => this.read(run, signal), query);
  }
  rollUpRequests(
    query: Parameters<Store['rollUpRequests']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['rollUpRequests']> {
    return this.read((run) => rollUpRequests(run, query), signal);
  }
  topListsOfRequests(
    query: Parameters<Store['topListsOfRequests']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['topListsOfRequests']> {
    return this.read((run) => topListsOfRequests(run, query), signal);
  }
  countHosts(query: HostCountsQuery, { signal }: ReadOptions = {}): ReturnType<Store['countHosts']> {
    const open = this.windows.snapshot();
    const counts = new Map<string, HostCounts>();
    this.windows.addHosts(counts, query);
    return this.read((run) => countHosts(run, query, open, new Map(counts)), signal);
  }

  readEvents(query: EventsQuery, { signal }: ReadOptions = {}): Promise<EventRow[]> {
    return this.read((run) => readEvents(run, query), signal);
  }

  readLedgers(query: { sinceMs: number }, { signal }: ReadOptions = {}): Promise<LedgerSnapshot[]> {
    return this.read((run) => readLedgers(run, query), signal);
  }

  readImported(
    query: Parameters<Store['readImported']>[0],
    { signal }: ReadOptions = {},
  ): ReturnType<Store['readImported']> {
    return this.read((run) => readImported(run, query), signal);
  }

  readStoredWindows({ signal }: ReadOptions = {}): ReturnType<Store['readStoredWindows']> {
    return this.read((run) => readStoredWindows(run, this.windows.keys()), signal);
  }

  listImports({ signal }: ReadOptions = {}): ReturnType<Store['listImports']> {
    return this.read((run) => listImports(run), signal);
  }
}
