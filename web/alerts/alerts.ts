/** Evaluates health periodically, and posts alerts in the background. */
import { detailedMessageOf } from '../../shared/errors.js';
import { groupBy } from '../../shared/group-by.js';
import { rateLimitedWarn, type Log } from '../../shared/log.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';
import { collectionFindings, isNothingStored, type Collection, type CollectionFinding } from '../stats/collection.js';
import type { WindowFigures } from '../stats/figures.js';
import type { Fold } from '../stats/fold.js';
import { findingsOf, type RecentWindows } from '../stats/health.js';
import { dashboardSource } from '../../shared/request-event.js';
import { Delivery, type DeliveryOptions } from './deliver.js';
import { alertMessage } from './message.js';
import { Watch, type Observation, type WatchOptions } from './watch.js';

/** What alerts evaluate: the same as the default page. */
export interface EvaluatedTraffic {
  /** The windows of the last hour, ascending by time. */
  readonly windows: readonly WindowFigures[];
  /** Length of these windows, in milliseconds. */
  readonly stepMs: number;
  /** The previous hour; `undefined` if there is no data of all of it. */
  readonly previous: Pick<Fold, 'sources'> | undefined;
  /** The last hours in fine windows, and the state of the store and the collectors. */
  readonly recent: RecentWindows & Collection & { readonly ownSinceMs: number };
}

/** Options of `startAlerts`. */
export interface AlertOptions extends DeliveryOptions, Pick<WatchOptions, 'fireAfterMs' | 'resolveAfterMs'> {
  /** Reads what to evaluate, as of a time in milliseconds since 1970. May throw a `StoreError`. */
  readonly readTraffic: (nowMs: number) => Promise<EvaluatedTraffic>;
  readonly log: Log;
  readonly dashboardUrl: string;
  /** The clock, in milliseconds since 1970. Default: `Date.now`. */
  readonly now?: () => number;
  /** Interval between reads of the store, in milliseconds. Default: 5,000. */
  readonly everyMs?: number;
}

/** `source` of alerts about the store. */
const storeName = 'store';

/** Starts watching the same as the default page: the last hour, compared with the previous one, and the collectors. */
export function startAlerts(options: AlertOptions): { stop(): void } {
  const { readTraffic, log, dashboardUrl, now = Date.now, everyMs = 5000 } = options;
  const watch = new Watch(options);
  const collectionWatch = new Watch(options); // a collector may have the name of a source
  const delivery = new Delivery(options);
  const warn = rateLimitedWarn(log.warn);
  let checking: Promise<void> | undefined;
  const timer = setInterval(() => {
    checking ??= check().finally(() => {
      checking = undefined;
    });
  }, everyMs);

  return {
    stop() {
      clearInterval(timer);
      delivery.stop();
    },
  };

  async function check(): Promise<void> {
    try {
      const nowMs = now();
      const { sources, collection } = observe(await readTraffic(nowMs), nowMs);
      const monotonicMs = performance.now();
      for (const change of [
        ...collectionWatch.observe(collection, monotonicMs),
        ...watch.observe(sources, monotonicMs),
      ]) {
        const message = alertMessage(change, { dashboardUrl, nowMs: now() });
        log.info(message.text);
        delivery.send(message);
      }
    } catch (error) {
      warn('unread', `Cannot evaluate alerts: ${detailedMessageOf(error)}`);
    }
  }
}

function observe(
  { windows, stepMs, previous, recent }: EvaluatedTraffic,
  nowMs: number,
): { sources: Observation[]; collection: Observation[] } {
  const collectionFound = collectionFindings(recent, nowMs);
  // While nothing is stored, missing requests do not mean that a source is silent.
  const liveMs = isNothingStored(collectionFound) ? undefined : nowMs;
  const [ofRange, ofRecent] = [windows, recent.windows].map((some) => groupBy(some, ({ source }) => source)) as [
    Map<string, WindowFigures[]>,
    Map<string, WindowFigures[]>,
  ];
  const sources = [...new Set([...ofRange.keys(), ...ofRecent.keys()])]
    .filter((source) => source !== dashboardSource)
    .map((source) => {
      const own = ofRange.get(source) ?? [];
      const last = { windows: ofRecent.get(source) ?? [], stepMs: recent.stepMs };
      const findings = findingsOf(own, {
        stepMs,
        previous: previous?.sources.get(source),
        liveMs,
        recent: last,
        ownSinceMs: recent.ownSinceMs,
      });
      const endsMs = [{ windows: own, stepMs }, last].map(
        (view) => (view.windows.at(-1)?.timeMs ?? -Infinity) + view.stepMs,
      );
      return { source, findings, lastMs: Math.max(...endsMs) };
    });
  return { sources, collection: observeCollection(recent.ledgers, collectionFound, nowMs) };
}

/** Returns the observations of the store and of each collector, under their names. */
function observeCollection(
  ledgers: readonly LedgerSnapshot[],
  found: readonly CollectionFinding[],
  nowMs: number,
): Observation[] {
  const nameOf = (finding: CollectionFinding): string =>
    finding.kind === 'not-stored' ? storeName : finding.collector;
  return [storeName, ...ledgers.map(({ collector }) => collector)].map((source) => {
    const findings = found
      .filter((finding) => nameOf(finding) === source)
      .map((finding) => ({ ...finding, sinceMs: finding.sinceMs ?? nowMs }));
    return { source, findings, lastMs: nowMs };
  });
}
