import type { Recorder } from '../shared/record/recorder.js';
import type { Traffic } from './traffic.js';

const dayS = 86_400;
/** Number of requests to record before waiting for the store. */
const unwrittenMax = 20_000;

/** Options of `seedDay`. */
export interface SeedOptions {
  /** Aborts it. */
  readonly signal?: AbortSignal;
  /** Called with the stored share of the day, in increasing whole percent, and with 100 at the end. */
  readonly onPercent?: (percent: number) => void;
}

/**
 * Records the day before the start, from both Caddy and the app. Resolves to the number of requests. Throws the
 * signal's reason soon after it is aborted.
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
        if (!recorder.record(event)) throw new Error('The recorder is full: raise its memory limit.');
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
