import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, StoreError } from '../../shared/errors.js';
import type { Recorder } from '../../shared/record/recorder.js';
import type { RequestEvent } from '../../shared/request-event.js';
import type { Store } from '../../shared/store/store.js';
import type { DecoderOptions } from '../decode/decode.js';
import type { ImportCounts } from './counts.js';
import { createMissingFinder } from './deduplicate.js';
import { FileLines } from './file-lines.js';
import { newestStored } from './high-water-mark.js';
import { ImportedHours } from './imported-hours.js';
import { inflate } from './inflate.js';
import { createUncertainWindows } from './uncertain-windows.js';
import { StopDeadline, stoppedEarly, untilAborted } from './until-aborted.js';

/** Dependencies and options of an import. */
export interface ImportParts {
  readonly store: Pick<Store, 'readRequests' | 'readRollups' | 'readImported' | 'requestsFrom'>;
  /** Records missing requests. One for all files of an import. */
  readonly recorder: Recorder;
  readonly decoder: DecoderOptions;
  readonly lineBytesMax: number;
  /**
   * Whether nobody else writes to the store during the import, so that requests newer than its high-water mark skip the
   * lookup.
   */
  readonly isAlone?: boolean;
  /** Flushes the other recorders of this process, so that a lookup finds their requests. */
  readonly flushOthers?: (() => Promise<void>) | undefined;
  /** Adds possible duplicates instead of skipping them. */
  readonly force?: boolean | undefined;
  /** Retention of rollups, in milliseconds: older requests are rejected. Default: 400 days. */
  readonly rollupRetentionMs?: number | undefined;
  /** Counts missing requests, but writes nothing. */
  readonly dryRun: boolean;
  /** Stops the import. Writes what was read until then. */
  readonly signal: AbortSignal;
  readonly now?: () => number;
  /** Default: `importLimits`. */
  readonly limits?: ImportLimits | undefined;
}

/** The limits of an import. */
export interface ImportLimits {
  /** Number of requests per lookup and per batch of the recorder. Each lookup and each batch has a fixed cost. */
  readonly batchRequestsMax: number;
  /** Maximum time for a stopped import to look up and write what was read, in milliseconds. */
  readonly stopMsMax: number;
  /** Maximum time for its recorder to close after that, in milliseconds: see `Recorder.close`. */
  readonly stopDrainMsMax: number;
}

/**
 * The default limits. Both timeouts together are below the ten seconds after which service managers kill a process.
 */
export const importLimits: ImportLimits = { batchRequestsMax: 10_000, stopMsMax: 5000, stopDrainMsMax: 2000 };

/**
 * Minimum age of a request for a lookup, in milliseconds: a newer one may still be in transit from Caddy to the store.
 */
const settleMs = 5000;

/** Maximum disorder of the lines of one log, in milliseconds. */
const disorderMsMax = 1000;
/** Interval at which the counts are updated, in milliseconds. */
const countMs = 100;
/** Back-off of a lookup while the store is busy, in milliseconds. Doubles from the minimum to the maximum. */
const pauseMsMin = 500;
const pauseMsMax = 16_000;

/**
 * Imports the lines of one file, compressed or not, in constant memory. Updates `counts` as it goes. Resolves when
 * everything is written: to `undefined`, or to the reason why the file was not read to its end. Throws a `StoreError`
 * if the store fails.
 */
export async function importLines(
  file: AsyncIterable<Buffer>,
  counts: ImportCounts,
  parts: ImportParts,
): Promise<string | undefined> {
  return await new FileImport(counts, parts).run(file);
}

/** The import of one file. */
class FileImport {
  readonly #parts: ImportParts;
  readonly #counts: ImportCounts;
  readonly #limits: ImportLimits;
  readonly #now: () => number;
  readonly #startMs: number;
  readonly #lines: FileLines;
  readonly #imported: ImportedHours;
  readonly #finder: ReturnType<typeof createMissingFinder>;
  readonly #windows: ReturnType<typeof createUncertainWindows>;
  readonly #deadline: StopDeadline;
  /** The recorder's counts before the import. */
  readonly #before: Recorder['counts'];
  /** The time before which rows may be deleted, as of the start. Advances with the clock. */
  #requestsFromAtStartMs = -Infinity;
  /** High-water mark: requests from this time on cannot be duplicates. */
  #newFromMs = Infinity;
  #newestFreshMs = -Infinity;
  /** Requests that need no lookup. */
  #fresh: RequestEvent[] = [];
  /** Whether the recorder has got requests without a lookup since its last flush. */
  #isUnwritten = false;
  /** Requests that need a lookup. */
  #batch: RequestEvent[] = [];
  #unrecorded = 0;

  constructor(counts: ImportCounts, parts: ImportParts) {
    const { store, recorder, signal, now = Date.now, limits = importLimits } = parts;
    this.#parts = parts;
    this.#counts = counts;
    this.#limits = limits;
    this.#now = now;
    this.#startMs = now();
    this.#imported = new ImportedHours(store);
    this.#finder = createMissingFinder(store, this.#imported);
    this.#windows = createUncertainWindows(store, this.#imported, { now });
    this.#before = { ...recorder.counts };
    this.#deadline = new StopDeadline(signal, { limitMs: limits.stopMsMax, problem: () => recorder.problem });
    this.#lines = new FileLines({
      decoder: parts.decoder,
      lineBytesMax: parts.lineBytesMax,
      rollupRetentionMs: parts.rollupRetentionMs,
      counts,
      onRequest: (request) => {
        this.#addRequest(request);
      },
    });
  }

  async run(file: AsyncIterable<Buffer>): Promise<string | undefined> {
    const { signal } = this.#parts;
    const counting = setInterval(() => {
      this.#countWritten();
    }, countMs);
    try {
      const problem = await this.#readAll(file).catch((error: unknown) => {
        if (error instanceof StoreError) throw error;
        return signal.aborted ? stoppedEarly : messageOf(error);
      });
      if (!signal.aborted) this.#lines.end(); // a stopped import ends in the middle of a line
      await this.#recordFresh();
      await this.#importBatches(1);
      await this.#flush();
      return problem;
    } finally {
      clearInterval(counting);
      this.#countWritten();
      this.#deadline.clear();
    }
  }

  async #readAll(file: AsyncIterable<Buffer>): Promise<string | undefined> {
    const { store, signal, isAlone } = this.#parts;
    this.#requestsFromAtStartMs = await this.#readWithRetry(() => store.requestsFrom());
    if (isAlone === true) this.#newFromMs = await this.#readWithRetry(() => newestStored(store, this.#now()));
    for await (const chunk of inflate(untilAborted(file, signal))) {
      if (signal.aborted) return stoppedEarly;
      this.#lines.write(chunk, this.#now());
      // Keeps the order of time where that needs a single lookup only, since reopening a closed window is expensive.
      if (!this.#isUnwritten && this.#fresh.length > 0) await this.#importBatches(1);
      await this.#recordFresh();
      await this.#importBatches(this.#limits.batchRequestsMax);
    }
    if (signal.aborted) return stoppedEarly;
    this.#lines.endLine();
    return undefined;
  }

  #addRequest(request: RequestEvent): void {
    const { timeMs } = request;
    // A file that goes back in time may be a concatenation of overlapping files.
    if (timeMs < this.#newestFreshMs - disorderMsMax)
      this.#newFromMs = Math.max(this.#newFromMs, this.#newestFreshMs + 1);
    if (timeMs < this.#newFromMs) {
      this.#batch.push(request);
    } else {
      this.#fresh.push(request);
      this.#newestFreshMs = Math.max(this.#newestFreshMs, timeMs);
    }
  }

  async #recordFresh(): Promise<void> {
    const requests = this.#fresh;
    this.#fresh = [];
    if (requests.length > 0) this.#isUnwritten = true;
    await this.#record(requests);
  }

  async #importBatches(requestsMin: number): Promise<void> {
    const { batchRequestsMax } = this.#limits;
    while (this.#batch.length >= requestsMin) {
      const requests = this.#batch.slice(0, batchRequestsMax);
      this.#batch = this.#batch.slice(batchRequestsMax);
      await this.#importBatch(requests);
    }
  }

  async #importBatch(requests: readonly RequestEvent[]): Promise<void> {
    const { recorder, flushOthers, force, dryRun } = this.#parts;
    // The finder remembers the requests of previous batches, so their writes may still be running. It does not know
    // those without a lookup. Windows with deleted rows are compared with the remembered imports, which must be
    // complete.
    const requestsFromMs = this.#requestsFromAtStartMs + Math.max(0, this.#now() - this.#startMs);
    if (this.#isUnwritten || requests.some(({ timeMs }) => timeMs < requestsFromMs)) await this.#flush();
    this.#isUnwritten = false;
    await this.#settled(requests);
    // A request from a socket may wait for a busy store for longer than `settleMs`.
    if (flushOthers !== undefined) await this.#deadline.wait(flushOthers());
    await this.#readWithRetry(() => this.#imported.load(requests));
    await this.#readWithRetry(() => this.#windows.load(requests));
    const found = await this.#readWithRetry(() => this.#finder.find(requests));
    this.#counts.known += requests.length - found.requests.length;
    const missing = found.requests.filter(
      (request) => force === true || !this.#windows.isUncertain(request, requestsFromMs),
    );
    this.#counts.skipped += found.requests.length - missing.length;
    if (!dryRun) recorder.reserve(found.neighbours);
    await this.#record(missing);
  }

  /** Records requests. While the recorder is full, waits until a batch is written. */
  async #record(requests: readonly RequestEvent[]): Promise<void> {
    const { recorder, dryRun } = this.#parts;
    if (dryRun) {
      this.#counts.added += requests.length;
      return;
    }
    for (const request of requests) {
      while (!recorder.record(request)) {
        if (await this.#deadline.wait(recorder.batchWritten())) continue;
        this.#unrecorded += 1;
        break;
      }
    }
  }

  async #flush(): Promise<void> {
    await this.#deadline.wait(this.#parts.recorder.flush({ allTopLists: false }));
  }

  #countWritten(): void {
    const { recorder, dryRun } = this.#parts;
    if (dryRun) return;
    this.#counts.added = recorder.counts.stored - this.#before.stored;
    this.#counts.refused = this.#unrecorded + recorder.counts.deadLettered - this.#before.deadLettered;
  }

  async #settled(requests: readonly RequestEvent[]): Promise<void> {
    const newestMs = requests.reduce((newest, { timeMs }) => Math.max(newest, timeMs), 0);
    const ageMs = this.#now() - newestMs;
    if (Math.abs(ageMs) < settleMs) await this.#pause(settleMs - Math.max(0, ageMs));
  }

  /** Retries a read with a back-off while the store is busy. */
  async #readWithRetry<Result>(read: () => Promise<Result>): Promise<Result> {
    for (let pauseMs = pauseMsMin; ; pauseMs *= 2) {
      try {
        return await this.#deadline.wait(read());
      } catch (error) {
        const isRetried = error instanceof StoreError && error.action === 'retry';
        if (!isRetried || pauseMs > pauseMsMax || this.#parts.signal.aborted) throw error;
        await this.#pause(error.retryAfterMs ?? pauseMs);
      }
    }
  }

  /** Waits, but not in a stopped import. */
  async #pause(pauseMs: number): Promise<void> {
    await sleep(pauseMs, undefined, { signal: this.#parts.signal }).catch(() => undefined);
  }
}
