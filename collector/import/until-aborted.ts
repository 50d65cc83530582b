/** Why a file was not read to its end. */
export const stoppedEarly = 'it was stopped before its end';

/** What comes until the signal, which does not wait for the next chunk. */
export async function* untilAborted(chunks: AsyncIterable<Buffer>, signal: AbortSignal): AsyncGenerator<Buffer> {
  // Not `Promise.race`: one promise for all races would hold on to the chunk of each.
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
    // A source that waits for its next chunk lets go of it only then.
    void source.return?.().catch(() => undefined);
  }
}
