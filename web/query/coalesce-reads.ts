/** Reads whose answers are not kept: viewers who come at about the same time share one. */
import type { StoreChanges } from '../../shared/store/changes.js';
import type { TimeRange } from '../../shared/store/store.js';

/**
 * Makes a read, or takes part in one of the same name and query that was started a moment ago; its range may be as much
 * as that moment older. Where the store tells of its changes, one that a batch has overtaken is made anew. The read is
 * cancelled when all who wait for it have gone.
 */
export type SharedReads = <Query, Answer>(
  name: string,
  range: TimeRange,
  query: Query,
  read: (range: TimeRange, query: Query, signal: AbortSignal) => Promise<Answer>,
  signal?: AbortSignal,
) => Promise<Answer>;

/** How long ago the read may have been started, in milliseconds. Its answer is let go after that. */
const momentMs = 200;
/** Reads that are remembered; those that were started first go first. */
const readsMax = 100;

/** Makes the reads of one store. */
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
      clock() - known.atMs <= momentMs &&
      (['fromMs', 'toMs'] as const).every(
        (end) => range[end] >= known.range[end] && range[end] - known.range[end] <= momentMs,
      );
    if (isNear) return await (known.read as CoalescedRead<Answer>).join(signal);
    const own = { range, atMs: clock(), read: new CoalescedRead<Answer>((cancelled) => read(range, query, cancelled)) };
    const forget = (): void => {
      if (started.get(key) === own) started.delete(key);
    };
    started.delete(key);
    started.set(key, own);
    setTimeout(forget, momentMs).unref();
    for (const oldest of started.keys()) if (started.size > readsMax) started.delete(oldest);
    try {
      return await own.read.join(signal);
    } catch (error) {
      forget();
      throw error;
    }
  };
}

/** A read that several callers wait for. It is cancelled when the last of them has gone. */
export class CoalescedRead<Answer> {
  readonly #cancelling = new AbortController();
  readonly #answer: Promise<Answer>;
  #waiting = 0;

  constructor(read: (cancelled: AbortSignal) => Promise<Answer>) {
    this.#answer = read(this.#cancelling.signal);
    this.#answer.catch(() => undefined); // whoever waits for it gets the error
  }

  get isCancelled(): boolean {
    return this.#cancelling.signal.aborted;
  }

  /** Waits for the answer. A caller whose `signal` is aborted has gone; one without a signal stays. */
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
