/**
 * Returns a signal that aborts after `timeoutMs`, or with one of `others`. `AbortSignal.any` over
 * `AbortSignal.timeout` can be garbage-collected before it fires (Node 20), so that the wait for a hanging server
 * would never end.
 */
export function deadline(timeoutMs: number, ...others: readonly (AbortSignal | undefined)[]): AbortSignal {
  const controller = new AbortController();
  const signals = others.filter((signal) => signal !== undefined);
  const onAbort = (): void => {
    for (const signal of signals) signal.removeEventListener('abort', onAbort);
    controller.abort(signals.find(({ aborted }) => aborted)?.reason);
  };
  setTimeout(() => {
    for (const signal of signals) signal.removeEventListener('abort', onAbort);
    controller.abort(new DOMException(`There was no response within ${timeoutMs} ms.`, 'TimeoutError'));
  }, timeoutMs).unref();
  if (signals.some(({ aborted }) => aborted)) onAbort();
  else for (const signal of signals) signal.addEventListener('abort', onAbort, { once: true });
  return controller.signal;
}
