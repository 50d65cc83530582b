import { messageOf } from '../../errors.js';
import type { Log } from '../../log.js';
import { RetentionGuard } from '../retention-guard.js';
import type { DuckdbOptions } from './options.js';
import type { ReopeningDatabase } from './reopening-database.js';
import { deleteSteps, loadRetentionState, readStoredSpan, saveRetentionState } from './retention.js';

/** Interval between deletions of old rows, in milliseconds. The first one runs when the store is opened. */
const everyMs = 600_000;

const action = 'delete old rows from';

/** Dependencies of a `Deletion`. */
export interface DeletionParts {
  readonly log: Log;
  readonly now: () => number;
  readonly monotonicMs: () => number;
  /** Closes and folds windows: only rows that are closed and folded can be deleted. */
  readonly prepare: () => Promise<void>;
}

/** Deletes expired rows from time to time, in small steps between which batches are written. */
export class Deletion {
  readonly #database: ReopeningDatabase;
  readonly #guard: RetentionGuard;
  readonly #log: Log;
  readonly #prepare: () => Promise<void>;
  readonly #timer: NodeJS.Timeout;
  #isRunning = false;

  constructor(
    database: ReopeningDatabase,
    { retention, retentionDelayMs }: DuckdbOptions,
    { log, now, monotonicMs, prepare }: DeletionParts,
  ) {
    this.#database = database;
    this.#log = log;
    this.#prepare = prepare;
    this.#guard = new RetentionGuard({
      retention,
      delayMs: retentionDelayMs,
      log,
      now,
      monotonicMs,
      load: () => database.write(action, ({ writing }) => loadRetentionState(writing)),
      save: (state) => database.write(action, ({ writing }) => saveRetentionState(writing, state)),
      readSpan: () => database.write(action, ({ writing }) => readStoredSpan(writing)),
    });
    void this.#run();
    this.#timer = setInterval(() => void this.#run(), everyMs).unref();
  }

  /** Stops, once the database is closed. */
  stop(): void {
    clearInterval(this.#timer);
  }

  async #run(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    try {
      const due = await this.#guard.check();
      await this.#prepare();
      for (const step of deleteSteps(due.retention, due.nowMs)) {
        let deleted: number;
        do {
          if (this.#database.isClosed) return;
          deleted = await this.#database.write(action, async ({ writing }) => await step(writing));
        } while (deleted > 0);
      }
    } catch (error) {
      if (!this.#database.isClosed)
        this.#log.warn(`Cannot delete old rows; the next attempt is in ${everyMs / 60_000} minutes.`, {
          error: messageOf(error),
        });
    } finally {
      this.#isRunning = false;
    }
  }
}
