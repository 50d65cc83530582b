import type { EventRow } from '../../record/event-folder.js';
import type { ImportedRow } from '../../record/imported-requests.js';
import type { RequestEvent } from '../../request-event.js';
import type { Retention, RollupRow } from '../../rollup/rollup.js';
import type { TopRow } from '../../top-list/top-row.js';
import type {
  EventsQuery,
  HostCounts,
  HostCountsQuery,
  ImportSummary,
  LedgerSnapshot,
  ReadOptions,
  RollupsQuery,
  Store,
  StoreReader,
  TimeRange,
  TopListsQuery,
} from '../store.js';
import { readEvents } from './events.js';
import type { InfluxdbClient } from './influxdb-client.js';
import { countHosts } from './queries/host-counts.js';
import { listImports, readImported } from './queries/imports.js';
import { readLedgers } from './queries/ledgers.js';
import { readRequests } from './queries/raw-requests.js';
import { readNothing, type ReadCells } from './queries/read-cells.js';
import { rollUpRequests } from './queries/request-rollups.js';
import { listNewest } from './queries/request-top-lists.js';
import { readRollups, readStoredWindows } from './queries/rollups.js';
import { readTopLists } from './queries/top-lists.js';

/** The reads of a store in InfluxDB. */
export abstract class InfluxdbReads implements StoreReader {
  /** Other processes write to the bucket, too. */
  readonly changes = undefined;
  readonly requestRetentionMs: number | undefined;
  readonly rollupRetentionMs: number | undefined;
  protected readonly client: InfluxdbClient;
  protected readonly bucket: string;

  constructor(client: InfluxdbClient, { bucket, retention }: { bucket: string; retention?: Retention }) {
    this.client = client;
    this.bucket = bucket;
    this.requestRetentionMs = retention?.requestsMs;
    this.rollupRetentionMs = retention?.rollupsMs;
  }

  readEvents(query: EventsQuery, options?: ReadOptions): Promise<EventRow[]> {
    return this.read('read events', options, (read) => readEvents(read, this.bucket, query));
  }

  ping(): Promise<void> {
    return this.read(`read the bucket ${JSON.stringify(this.bucket)}`, {}, (read) => readNothing(read, this.bucket));
  }

  readRollups(query: RollupsQuery, options?: ReadOptions): Promise<RollupRow[]> {
    return this.read('read rollup rows', options, (read) => readRollups(read, this.bucket, query));
  }

  streamRollups(query: RollupsQuery, options?: ReadOptions): AsyncIterable<readonly RollupRow[]> {
    return inOnePage(this.readRollups(query, options));
  }

  countHosts(query: HostCountsQuery, options?: ReadOptions): Promise<HostCounts[]> {
    return this.read('count hosts', options, (read) => countHosts(read, this.bucket, query));
  }

  readTopLists(query: TopListsQuery, options?: ReadOptions): Promise<TopRow[]> {
    return this.read('read top lists', options, (read) => readTopLists(read, this.bucket, query));
  }

  streamTopLists(query: TopListsQuery, options?: ReadOptions): AsyncIterable<readonly TopRow[]> {
    return inOnePage(this.readTopLists(query, options));
  }

  readRequests(query: Parameters<Store['readRequests']>[0], options?: ReadOptions): Promise<RequestEvent[]> {
    return this.read('read requests', options, (read) => readRequests(read, this.bucket, query));
  }

  streamRequests(
    query: Parameters<Store['streamRequests']>[0],
    options?: ReadOptions,
  ): AsyncIterable<readonly RequestEvent[]> {
    return inOnePage(this.readRequests(query, options));
  }

  rollUpRequests(
    query: Parameters<Store['rollUpRequests']>[0],
    options?: ReadOptions,
  ): ReturnType<Store['rollUpRequests']> {
    return this.read('read requests', options, (read) => rollUpRequests(read, this.bucket, query));
  }

  topListsOfRequests(
    query: Parameters<Store['topListsOfRequests']>[0],
    options?: ReadOptions,
  ): ReturnType<Store['topListsOfRequests']> {
    return this.read('read requests', options, (read) => listNewest(read, this.bucket, query));
  }

  readStoredWindows(options?: ReadOptions): ReturnType<Store['readStoredWindows']> {
    return this.read('read the oldest and newest rollup rows', options, (read) => readStoredWindows(read, this.bucket));
  }

  readLedgers(query: { sinceMs: number }, options?: ReadOptions): Promise<LedgerSnapshot[]> {
    return this.read('read the ledgers', options, (read) => readLedgers(read, this.bucket, query));
  }

  readImported(query: TimeRange, options?: ReadOptions): Promise<ImportedRow[]> {
    return this.read('read the imported requests', options, (read) => readImported(read, this.bucket, query));
  }

  listImports(options?: ReadOptions): Promise<ImportSummary[]> {
    return this.read('list the imports', options, (read) => listImports(read, this.bucket));
  }

  protected read<Result>(
    action: string,
    options: ReadOptions | undefined,
    run: (read: ReadCells) => Promise<Result>,
  ): Promise<Result> {
    return this.client.use(action, () => run(this.client.readUntil(options?.signal)));
  }
}

/** InfluxDB returns all rows of a query at once. */
async function* inOnePage<Row>(rows: Promise<Row[]>): AsyncGenerator<Row[]> {
  yield await rows;
}
