import { detailedMessageOf, fileAdvice, isDiskFull, messageOf, StoreError } from '../../errors.js';
import { backoffMs, pause, retryAfterMsMax } from '../../retry.js';
import type { Log } from '../../log.js';
import { SpoolFullError, type Spool, type SpoolRecord } from '../spool/spool.js';
import { withEarlierSpooled, type Batch, type LedgerSnapshot, type SpoolState } from '../store.js';
import type { Delivery } from './delivery.js';
import { ledgerLines } from './line-protocol.js';
import { bodiesOf, compress, decodePayload, encodePayload, linesMax, type Body } from './payload.js';

/** Writes batches by way of a spool. */
export interface SpooledWriter {
  /**
   * Resolves when the batch is in the spool. Throws a `StoreError`: 'retry' when the spool takes nothing at present,
   * 'drop' when the batch can never fit.
   */
  write(batch: Batch): Promise<void>;
  readonly state: SpoolState;
  /**
   * Goes on delivering for a while, as long as InfluxDB takes what it is given; then closes the spool, and what is left
   * stays in it.
   */
  close(): Promise<void>;
}

/** What a spooled writer works with. */
export interface SpooledWriterParts {
  readonly spool: Spool;
  readonly delivery: Delivery;
  /** Breaks off what the delivery has under way. */
  readonly stopping: AbortController;
  /** The budget of the spool. */
  readonly bytesMax: number;
  readonly log: Log;
}

/** As much of the spool as is read at once, in bytes: some 100,000 requests. */
const readBytesMax = 2 ** 20;
/** How long `close` goes on delivering, in milliseconds. */
const drainMsMax = 4000;
const drainPollMs = 10;
/** How soon a full spool or disk is tried again, in milliseconds: it empties without a sign. */
const fullRetryMs = 500;

/** Starts to deliver what is in the spool, and what comes. */
export function startSpooledWriter({ spool, delivery, stopping, bytesMax, log }: SpooledWriterParts): SpooledWriter {
  /** The newest ledger that came with a batch. It travels beside the spool: only the newest tells anything. */
  let ledger: LedgerSnapshot | undefined;
  let problem: string | undefined;
  let isLedgerUnderWay = false;
  let closing: Promise<void> | undefined;

  if (spool.earlier.spooled > 0)
    log.info(`${spool.earlier.spooled} requests of an earlier start wait in the spool. They are delivered first.`);
  const running = run();

  return {
    async write(batch) {
      const bodies = bodiesOf(batch);
      if (bodies.length > 0) {
        const payload = encodePayload(bodies);
        try {
          await spool.append(payload, batch.requests.length);
        } catch (error) {
          throw refusal(error, payload.length);
        }
      }
      if (batch.ledger === undefined) return;
      ledger = batch.ledger;
      if (bodies.length === 0) void deliverLedger(); // never waited for: requests come behind it
    },
    get state() {
      return { own: spool.own, earlier: spool.earlier, bytes: spool.bytes, damages: spool.damages, problem };
    },
    close: () => (closing ??= close()),
  };

  async function run(): Promise<void> {
    for (;;) {
      const records = await spool.read(readBytesMax);
      if (records.length === 0) return;
      // In steps, so that what is written is not written again because of what comes behind it.
      for (const step of stepsOf(records)) {
        const deadLettered = await deliverStep(step);
        if (deadLettered === undefined) return;
        await spool.commit(step, deadLettered);
      }
    }
  }

  /**
   * Tries until InfluxDB has taken all; resolves to how many requests it refused for good, or to `undefined` when
   * stopped.
   */
  async function deliverStep(records: readonly SpoolRecord[]): Promise<number | undefined> {
    const requests = records.reduce((sum, record) => sum + record.requests, 0);
    let bodies: Body[];
    try {
      bodies = records.flatMap(({ payload }) => decodePayload(payload));
    } catch (error) {
      // its checksum fits, and it is no payload: a program of another kind wrote it
      log.error(`What is in the spool is not what this program writes: ${messageOf(error)}`);
      return requests;
    }
    for (let failures = 1; !isStopping(); failures += 1) {
      try {
        const deadLettered = await delivery.deliver([...bodies, ...ledgerBody(requests)]);
        setProblem(undefined);
        return deadLettered;
      } catch (error) {
        if (isStopping()) return undefined;
        setProblem(error);
        const retryAfterMs = error instanceof StoreError ? error.retryAfterMs : undefined;
        await pause(Math.min(retryAfterMs ?? backoffMs(failures), retryAfterMsMax), stopping.signal);
      }
    }
    return undefined;
  }

  /** A ledger by itself, as a sign of life while nothing else goes on. */
  async function deliverLedger(): Promise<void> {
    if (!spool.isEmpty || isLedgerUnderWay) return;
    isLedgerUnderWay = true;
    try {
      await delivery.deliver(ledgerBody(0));
      setProblem(undefined);
    } catch (error) {
      if (!isStopping()) setProblem(error);
    } finally {
      isLedgerUnderWay = false;
    }
  }

  /** The newest ledger as it will be when `requests` more are stored. */
  function ledgerBody(requests: number): Body[] {
    if (ledger === undefined) return [];
    const { stored, deadLettered } = spool.own;
    // Made as if all that the recorder has handed over were stored.
    const handedOver = ledger.stored;
    const storedNow = Math.min(stored + requests, handedOver);
    const warnings = withEarlierSpooled(ledger.warnings, spool);
    const lines = ledgerLines({
      ...ledger,
      stored: storedNow,
      deadLettered: ledger.deadLettered + deadLettered,
      spooled: Math.max(0, handedOver - storedNow - deadLettered),
      warnings,
    });
    return [compress(`${lines.join('\n')}\n`, lines.length)];
  }

  function isStopping(): boolean {
    return stopping.signal.aborted;
  }

  function setProblem(error: unknown): void {
    const now = error === undefined ? undefined : messageOf(error);
    if (now === undefined && problem !== undefined)
      log.info('InfluxDB takes requests again.', { spooled: spool.own.spooled + spool.earlier.spooled });
    if (now !== undefined && now !== problem)
      log.warn(`InfluxDB does not take requests, they are spooled: ${detailedMessageOf(error)}`);
    problem = now;
  }

  function refusal(error: unknown, payloadBytes: number): StoreError {
    if (error instanceof SpoolFullError && payloadBytes > bytesMax / 2) {
      return new StoreError(
        'drop',
        `A batch of ${payloadBytes} bytes does not fit into the spool: raise SPOOL_BYTES_MAX, which is ${bytesMax}.`,
        { cause: error },
      );
    }
    const options = { cause: error, retryAfterMs: fullRetryMs };
    if (error instanceof SpoolFullError) {
      return new StoreError(
        'retry',
        `Cannot write to the spool: ${error.message}, and InfluxDB has to take some of it first. Raise it if there is more room.`,
        { ...options, full: 'spool-full' },
      );
    }
    // Another process in the spool's folder says by itself what to do.
    const advice = error instanceof StoreError ? '' : `. ${fileAdvice(error)}`;
    return new StoreError('retry', `Cannot write to the spool: ${messageOf(error)}${advice}`, {
      ...options,
      ...(isDiskFull(error) && { full: 'disk-full' }),
    });
  }

  async function close(): Promise<void> {
    const endMs = performance.now() + drainMsMax;
    while (!spool.isEmpty && problem === undefined && performance.now() < endMs)
      await pause(drainPollMs, stopping.signal);
    stopping.abort();
    await spool.close();
    await running;
    const left = spool.own.spooled + spool.earlier.spooled;
    if (left > 0) log.info(`${left} requests wait in the spool. They are delivered at the next start.`);
  }
}

/** Records that together have about as many requests as one write takes. */
function* stepsOf(records: readonly SpoolRecord[]): Generator<SpoolRecord[]> {
  let step: SpoolRecord[] = [];
  let requests = 0;
  for (const record of records) {
    if (step.length > 0 && requests + record.requests > linesMax) {
      yield step;
      step = [];
      requests = 0;
    }
    step.push(record);
    requests += record.requests;
  }
  if (step.length > 0) yield step;
}
