import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, StoreError } from '../../shared/errors.js';
import type { Recorder } from '../../shared/record/recorder.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { isPlausibleTime } from '../../shared/store/retention.js';
import { readDeadLetter } from '../../shared/store/open.js';
import type { Store } from '../../shared/store/store.js';
import { createDecoder, type Decoded, type DecoderOptions } from '../decode/decode.js';
import type { RejectionReason } from '../ledger.js';
import { LineSplitter } from '../lines.js';
import { PartialLines } from '../partial-lines.js';
import type { ImportCounts } from './counts.js';
import { ImportedHours } from './imported-hours.js';
import { inflate } from './inflate.js';
import { createMissingFinder } from './deduplicate.js';
import { newestStored } from './high-water-mark.js';
import { createUncertainWindows } from './uncertain-windows.js';
import { stoppedEarly, untilAborted } from './until-aborted.js';

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
  const { recorder, signal, dryRun, now = Date.now, limits: { batchRequestsMax, stopMsMax } = importLimits } = parts;
  const imported = new ImportedHours(parts.store);
  const finder = createMissingFinder(parts.store, imported);
  const windows = createUncertainWindows(parts.store, imported, { now });
  const startMs = now();
  /** The time before which rows may be deleted, as of the start. Advances with the clock. */
  let requestsFromAtStartMs = -Infinity;
  const decoder = createDecoder(parts.decoder);
  const lines = new LineSplitter(parts.lineBytesMax, {
    onLine,
    onTooLong: () => {
      reject('too-long');
    },
    // A stopped import ends in the middle of a line.
    onUnterminated: () => {
      if (!signal.aborted) reject('unterminated');
    },
  });
  const partial = new PartialLines(parts.lineBytesMax);
  let chunkMs = now();
  /** High-water mark: requests from this time on cannot be duplicates. */
  let newFromMs = Infinity;
  let newestFreshMs = -Infinity;
  let fresh: RequestEvent[] = [];
  /** Whether the recorder has got requests without a lookup since its last flush. */
  let isUnwritten = false;
  /** Requests that need a lookup. */
  let batch: RequestEvent[] = [];
  const before = { ...recorder.counts };
  let unrecorded = 0;

  const stopLimit = new AbortController();
  let stopTimer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    stopTimer ??= setTimeout(() => {
      stopLimit.abort();
    }, stopMsMax);
  };
  signal.addEventListener('abort', onAbort);
  if (signal.aborted) onAbort();
  const counting = setInterval(countWritten, countMs);
  try {
    const problem = await readAll().catch((error: unknown) => {
      if (error instanceof StoreError) throw error;
      return signal.aborted ? stoppedEarly : messageOf(error);
    });
    lines.end();
    const unterminated = partial.end();
    if (!signal.aborted) reject('unterminated', unterminated);
    await recordFresh();
    await importBatches(1);
    await orStopped(recorder.flush({ allTopLists: false }));
    return problem;
  } finally {
    clearInterval(counting);
    countWritten();
    signal.removeEventListener('abort', onAbort);
    clearTimeout(stopTimer);
  }

  async function readAll(): Promise<string | undefined> {
    let last: Buffer | undefined;
    requestsFromAtStartMs = await readWithRetry(() => parts.store.requestsFrom());
    if (parts.isAlone === true) newFromMs = await readWithRetry(() => newestStored(parts.store, now()));
    for await (const chunk of inflate(untilAborted(file, signal))) {
      if (signal.aborted) return stoppedEarly;
      chunkMs = now();
      lines.write(chunk);
      if (chunk.length > 0) last = chunk;
      // Keeps the order of time where that needs a single lookup only, since reopening a closed window is expensive.
      if (!isUnwritten && fresh.length > 0) await importBatches(1);
      await recordFresh();
      await importBatches(batchRequestsMax);
    }
    if (signal.aborted) return stoppedEarly;
    // The last line of a file needs no ending.
    if (last !== undefined && last.at(-1) !== 0x0a) lines.write(Buffer.from('\n'));
    return undefined;
  }

  function onLine(bytes: Buffer, from: number, to: number): void {
    // Any other line may be a dead letter, or belong to an object that spans several lines. Both can contain text that
    // the decoder would take for a whole line.
    if (bytes[from] !== openingBrace || partial.isInObject) {
      onText(bytes.toString('utf8', from, to));
      return;
    }
    count(decoder.decodeLine(bytes, from, to, undefined), (reason) => {
      const line = bytes.toString('utf8', from, to);
      if (partial.addFileLine(line).kind === 'not-a-part') onRejected(line, reason);
    });
  }

  function onText(line: string): void {
    const part = partial.addFileLine(line);
    if (part.kind === 'complete') onWholeLine(part.line);
    else if (part.kind === 'too-long') reject('too-long');
    else if (part.kind === 'not-a-part' && part.discarded === 0) onWholeLine(line);
    else if (part.kind === 'not-a-part') {
      reject('not-json', part.discarded);
      onText(line); // it may start another object
    }
  }

  function onWholeLine(line: string): void {
    const deadLetter = readDeadLetter(line);
    if (deadLetter === 'other') counts.runtime += 1;
    else if (deadLetter !== undefined) onRequest(deadLetter);
    else
      count(decoder.decode(line, undefined), (reason) => {
        onRejected(line, reason);
      });
  }

  function count(decoded: Decoded, onRejection: (reason: RejectionReason) => void): void {
    if (decoded.kind === 'request') onRequest(decoded.event);
    else if (decoded.kind === 'runtime') counts.runtime += 1;
    else onRejection(decoded.reason);
  }

  /** Rejects a line, unless it is a part of a line that was split into several envelopes. */
  function onRejected(line: string, reason: RejectionReason): void {
    const part = partial.add(line, chunkMs);
    if (part.kind === 'not-a-part') reject(reason);
    else if (part.kind === 'complete') count(decoder.decode(part.line, undefined), reject);
    else if (part.kind !== 'incomplete') reject('too-long');
  }

  function onRequest(request: RequestEvent): void {
    const { timeMs } = request;
    if (!isPlausibleTime(timeMs, { nowMs: chunkMs, rollupRetentionMs: parts.rollupRetentionMs })) {
      reject('bad-time');
      return;
    }
    // A file that goes back in time may be a concatenation of overlapping files.
    if (timeMs < newestFreshMs - disorderMsMax) newFromMs = Math.max(newFromMs, newestFreshMs + 1);
    if (timeMs < newFromMs) {
      batch.push(request);
    } else {
      fresh.push(request);
      newestFreshMs = Math.max(newestFreshMs, timeMs);
    }
  }

  function reject(reason: RejectionReason, count = 1): void {
    if (count > 0) counts.rejected[reason] = (counts.rejected[reason] ?? 0) + count;
  }

  async function recordFresh(): Promise<void> {
    const requests = fresh;
    fresh = [];
    if (requests.length > 0) isUnwritten = true;
    await record(requests);
  }

  async function importBatches(requestsMin: number): Promise<void> {
    while (batch.length >= requestsMin) {
      const requests = batch.slice(0, batchRequestsMax);
      batch = batch.slice(batchRequestsMax);
      await importBatch(requests);
    }
  }

  async function importBatch(requests: readonly RequestEvent[]): Promise<void> {
    // The finder remembers the requests of previous batches, so their writes may still be running. It does not know
    // those without a lookup. Windows with deleted rows are compared with the remembered imports, which must be
    // complete.
    const requestsFromMs = requestsFromAtStartMs + Math.max(0, now() - startMs);
    if (isUnwritten || requests.some(({ timeMs }) => timeMs < requestsFromMs))
      await orStopped(recorder.flush({ allTopLists: false }));
    isUnwritten = false;
    await settled(requests);
    // A request from a socket may wait for a busy store for longer than `settleMs`.
    if (parts.flushOthers !== undefined) await orStopped(parts.flushOthers());
    await readWithRetry(() => imported.load(requests));
    await readWithRetry(() => windows.load(requests));
    const found = await readWithRetry(() => finder.find(requests));
    counts.known += requests.length - found.requests.length;
    const missing = {
      ...found,
      requests: found.requests.filter(
        (request) => parts.force === true || !windows.isUncertain(request, requestsFromMs),
      ),
    };
    counts.skipped += found.requests.length - missing.requests.length;
    if (!dryRun) recorder.reserve(missing.neighbours);
    await record(missing.requests);
  }

  /** Records requests. While the recorder is full, waits until a batch is written. */
  async function record(requests: readonly RequestEvent[]): Promise<void> {
    for (const request of requests) {
      if (dryRun) {
        counts.added += 1;
        continue;
      }
      while (!recorder.record(request)) {
        if (await orStopped(recorder.batchWritten())) continue;
        unrecorded += 1;
        break;
      }
    }
  }

  function countWritten(): void {
    if (dryRun) return;
    counts.added = recorder.counts.stored - before.stored;
    counts.refused = unrecorded + recorder.counts.deadLettered - before.deadLettered;
  }

  async function settled(requests: readonly RequestEvent[]): Promise<void> {
    const newestMs = requests.reduce((newest, { timeMs }) => Math.max(newest, timeMs), 0);
    const ageMs = now() - newestMs;
    if (Math.abs(ageMs) >= settleMs) return;
    // Rejects only if stopped.
    await sleep(settleMs - Math.max(0, ageMs), undefined, { signal }).catch(() => undefined);
  }

  /** Retries a read with a back-off while the store is busy. */
  async function readWithRetry<Result>(read: () => Promise<Result>): Promise<Result> {
    for (let pauseMs = 500; ; pauseMs *= 2) {
      try {
        return await orStopped(read());
      } catch (error) {
        if (!(error instanceof StoreError) || error.action !== 'retry' || pauseMs > pauseMsMax || signal.aborted)
          throw error;
        await sleep(error.retryAfterMs ?? pauseMs, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /**
   * Waits for the store, but for a stopped import only up to `stopMsMax`: a recorder retries for as long as the store
   * is down.
   */
  function orStopped<Result>(waiting: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        reject(
          new StoreError(
            'stop',
            `The import was stopped, and the store did not finish within ${stopMsMax / 1000} s: ${recorder.problem ?? 'it is busy'}`,
          ),
        );
      };
      stopLimit.signal.addEventListener('abort', giveUp);
      if (stopLimit.signal.aborted) giveUp();
      void waiting.then(resolve, reject).finally(() => {
        stopLimit.signal.removeEventListener('abort', giveUp);
      });
    });
  }
}

const openingBrace = 0x7b;
/** Maximum disorder of the lines of one log, in milliseconds. */
const disorderMsMax = 1000;
/** Interval at which the counts are updated, in milliseconds. */
const countMs = 100;
const pauseMsMax = 16_000;
