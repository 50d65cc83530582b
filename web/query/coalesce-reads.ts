/** Single flight for uncached reads: concurrent viewers share one read. */
import type { StoreChanges } from '../../shared/store/changes.js';
import type { TimeRange } from '../../shared/store/store.js';

/**
 * Starts a read, or joins one of the same name and query started within the last `maxAgeMs`, whose range may be older
 * by as much. A store that reports its changes invalidates reads started before a batch was written. A read is
 * cancelled when all its callers have left.
 */
export type SharedReads = <Query, Answer>(
  name: string,
  range: TimeRange,
  query: Query,
  read: (range: TimeRange, query: Query, signal: AbortSignal) => Promise<Answer>,
  signal?: AbortSignal,
) => Promise<Answer>;

/** Maximum age of a read that can be joined, in milliseconds. After that its answer is released. */
const maxAgeMs = 200;
/** Maximum number of reads that can be joined. Beyond it the oldest are evicted. */
const readsMax = 100;

/** Creates the single flight of one store. */
export function createSharedReads(
  changes: StoreChanges | undefined,
  { clock = () => performance.now() } = {},
): SharedReads {
  const started = new Map<
    string,
    { readonly range: TimeRange; readonly atMs: number; readonly read: CoalescedRead<unknown> }
  >();
  changes?.listen(() => {
    started.clear();
  });
  changes?.listenForExchange(() => {
    started.clear();
  });
  return async <Query, Answer>(
    name: string,
    range: TimeRange,
    query: Query,
    read: (range: TimeRange, query: Query, signal: AbortSignal) => Promise<Answer>,
    signal?: AbortSignal,
  ): Promise<Answer> => {
    const key = JSON.stringify([name, query]);
    const known = started.get(key);
    const isNear =
      known !== undefined &&
      !known.read.isCancelled &&
      clock() - known.atMs <= maxAgeMs &&
      (['fromMs', 'toMs'] as const).every(
        (end) => range[end] >= known.range[end] && range[end] - known.range[end] <= maxAgeMs,
      );
    if (isNear) return await (known.read as CoalescedRead<Answer>).join(signal);
    const own = { range, atMs: clock(), read: new CoalescedRead<Answer>((cancelled) => read(range, query, cancelled)) };
    const remove = (): void => {
      if (started.get(key) === own) started.delete(key);
    };
    started.delete(key);
    started.set(key, own);
    setTimeout(remove, maxAgeMs).unref();
    for (const oldest of started.keys()) if (started.size > readsMax) started.delete(oldest);
    try {
      return await own.read.join(signal);
    } catch (error) {
      remove();
      throw error;
    }
  };
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
