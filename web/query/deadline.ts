/** Reads with a time limit, so that a store that hangs does not hold up a page. */
import { StoreError } from '../../shared/errors.js';
import type { Store } from '../../shared/store/store.js';

/** Timeout of a read, in milliseconds. */
const readMsMax = 10_000;

/** The part of a store that the error message names. */
type Named = Pick<Store, 'description'>;

/**
 * Runs a read. Cancels it after `readMsMax` or when `signal` is aborted. Throws a `StoreError` on timeout, and the
 * error of the read.
 */
export async function inTime<Answer>(
  store: Named,
  read: (until: AbortSignal) => Promise<Answer>,
  signal?: AbortSignal,
): Promise<Answer> {
  const cancelling = new AbortController();
  return await beforeDeadline(store, () => read(cancelling.signal), cancelling, signal);
}

/**
 * Runs a paged read, with a timeout for each page. The time that the consumer spends on a page does not count. Throws
 * as `inTime` does.
 */
export async function* pagesInTime<Row>(
  store: Named,
  read: (until: AbortSignal) => AsyncIterable<readonly Row[]>,
  signal?: AbortSignal,
): AsyncGenerator<readonly Row[]> {
  const cancelling = new AbortController();
  const pages = read(cancelling.signal)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await beforeDeadline(store, () => pages.next(), cancelling, signal);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    void Promise.resolve(pages.return?.()).catch(() => undefined);
  }
}

/**
 * Resolves to the result of `read`. Aborts `cancelling` when `signal` is aborted or after `readMsMax`; on timeout
 * throws a `StoreError` immediately.
 */
async function beforeDeadline<Answer>(
  store: Named,
  read: () => Promise<Answer>,
  cancelling: AbortController,
  signal: AbortSignal | undefined,
): Promise<Answer> {
  const cancel = (): void => {
    cancelling.abort();
  };
  if (signal?.aborted === true) cancel();
  else signal?.addEventListener('abort', cancel, { once: true });
  let timer: NodeJS.Timeout | undefined;
  try {
    // `Promise.race` with one promise for all pages would retain every page.
    return await new Promise<Answer>((resolve, reject) => {
      timer = setTimeout(() => {
        reject(
          new StoreError(
            'retry',
            `Cannot read ${store.description}: no answer within ${readMsMax / 1000} s. Check that it is running and not overloaded, or ask for a shorter range.`,
          ),
        );
        cancel();
      }, readMsMax);
      read().then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', cancel);
  }
}
