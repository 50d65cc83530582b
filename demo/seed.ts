import type { Recorder } from '../shared/record/recorder.js';
import type { Traffic } from './traffic.js';

const dayS = 86_400;
/** What is recorded before the store is waited for. */
const unwrittenMax = 20_000;

/** How the day is made up. */
export interface SeedOptions {
  /** Ends it. */
  readonly signal?: AbortSignal;
  /** Told now and then how much of the day is stored, in whole percent, each time more than before; at the end 100. */
  readonly onPercent?: (percent: number) => void;
}

/**
 * Records the day before the start, both what Caddy and what the app saw. Resolves to how many requests that were.
 * Throws the signal's reason soon after it is aborted.
 */
export async function seedDay(
  traffic: Traffic,
  recorder: Pick<Recorder, 'record' | 'flush'>,
  { signal, onPercent = () => undefined }: SeedOptions = {},
): Promise<number> {
  let recorded = 0;
  let unwritten = 0;
  for (let offsetS = -dayS; offsetS < 0; offsetS += 1) {
    for (const { edge, app } of traffic.requestsOf(offsetS)) {
      for (const event of app === undefined ? [edge] : [edge, app]) {
        if (!recorder.record(event)) throw new Error('The recorder is full: it has to be given more memory.');
        unwritten += 1;
      }
    }
    if (unwritten < unwrittenMax) continue;
    signal?.throwIfAborted();
    recorded += unwritten;
    unwritten = 0;
    await recorder.flush();
    onPercent(Math.floor(((dayS + offsetS) / dayS) * 100));
  }
  await recorder.flush();
  onPercent(100);
  return recorded + unwritten;
}
