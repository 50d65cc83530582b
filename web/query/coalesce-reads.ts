/** Single flight for uncached reads: concurrent viewers share one read. */
import type { StoreChanges } from '../../shared/store/changes.js';
import type { TimeRange } from '../../shared/store/store.js';

/** Maximum age of a read that can be joined, in milliseconds. After that its answer is released. */
const maxAgeMs = 200;
/** Maximum number of reads that can be joined. Beyond it the oldest are evicted. */
const readsMax = 100;

interface Started {
  readonly range: TimeRange;
  readonly atMs: number;
  readonly read: CoalescedRead<unknown>;
}

/** The single flight of one store. */
export class SharedReads {
  readonly #clock: () => number;
  /** By name and query, oldest first. */
  readonly #started = new Map<string, Started>();

  /** `changes` is `undefined` for a store that other processes write to. `clock` is monotonic, in milliseconds. */
  constructor(changes: StoreChanges | undefined, { clock = () => performance.now() } = {}) {
    this.#clock = clock;
    changes?.listen(() => {
      this.#started.clear();
    });
    changes?.listenForExchange(() => {
      this.#started.clear();
    });
  }

  /**
   * Starts a read, or joins one of the same name and query started within the last `maxAgeMs`, whose range may be older
   * by as much. A store that reports its changes invalidates reads started before a batch was written. A read is
   * cancelled when all its callers have left. Throws the error of the read.
   */
  async read<Query, Answer>(
    name: string,
    range: TimeRange,
    query: Query,
    read: (range: TimeRange, query: Query, signal: AbortSignal) => Promise<Answer>,
    signal?: AbortSignal,
  ): Promise<Answer> {
    const key = JSON.stringify([name, query]);
    const known = this.#started.get(key);
    if (known !== undefined && this.#isJoinable(known, range))
      return await (known.read as CoalescedRead<Answer>).join(signal);
    const own = new CoalescedRead<Answer>((cancelled) => read(range, query, cancelled));
    const started: Started = { range, atMs: this.#clock(), read: own };
    const remove = (): void => {
      if (this.#started.get(key) === started) this.#started.delete(key);
    };
    this.#started.delete(key);
    this.#started.set(key, started);
    setTimeout(remove, maxAgeMs).unref();
    for (const oldest of this.#started.keys()) if (this.#started.size > readsMax) this.#started.delete(oldest);
    try {
      return await own.join(signal);
    } catch (error) {
      remove();
      throw error;
    }
  }

  #isJoinable({ range, atMs, read }: Started, asked: TimeRange): boolean {
    return (
      !read.isCancelled &&
      this.#clock() - atMs <= maxAgeMs &&
      (['fromMs', 'toMs'] as const).every((end) => asked[end] >= range[end] && asked[end] - range[end] <= maxAgeMs)
    );
  }
}

/** A read that several callers share. It is cancelled when the last of them leaves. */
export class CoalescedRead<Answer> {
  readonly #cancelling = new AbortController();
  readonly #answer: Promise<Answer>;
  #waiting = 0;

  constructor(read: (cancelled: AbortSignal) => Promise<Answer>) {
    this.#answer = read(this.#cancelling.signal);
    this.#answer.catch(() => undefined); // callers of `join` receive the error
  }

  get isCancelled(): boolean {
    return this.#cancelling.signal.aborted;
  }

  /** Waits for the answer. A caller leaves when its `signal` is aborted; a caller without a signal never leaves. */
  async join(signal?: AbortSignal): Promise<Answer> {
    const leave = (): void => {
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#cancelling.abort();
    };
    this.#waiting += 1;
    if (signal?.aborted === true) leave();
    else signal?.addEventListener('abort', leave, { once: true });
    try {
      return await this.#answer;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }
}
