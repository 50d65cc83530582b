import { StoreError } from '../../shared/errors.js';

/** Why a file was not read to its end. */
export const stoppedEarly = 'it was stopped before its end';

/** Yields chunks until the signal, without waiting for the next chunk then. */
export async function* untilAborted(chunks: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  // Not `Promise.race`: its long-lived promise would retain every chunk.
  let stop = (): void => undefined;
  const onAbort = (): void => {
    stop();
  };
  signal.addEventListener('abort', onAbort);
  const source = chunks[Symbol.asyncIterator]();
  try {
    while (!signal.aborted) {
      const next = await new Promise<IteratorResult<Buffer> | undefined>((resolve, reject) => {
        stop = () => {
          resolve(undefined);
        };
        source.next().then(resolve, reject);
      });
      if (next === undefined || next.done === true) return;
      yield next.value;
    }
  } finally {
    signal.removeEventListener('abort', onAbort);
    // A source that waits for its next chunk returns only after that.
    void source.return?.().catch(() => undefined);
  }
}

/**
 * Resolves to the result of a promise, or to `undefined` if it takes longer than `limitMs` after the import was
 * stopped.
 */
export async function beforeStopLimit<Result>(
  running: Promise<Result>,
  signal: AbortSignal,
  limitMs: number,
): Promise<Result | undefined> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort = (): void => undefined;
  const limit = new Promise<undefined>((resolve) => {
    onAbort = () => {
      timer = setTimeout(() => {
        resolve(undefined);
      }, limitMs);
    };
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([running, limit]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

/** Gives a stopped import a limited time to finish: its recorder retries for as long as the store is down. */
export class StopDeadline {
  readonly #signal: AbortSignal;
  readonly #limitMs: number;
  readonly #problem: () => string | undefined;
  readonly #passed = new AbortController();
  #timer: NodeJS.Timeout | undefined;

  /** `limitMs`: maximum time after `signal`, in milliseconds. `problem`: why the store has not finished, if known. */
  constructor(
    signal: AbortSignal,
    { limitMs, problem }: { readonly limitMs: number; readonly problem: () => string | undefined },
  ) {
    this.#signal = signal;
    this.#limitMs = limitMs;
    this.#problem = problem;
    signal.addEventListener('abort', this.#onAbort);
    if (signal.aborted) this.#onAbort();
  }

  /** Waits for the store. Rejects with a `StoreError` once the deadline has passed. */
  wait<Result>(waiting: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const giveUp = (): void => {
        reject(
          new StoreError(
            'stop',
            `The import was stopped, and the store did not finish within ${this.#limitMs / 1000} s: ${this.#problem() ?? 'it is busy'}`,
          ),
        );
      };
      const { signal } = this.#passed;
      signal.addEventListener('abort', giveUp);
      if (signal.aborted) giveUp();
      void waiting.then(resolve, reject).finally(() => {
        signal.removeEventListener('abort', giveUp);
      });
    });
  }

  /** Ends the watch over the signal. Call it when the import has ended. */
  clear(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    clearTimeout(this.#timer);
  }

  readonly #onAbort = (): void => {
    this.#timer ??= setTimeout(() => {
      this.#passed.abort();
    }, this.#limitMs);
  };
}
