/**
 * A signal that aborts after `timeoutMs`, or with `other`. `AbortSignal.any` over `AbortSignal.timeout` can be collected as garbage
 * before it fires (Node 20), and a server that hangs would be waited for without end.
 */
export function deadline(timeoutMs: number, other: AbortSignal): AbortSignal {
  const controller = new AbortController();
  const onAbort = (): void => { controller.abort(other.reason); };
  setTimeout(() => {
    other.removeEventListener('abort', onAbort);
    controller.abort(new DOMException(`There was no answer within ${timeoutMs} ms.`, 'TimeoutError'));
  }, timeoutMs).unref();
  if (other.aborted) onAbort();
  else other.addEventListener('abort', onAbort, { once: true });
  return controller.signal;
}
