import { detailedMessageOf, fileAdvice, isDiskFull, messageOf, StoreError } from '../../errors.js';
import { backoffMs, pause, retryAfterMsMax } from '../../retry.js';
import type { Log } from '../../log.js';
import { SpoolFullError, type Spool, type SpoolRecord } from '../spool/spool.js';
import { withEarlierSpooled, type Batch, type LedgerSnapshot, type SpoolState } from '../store.js';
import type { Delivery } from './delivery.js';
import { ledgerLines } from './line-protocol.js';
import { bodiesOf, compress, decodePayload, encodePayload, linesMax, type Body } from './payload.js';

/** Dependencies of a spooled writer. */
export interface SpooledWriterParts {
  readonly spool: Spool;
  readonly delivery: Pick<Delivery, 'deliver'>;
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

/** Writes batches to a spool, and delivers its records, existing and new. */
export class SpooledWriter {
  readonly #spool: Spool;
  readonly #delivery: Pick<Delivery, 'deliver'>;
  readonly #stopping: AbortController;
  readonly #bytesMax: number;
  readonly #log: Log;
  /** The newest ledger of a batch. It bypasses the spool, since older ones are obsolete. */
  #ledger: LedgerSnapshot | undefined;
  #problem: string | undefined;
  #isDeliveringLedger = false;
  #closing: Promise<void> | undefined;
  readonly #running: Promise<void>;

  constructor({ spool, delivery, stopping, bytesMax, log }: SpooledWriterParts) {
    this.#spool = spool;
    this.#delivery = delivery;
    this.#stopping = stopping;
    this.#bytesMax = bytesMax;
    this.#log = log;
    if (spool.earlier.spooled > 0)
      log.info(`${spool.earlier.spooled} requests of an earlier start wait in the spool. They are delivered first.`);
    this.#running = this.#run();
  }

  get state(): SpoolState {
    const { own, earlier, bytes, damages } = this.#spool;
    return { own, earlier, bytes, damages, problem: this.#problem };
  }

  /**
   * Resolves when the batch is in the spool. Throws a `StoreError`: 'retry' if the spool does not accept it now,
   * 'drop' if the batch can never fit.
   */
  async write(batch: Batch): Promise<void> {
    const bodies = bodiesOf(batch);
    if (bodies.length > 0) {
      const payload = encodePayload(bodies);
      try {
        await this.#spool.append(payload, batch.requests.length);
      } catch (error) {
        throw spoolError(error, { payloadBytes: payload.length, bytesMax: this.#bytesMax });
      }
    }
    if (batch.ledger === undefined) return;
    this.#ledger = batch.ledger;
    if (bodies.length === 0) void this.#deliverLedger(); // not awaited: it must not delay requests
  }

  /** Continues delivery for a limited time while InfluxDB accepts it, then closes the spool, which retains the rest. */
  close(): Promise<void> {
    return (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    const endMs = performance.now() + drainMsMax;
    while (!this.#spool.isEmpty && this.#problem === undefined && performance.now() < endMs)
      await pause(drainPollMs, this.#stopping.signal);
    this.#stopping.abort();
    await this.#spool.close();
    await this.#running;
    const left = this.#spool.own.spooled + this.#spool.earlier.spooled;
    if (left > 0) this.#log.info(`${left} requests wait in the spool. They are delivered at the next start.`);
  }

  async #run(): Promise<void> {
    for (;;) {
      const records = await this.#spool.read(readBytesMax);
      if (records.length === 0) return;
      // In steps, so that a failure does not repeat earlier writes.
      for (const step of stepsOf(records)) {
        const deadLettered = await this.#deliverStep(step);
        if (deadLettered === undefined) return;
        await this.#spool.commit(step, deadLettered);
      }
    }
  }

  /**
   * Retries until InfluxDB has accepted or rejected all lines. Resolves to the number of rejected requests, or to
   * `undefined` when stopped.
   */
  async #deliverStep(records: readonly SpoolRecord[]): Promise<number | undefined> {
    const requests = records.reduce((sum, record) => sum + record.requests, 0);
    let bodies: Body[];
    try {
      bodies = records.flatMap(({ payload }) => decodePayload(payload));
    } catch (error) {
      // The checksum matches, so another kind of program wrote it.
      this.#log.error(`The spool has a record that this program did not write: ${messageOf(error)}`);
      return requests;
    }
    for (let failures = 1; !this.#isStopping(); failures += 1) {
      try {
        const deadLettered = await this.#delivery.deliver([...bodies, ...this.#ledgerBody(requests)]);
        this.#setProblem(undefined);
        return deadLettered;
      } catch (error) {
        if (this.#isStopping()) return undefined;
        this.#setProblem(error);
        const retryAfterMs = error instanceof StoreError ? error.retryAfterMs : undefined;
        await pause(Math.min(retryAfterMs ?? backoffMs(failures), retryAfterMsMax), this.#stopping.signal);
      }
    }
    return undefined;
  }

  /** Delivers only a ledger, as a heartbeat when there are no requests. */
  async #deliverLedger(): Promise<void> {
    if (!this.#spool.isEmpty || this.#isDeliveringLedger) return;
    this.#isDeliveringLedger = true;
    try {
      await this.#delivery.deliver(this.#ledgerBody(0));
      this.#setProblem(undefined);
    } catch (error) {
      if (!this.#isStopping()) this.#setProblem(error);
    } finally {
      this.#isDeliveringLedger = false;
    }
  }

  /** The newest ledger with the counts after `requests` more are stored. */
  #ledgerBody(requests: number): Body[] {
    const ledger = this.#ledger;
    if (ledger === undefined) return [];
    const { stored, deadLettered } = this.#spool.own;
    // The recorder counts requests as stored when it hands them over.
    const handedOver = ledger.stored;
    const storedNow = Math.min(stored + requests, handedOver);
    const lines = ledgerLines({
      ...ledger,
      stored: storedNow,
      deadLettered: ledger.deadLettered + deadLettered,
      spooled: Math.max(0, handedOver - storedNow - deadLettered),
      warnings: withEarlierSpooled(ledger.warnings, this.#spool),
    });
    return [compress(`${lines.join('\n')}\n`, lines.length)];
  }

  #isStopping(): boolean {
    return this.#stopping.signal.aborted;
  }

  #setProblem(error: unknown): void {
    const problem = error === undefined ? undefined : messageOf(error);
    if (problem === undefined && this.#problem !== undefined)
      this.#log.info('InfluxDB accepts requests again.', {
        spooled: this.#spool.own.spooled + this.#spool.earlier.spooled,
      });
    if (problem !== undefined && problem !== this.#problem)
      this.#log.warn(`InfluxDB does not accept requests, they wait in the spool: ${detailedMessageOf(error)}`);
    this.#problem = problem;
  }
}

/** Converts an error of the spool. Only a batch that can never fit is 'drop'. */
function spoolError(
  error: unknown,
  { payloadBytes, bytesMax }: { payloadBytes: number; bytesMax: number },
): StoreError {
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
