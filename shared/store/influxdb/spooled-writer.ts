import { detailedMessageOf, fileAdvice, isDiskFull, messageOf, StoreError } from '../../errors.js';
import { backoffMs, pause, retryAfterMsMax } from '../../retry.js';
import type { Log } from '../../log.js';
import { SpoolFullError, type Spool, type SpoolRecord } from '../spool/spool.js';
import { withEarlierSpooled, type Batch, type LedgerSnapshot, type SpoolState } from '../store.js';
import type { Delivery } from './delivery.js';
import { ledgerLines } from './line-protocol.js';
import { bodiesOf, compress, decodePayload, encodePayload, linesMax, type Body } from './payload.js';

/** Writes batches via a spool. */
export interface SpooledWriter {
  /**
   * Resolves when the batch is in the spool. Throws a `StoreError`: 'retry' if the spool does not accept it now,
   * 'drop' if the batch can never fit.
   */
  write(batch: Batch): Promise<void>;
  readonly state: SpoolState;
  /** Continues delivery for a limited time while InfluxDB accepts it, then closes the spool, which retains the rest. */
  close(): Promise<void>;
}

/** Dependencies of a spooled writer. */
export interface SpooledWriterParts {
  readonly spool: Spool;
  readonly delivery: Delivery;
  /** Aborts the pending delivery. */
  readonly stopping: AbortController;
  /** Size limit of the spool. */
  readonly bytesMax: number;
  readonly log: Log;
}

/** Maximum size of one read from the spool, in bytes: about 100,000 requests. */
const readBytesMax = 2 ** 20;
/** How long `close` continues delivery, in milliseconds. */
const drainMsMax = 4000;
const drainPollMs = 10;
/** Retry interval for a full spool or disk, in milliseconds. Nothing signals that there is space again. */
const fullRetryMs = 500;

/** Starts to deliver the records of the spool, existing and new. */
export function startSpooledWriter({ spool, delivery, stopping, bytesMax, log }: SpooledWriterParts): SpooledWriter {
  /** The newest ledger of a batch. It bypasses the spool, since older ones are obsolete. */
  let ledger: LedgerSnapshot | undefined;
  let problem: string | undefined;
  let isDeliveringLedger = false;
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
          throw toStoreError(error, payload.length);
        }
      }
      if (batch.ledger === undefined) return;
      ledger = batch.ledger;
      if (bodies.length === 0) void deliverLedger(); // not awaited: it must not delay requests
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
      // In steps, so that a failure does not repeat earlier writes.
      for (const step of stepsOf(records)) {
        const deadLettered = await deliverStep(step);
        if (deadLettered === undefined) return;
        await spool.commit(step, deadLettered);
      }
    }
  }

  /**
   * Retries until InfluxDB has accepted or rejected all lines. Resolves to the number of rejected requests, or to
   * `undefined` when stopped.
   */
  async function deliverStep(records: readonly SpoolRecord[]): Promise<number | undefined> {
    const requests = records.reduce((sum, record) => sum + record.requests, 0);
    let bodies: Body[];
    try {
      bodies = records.flatMap(({ payload }) => decodePayload(payload));
    } catch (error) {
      // The checksum matches, so another kind of program wrote it.
      log.error(`The spool has a record that this program did not write: ${messageOf(error)}`);
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

  /** Delivers only a ledger, as a heartbeat when there are no requests. */
  async function deliverLedger(): Promise<void> {
    if (!spool.isEmpty || isDeliveringLedger) return;
    isDeliveringLedger = true;
    try {
      await delivery.deliver(ledgerBody(0));
      setProblem(undefined);
    } catch (error) {
      if (!isStopping()) setProblem(error);
    } finally {
      isDeliveringLedger = false;
    }
  }

  /** The newest ledger with the counts after `requests` more are stored. */
  function ledgerBody(requests: number): Body[] {
    if (ledger === undefined) return [];
    const { stored, deadLettered } = spool.own;
    // The recorder counts requests as stored when it hands them over.
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
      log.info('InfluxDB accepts requests again.', { spooled: spool.own.spooled + spool.earlier.spooled });
    if (now !== undefined && now !== problem)
      log.warn(`InfluxDB does not accept requests, they wait in the spool: ${detailedMessageOf(error)}`);
    problem = now;
  }

  function toStoreError(error: unknown, payloadBytes: number): StoreError {
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
        `Cannot write to the spool: ${error.message}, and InfluxDB has to accept some of it first. Raise the limit if there is disk space.`,
        { ...options, full: 'spool-full' },
      );
    }
    // The error about another process in the spool's folder includes advice.
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

/** Groups records into steps of about one write. */
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
