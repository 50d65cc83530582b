import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf, StoreError } from '../../shared/errors.js';
import type { Recorder } from '../../shared/record/recorder.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { isPlausibleTime } from '../../shared/store/retention.js';
import { readDeadLetter } from '../../shared/store/open.js';
import type { Store } from '../../shared/store/store.js';
import { createDecoder, type DecoderOptions } from '../decode/decode.js';
import type { RejectionReason } from '../ledger.js';
import { createLineSplitter } from '../lines.js';
import { PartialLines } from '../partial-lines.js';
import type { ImportCounts } from './counts.js';
import { ImportedHours } from './imported-hours.js';
import { inflate } from './inflate.js';
import { createMissingFinder } from './deduplicate.js';
import { newestStored } from './high-water-mark.js';
import { createUncertainWindows } from './uncertain-windows.js';
import { stoppedEarly, untilAborted } from './until-aborted.js';

/** What an import works with. */
export interface ImportParts {
  readonly store: Pick<Store, 'readRequests' | 'readRollups' | 'readImported' | 'requestsFrom'>;
  /** Records what is missing: one for all files of an import. */
  readonly recorder: Recorder;
  readonly decoder: DecoderOptions;
  readonly lineBytesMax: number;
  /**
   * Nobody else writes to the store while files are imported: what is newer than all that it holds need not be looked
   * for.
   */
  readonly isAlone?: boolean;
  /**
   * Writes what the other recorders of this process hold, so that a lookup finds it. Not needed where there are none.
   */
  readonly flushOthers?: (() => Promise<void>) | undefined;
  /** Add requests that may be counted already, instead of skipping them. */
  readonly force?: boolean | undefined;
  /** Retention of rollups, in milliseconds: older requests are rejected. Default: 400 days. */
  readonly rollupRetentionMs?: number | undefined;
  /** Find out what is missing, and write nothing. */
  readonly dryRun: boolean;
  /** Ends the import early: what was read until then is written. */
  readonly signal: AbortSignal;
  readonly now?: () => number;
  /** `importLimits` when not given. */
  readonly limits?: ImportLimits | undefined;
}

/** The limits of an import. */
export interface ImportLimits {
  /**
   * Requests that are looked up and written at once, and the size of the recorder's batches: each lookup and each batch
   * has a price of its own.
   */
  readonly batchRequestsMax: number;
  /** How long a stopped import waits for the store to look up and take what was read, in milliseconds. */
  readonly stopMsMax: number;
  /** How long its recorder waits after that, in milliseconds: see `Recorder.close`. */
  readonly stopDrainMsMax: number;
}

/**
 * The limits of every import but in tests. The two waits together are shorter than the ten seconds that people and
 * service managers wait.
 */
export const importLimits: ImportLimits = { batchRequestsMax: 10_000, stopMsMax: 5000, stopDrainMsMax: 2000 };

/**
 * A request that ended so recently may still be on its way from Caddy to the store through a socket: it is looked for
 * when it is this old, in milliseconds.
 */
const settleMs = 5000;

/**
 * Imports the lines of one file, packed or not, and counts them in `counts` as it goes; memory does not grow with the
 * file. Resolves to `undefined`, or to why the file was not read to its end, when all that came before is written.
 * Throws a `StoreError` when the store cannot go on.
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
  /** At the start, the time before which rows may be deleted. It moves on with the clock. */
  let requestsFromAtStartMs = -Infinity;
  const decoder = createDecoder(parts.decoder);
  const lines = createLineSplitter(parts.lineBytesMax, {
    takeLine(bytes, from, to) {
      const request = decoder.decodeKnown(bytes, from, to);
      if (request === undefined) return false;
      onRequest(request);
      return true;
    },
    onLine: onFileLine,
    onTooLong: () => {
      reject('too-long');
    },
    onUnterminated: () => {
      if (!signal.aborted) reject('unterminated');
    }, // a line that the stopping cut is whole in the file
  });
  const partial = new PartialLines(parts.lineBytesMax);
  let chunkMs = now();
  /** From when on all is new. */
  let newFromMs = Infinity;
  let newestFreshMs = -Infinity;
  let fresh: RequestEvent[] = [];
  /** Whether the recorder has been given some that are not looked for, since it last wrote all that it had. */
  let isUnwritten = false;
  /** Requests that have to be looked for. */
  let batch: RequestEvent[] = [];
  const before = { ...recorder.counts };
  let untaken = 0;

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
    const cut = partial.end();
    if (!signal.aborted) reject('unterminated', cut);
    await takeFresh();
    await takeBatches(1);
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
    requestsFromAtStartMs = await finding(() => parts.store.requestsFrom());
    if (parts.isAlone === true) newFromMs = await finding(() => newestStored(parts.store, now()));
    for await (const chunk of inflate(untilAborted(file, signal))) {
      if (signal.aborted) return stoppedEarly;
      chunkMs = now();
      lines.write(chunk);
      if (chunk.length > 0) last = chunk;
      // In the order of time where it costs no more than one look: a window that is over would have to be opened again.
      if (!isUnwritten && fresh.length > 0) await takeBatches(1);
      await takeFresh();
      await takeBatches(batchRequestsMax);
    }
    if (signal.aborted) return stoppedEarly;
    // The last line of a file needs no ending.
    if (last !== undefined && last.at(-1) !== 0x0a) lines.write(Buffer.from('\n'));
    return undefined;
  }

  /** Takes a line of the file, which may belong to an object over several lines. */
  function onFileLine(line: string): void {
    const part = partial.addFileLine(line);
    if (part.kind === 'complete') onLine(part.line);
    else if (part.kind === 'too-long') reject('too-long');
    else if (part.kind === 'not-a-part' && part.discarded === 0) onLine(line);
    else if (part.kind === 'not-a-part') {
      reject('not-json', part.discarded);
      onFileLine(line); // it may begin another one
    }
  }

  function onLine(line: string): void {
    const deadLetter = readDeadLetter(line);
    if (deadLetter === 'other') counts.runtime += 1;
    else if (deadLetter !== undefined) onRequest(deadLetter);
    else
      decode(line, (reason) => {
        onRejected(line, reason);
      });
  }

  function decode(line: string, onUnread: (reason: RejectionReason) => void): void {
    const decoded = decoder.decode(line, undefined);
    if (decoded.kind === 'request') onRequest(decoded.event);
    else if (decoded.kind === 'runtime') counts.runtime += 1;
    else onUnread(decoded.reason);
  }

  /** Rejects a line, unless it is a part of one that came in several envelopes. */
  function onRejected(line: string, reason: RejectionReason): void {
    const part = partial.add(line, chunkMs);
    if (part.kind === 'not-a-part') reject(reason);
    else if (part.kind === 'complete') decode(part.line, reject);
    else if (part.kind !== 'incomplete') reject('too-long');
  }

  function onRequest(request: RequestEvent): void {
    const { timeMs } = request;
    if (!isPlausibleTime(timeMs, { nowMs: chunkMs, rollupRetentionMs: parts.rollupRetentionMs })) {
      reject('bad-time');
      return;
    }
    // A file that goes back in time may be several that hold the same.
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

  async function takeFresh(): Promise<void> {
    const requests = fresh;
    fresh = [];
    if (requests.length > 0) isUnwritten = true;
    await record(requests);
  }

  async function takeBatches(requestsMin: number): Promise<void> {
    while (batch.length >= requestsMin) {
      const requests = batch.slice(0, batchRequestsMax);
      batch = batch.slice(batchRequestsMax);
      await take(requests);
    }
  }

  async function take(requests: readonly RequestEvent[]): Promise<void> {
    // What the batches before are still writing need not be found: it is known here how often a request came, and when.
    // But not of those that were not looked for. Windows of which the rows are deleted are compared with what is
    // remembered, which has to be complete.
    const requestsFromMs = requestsFromAtStartMs + Math.max(0, now() - startMs);
    if (isUnwritten || requests.some(({ timeMs }) => timeMs < requestsFromMs))
      await orStopped(recorder.flush({ allTopLists: false }));
    isUnwritten = false;
    await settled(requests);
    // A request that came in over a socket may wait for a busy store for longer than it takes to settle.
    if (parts.flushOthers !== undefined) await orStopped(parts.flushOthers());
    await finding(() => imported.load(requests));
    await finding(() => windows.look(requests));
    const found = await finding(() => finder.find(requests));
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

  /**
   * Gives requests to the recorder, which takes all of them: its memory has room again when the store has what waits
   * there.
   */
  async function record(requests: readonly RequestEvent[]): Promise<void> {
    for (const request of requests) {
      if (dryRun) {
        counts.added += 1;
        continue;
      }
      while (!recorder.record(request)) {
        if (await orStopped(recorder.batchWritten())) continue;
        untaken += 1;
        break;
      }
    }
  }

  function countWritten(): void {
    if (dryRun) return;
    counts.added = recorder.counts.stored - before.stored;
    counts.refused = untaken + recorder.counts.deadLettered - before.deadLettered;
  }

  async function settled(requests: readonly RequestEvent[]): Promise<void> {
    const newestMs = requests.reduce((newest, { timeMs }) => Math.max(newest, timeMs), 0);
    const ageMs = now() - newestMs;
    if (Math.abs(ageMs) < settleMs)
      await sleep(settleMs - Math.max(0, ageMs), undefined, { signal }).catch(() => undefined); // rejects only when stopped
  }

  /** Reads again after a while when the store is busy. */
  async function finding<Result>(read: () => Promise<Result>): Promise<Result> {
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
   * Waits for the store, but not beyond the limit of a stopped import: a recorder retries for as long as the store is
   * down.
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

/** Lines of one log are in the order of their times, but for those that end in the same moment. In milliseconds. */
const disorderMsMax = 1000;
/** How often what is written is counted, in milliseconds. */
const countMs = 100;
const pauseMsMax = 16_000;
