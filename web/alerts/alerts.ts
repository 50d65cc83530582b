/** Watches the store and posts alerts, beside everything else: it answers nobody, and nobody waits for it. */
import { messageOf } from '../../shared/errors.js';
import { limitLog, type Log } from '../../shared/log.js';
import { findingsOf } from '../dashboard/judge.js';
import { parseQuery } from '../dashboard/query.js';
import { readTraffic, type Reads } from '../dashboard/read.js';
import { createDelivery, type DeliveryOptions } from './deliver.js';
import { alertMessage } from './message.js';
import { createWatch, type Observation } from './watch.js';

/** What alerts are made from. */
export interface AlertOptions extends DeliveryOptions {
  readonly reads: Reads;
  readonly log: Log;
  readonly dashboardUrl: string;
  /** The clock, in milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
  /** How often the store is read, in milliseconds: 5 s. */
  readonly everyMs?: number;
  /** See `createWatch`. */
  readonly fireAfterMs?: number;
  readonly resolveAfterMs?: number;
}

/** Starts to watch what the page shows when it is opened: the last hour, compared with the one before. */
export function startAlerts(options: AlertOptions): { stop(): void } {
  const { reads, log, dashboardUrl, now = Date.now, everyMs = 5000 } = options;
  const watch = createWatch(options);
  const delivery = createDelivery(options);
  const warn = limitLog(log.warn);
  let looking: Promise<void> | undefined;
  const timer = setInterval(() => { looking ??= look().finally(() => { looking = undefined; }); }, everyMs);

  return {
    stop() {
      clearInterval(timer);
      delivery.stop();
    },
  };

  async function look(): Promise<void> {
    try {
      const observations = await observe(reads, now());
      for (const change of watch.observe(observations, now(), performance.now())) {
        const message = alertMessage(change, { dashboardUrl, nowMs: now() });
        log.info(message.text);
        delivery.send(message);
      }
    } catch (error) {
      warn('unread', `Alerts are not judged at present: ${messageOf(error)}`);
    }
  }
}

async function observe(reads: Reads, nowMs: number): Promise<Observation[]> {
  const { windows, sources, stepMs, previous } = await readTraffic(reads, parseQuery({}, nowMs), { nowMs, withPrevious: true });
  return [...sources.keys()].map((source) => {
    const own = windows.filter((window) => window.source === source);
    const findings = findingsOf(own, { stepMs, previous: previous?.sources.get(source), liveMs: nowMs });
    return { source, findings, lastMs: own.at(-1)!.timeMs + stepMs };
  });
}
