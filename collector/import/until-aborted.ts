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
