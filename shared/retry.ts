import { setTimeout as sleep } from 'node:timers/promises';

/** Maximum time to wait even if a store asks for longer, in milliseconds. */
export const retryAfterMsMax = 600_000;

/**
 * Delay after a number of consecutive failures, in milliseconds: exponential back-off with full jitter, at most 30 s
 * (Brooker, "Exponential Backoff And Jitter", AWS, 2015).
 */
export function backoffMs(failures: number): number {
  return Math.random() * Math.min(30_000, 250 * 2 ** Math.min(failures, 10));
}

/** Resolves after `durationMs`, or when `signal` is aborted. */
export async function pause(durationMs: number, signal: AbortSignal): Promise<void> {
  await sleep(durationMs, undefined, { signal }).catch(() => undefined); // rejects only when aborted
}
