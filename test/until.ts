import { setTimeout as sleep } from 'node:timers/promises';

/** Resolves when the condition gives something other than `false` or `undefined`; rejects when it does not in time. */
export async function until<Value>(
  what: string,
  condition: () => Promise<Value> | Value,
  { waitMsMax = 30_000, pollMs = 20 } = {},
): Promise<Exclude<Value, false | undefined>> {
  const endMs = performance.now() + waitMsMax;
  for (;;) {
    const value = await condition();
    if (value !== false && value !== undefined) return value as Exclude<Value, false | undefined>;
    if (performance.now() > endMs) throw new Error(`Waited ${waitMsMax} ms, and it did not happen that ${what}.`);
    await sleep(pollMs);
  }
}
