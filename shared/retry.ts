import { setTimeout as sleep } from 'node:timers/promises';

/** However long a store asks to be left alone, it is asked again after ten minutes. In milliseconds. */
export const retryAfterMsMax = 600_000;

/**
 * How long to wait after a number of failures in a row, in milliseconds: exponential back-off with full jitter, 30 s at
 * most (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
 */
export function backoffMs(failures: number): number {
  return Math.random() * Math.min(30_000, 250 * 2 ** Math.min(failures, 10));
}

/** Resolves after a while, or as soon as `signal` is aborted. */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  await sleep(durationMs, undefined, { signal }).catch(() => undefined); // rejects only when aborted
}
