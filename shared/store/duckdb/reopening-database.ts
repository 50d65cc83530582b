import { messageOf, StoreError } from '../../errors.js';
import type { Log } from '../../log.js';
import { openDatabase, type Database } from './database.js';
import { storeError } from './duckdb-error.js';
import type { OpenWindows } from './open-windows.js';
import type { DuckdbOptions } from './options.js';
import { ReadPool, type Query } from './read-pool.js';
import type { FileFate } from './watched-file.js';
import { setLogAside } from './write-ahead-log.js';

/** Interval between checks that the path still names the open file, in milliseconds. Each write checks, too. */
const watchEveryMs = 1000;

/** Maximum number of attempts of a read whose file is closed by a failed write. */
const readAttemptsMax = 3;

/** Dependencies of a `ReopeningDatabase`. */
export interface ReopeningDatabaseParts {
  /** What messages call the file. */
  readonly description: string;
  readonly log: Log;
  readonly now: () => number;
  /** Called when the open file was replaced. */
  readonly onExchanged: () => void;
}

/**
 * An open database that is closed after a failed write, or once its path names another file, and that the next use
 * reopens. Writes run one after another. All methods throw a `StoreError`.
 */
export class ReopeningDatabase {
  readonly #options: DuckdbOptions;
  readonly #description: string;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #onExchanged: () => void;
  readonly #watchTimer: NodeJS.Timeout;
  /** `undefined` while the file is closed and has to be reopened. */
  #database: Database | undefined;
  #windows: OpenWindows;
  #reads: ReadPool;
  #problem: string | undefined;
  /**
   * The file was reopened and nothing has been written since. Reopening proves nothing: it works on a full disk, too.
   */
  #isReopened = false;
  #isClosed = false;
  /** The last of the operations that run one at a time: writing, opening and closing. */
  #lastWrite: Promise<unknown> = Promise.resolve();

  constructor(
    options: DuckdbOptions,
    database: Database,
    { description, log, now, onExchanged }: ReopeningDatabaseParts,
  ) {
    this.#options = options;
    this.#description = description;
    this.#log = log;
    this.#now = now;
    this.#onExchanged = onExchanged;
    this.#database = database;
    this.#windows = database.windows;
    this.#reads = new ReadPool(database.reading);
    this.#watchTimer = setInterval(() => void this.#watch(), watchEveryMs).unref();
  }

  /** The open windows of the file, as of its last opening. */
  get windows(): OpenWindows {
    return this.#windows;
  }

  /** The read connections of the file, as of its last opening. */
  get reads(): ReadPool {
    return this.#reads;
  }

  /** Why the last write failed; `undefined` if it did not. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Whether the file is open now. */
  get isOpen(): boolean {
    return this.#database !== undefined && !this.#isClosed;
  }

  /** Whether `close` was called. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /**
   * Runs an operation exclusively on the open database. An error of DuckDB or the system closes the file, which rolls
   * back an open transaction.
   */
  write<Result>(action: string, run: (database: Database) => Promise<Result>): Promise<Result> {
    this.#refuseWhenClosed(action);
    return this.#serialize(async () => {
      const database = await this.#usable(action);
      try {
        return await run(database);
      } catch (error) {
        // Our own errors are thrown before anything is written.
        if (!(error instanceof StoreError)) await this.abandon(database);
        const failure = storeError(action, this.#description, error);
        if (failure.action !== 'drop' && !failure.contentsReplaced) this.#problem = failure.message;
        throw failure;
      }
    });
  }

  /** Runs a read. A read whose file was closed by a failed write is repeated. */
  async read<Result>(run: (query: Query) => Promise<Result>, signal: AbortSignal | undefined): Promise<Result> {
    for (let attempt = 1; ; attempt += 1) {
      this.#refuseWhenClosed('read');
      if (this.#database === undefined) await this.#serialize(() => this.#usable('read'));
      const reads = this.#reads;
      try {
        return await reads.use(run, signal);
      } catch (error) {
        // A failed write closed the file. On a full disk, every write does.
        if (reads.isClosed && signal?.aborted !== true && attempt < readAttemptsMax) continue;
        throw storeError('read', this.#description, error);
      }
    }
  }

  /** Call when a batch was written: whatever was wrong is over. */
  onWritten(): void {
    if (this.#isReopened) this.#log.info(`The ${this.#description} is open again.`);
    this.#isReopened = false;
    this.#problem = undefined;
  }

  /**
   * Closes the database after a failed write. A commit that runs out of memory can make DuckDB 1.5.5 crash at a later
   * read (https://github.com/duckdb/duckdb/pull/26019), and after a full disk it refuses all statements. Call it only
   * within `write`.
   */
  async abandon(broken: Database): Promise<void> {
    this.#database = undefined;
    await this.#reads.close();
    await broken.close();
  }

  /**
   * Closes a file that its path no longer names, and throws; the next use opens what is there now. Call it only within
   * `write`.
   */
  async refuseExchanged({ withContent }: { withContent: boolean }): Promise<void> {
    const database = this.#database;
    const fate = await database?.file.fate({ withContent });
    if (fate === undefined || database === undefined) return;
    const ownLog = await database.file.hasOwnLog();
    this.#database = undefined;
    await this.#reads.close();
    this.#onExchanged();
    // Write the log into the moved file. A file in its place must not get that log.
    if (fate === 'moved' && ownLog)
      await database.checkpoint().catch((error: unknown) => {
        this.#log.warn('The moved DuckDB file lacks the requests in its log.', { error: messageOf(error) });
      });
    await database.close();
    const aside = fate !== 'overwritten' && ownLog ? await this.#setLogAside(fate) : '';
    this.#log.error(
      `The ${this.#description} was ${fate} while it was in use. Its data is no longer at this path.${aside} From now on, requests go to the file at this path, or to a new one if there is none. Stop the program before you move or restore its file.`,
    );
    throw new StoreError('retry', `The ${this.#description} was ${fate} while it was in use. It is being reopened.`, {
      retryAfterMs: 0,
    });
  }

  /** Waits for writes in progress, writes the log into the file, and closes it. Call it once. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#watchTimer);
    await this.#serialize(async () => {
      if (this.#database === undefined) return;
      await this.#reads.close();
      // A failed checkpoint loses nothing: the next start replays the log.
      await this.#database.checkpoint().catch((error: unknown) => {
        this.#log.warn(`The ${this.#description} was closed without a checkpoint.`, { error: messageOf(error) });
      });
      await this.#database.close();
      this.#database = undefined;
    });
  }

  #serialize<Result>(run: () => Promise<Result>): Promise<Result> {
    const result = this.#lastWrite.then(run);
    this.#lastWrite = result.catch(() => undefined);
    return result;
  }

  #refuseWhenClosed(action: string): void {
    if (this.#isClosed)
      throw new StoreError('stop', `Cannot ${action} the ${this.#description}: the store is closed. Reopen it.`);
  }

  /** Returns the database, and reopens it if necessary. Call it only within `#serialize`. */
  async #usable(action: string): Promise<Database> {
    if (this.#database !== undefined) return this.#database;
    try {
      this.#database = await openDatabase(this.#options.path, { ...this.#options, log: this.#log, now: this.#now });
    } catch (error) {
      this.#problem = `Cannot ${action} the ${this.#description}: reopening it after an error failed. ${messageOf(error)}`;
      throw new StoreError('retry', this.#problem, { cause: error });
    }
    this.#windows = this.#database.windows;
    this.#reads = new ReadPool(this.#database.reading);
    this.#isReopened = true;
    return this.#database;
  }

  /** Checks that the path still names the open file, even while nothing is written. */
  async #watch(): Promise<void> {
    try {
      if (!this.#isClosed) await this.write('watch', () => this.refuseExchanged({ withContent: true }));
    } catch (error) {
      if (!(error instanceof StoreError) || error.action === 'stop')
        this.#log.warn(`Cannot check the ${this.#description}.`, { error: messageOf(error) });
    }
  }

  /** Sets the log of an exchanged file aside. Returns a sentence about it; `''` if there was none. */
  async #setLogAside(fate: FileFate): Promise<string> {
    try {
      const { path } = await setLogAside(`${this.#options.path}.wal`, { label: `of-${fate}-file`, now: this.#now });
      return ` Its log was set aside as ${path}.`;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      return ` Its log could not be set aside: ${messageOf(error)}.`;
    }
  }
}
