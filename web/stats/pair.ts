/** Compares Caddy with the apps behind it. Pure. */
import { groupBy } from '../../shared/group-by.js';
import { caddySource } from '../../shared/request-event.js';
import type { HostCounts } from '../../shared/store/store.js';
import { addSums, type Sum } from './figures.js';
import type { WindowDigest } from './window-digest.js';

/** Caddy compared with an app. Latencies and errors are of their common hosts. */
export interface PairFigures {
  /**
   * Mean latency at Caddy minus mean latency in the app, in milliseconds. `null` without latencies, or if the two did
   * not serve the same requests: the app's mean is greater, or requests bypassed Caddy.
   */
  readonly proxyOverheadMeanMs: number | null;
  /** 5xx of Caddy in excess of the app's: Caddy generated them. */
  readonly edgeOnlyErrors: number;
  /** Requests of the app in excess of Caddy's, on any host: they bypassed Caddy. */
  readonly bypassedEdge: number;
}

/** The comparison in one window. */
export interface PairWindow extends PairFigures {
  /** Start of the window, in milliseconds since 1970. */
  readonly timeMs: number;
}

/** The comparison with an app over the whole range, and by window. */
export interface Pair extends PairFigures {
  readonly app: string;
  /** Ascending. */
  readonly windows: readonly PairWindow[];
}

/** Returns a pair for each app that has a host in common with Caddy. `total` is the sum of all windows. */
export function pairsOf(windows: readonly WindowDigest[], total: WindowDigest): Pair[] {
  const edge = total.sources.get(caddySource);
  if (edge === undefined) return [];
  const edgeHosts = byHost(edge.hosts);
  return [...total.sources]
    .filter(([source]) => source !== caddySource)
    .flatMap(([app, { hosts: appHosts }]) => {
      const hosts = [...byHost(appHosts).keys()].filter((host) => edgeHosts.has(host)).sort();
      if (hosts.length === 0) return [];
      const key = hosts.join('\n');
      return [
        {
          app,
          ...figuresOf(total, app, hosts)!,
          windows: windows.flatMap((window) => cachedFiguresOf(window, app, hosts, key) ?? []),
        },
      ];
    });
}

/** Cache of the figures of a window, by app. Valid as long as Caddy and the app have the same common hosts. */
const cache = new WeakMap<WindowDigest, Map<string, CachedFigures>>();

interface CachedFigures {
  readonly hosts: string;
  readonly figures: PairWindow | undefined;
}

/** `key` identifies the hosts. */
function cachedFiguresOf(
  window: WindowDigest,
  app: string,
  hosts: readonly string[],
  key: string,
): PairWindow | undefined {
  let ofApps = cache.get(window);
  if (ofApps === undefined) cache.set(window, (ofApps = new Map<string, CachedFigures>()));
  let found = ofApps.get(app);
  if (found?.hosts !== key) {
    const figures = figuresOf(window, app, hosts);
    ofApps.set(app, (found = { hosts: key, figures: figures && { timeMs: window.windowMs, ...figures } }));
  }
  return found.figures;
}

/** `undefined` if neither has relevant requests. */
function figuresOf({ sources }: WindowDigest, app: string, hosts: readonly string[]): PairFigures | undefined {
  const [edge, inside] = [caddySource, app].map((source) =>
    byHost(sources.get(source)?.hosts ?? new Map<string, Sum>()),
  ) as [Map<string, Sum[]>, Map<string, Sum[]>];
  const ofHosts = (by: ReadonlyMap<string, readonly Sum[]>): Sum[] => hosts.flatMap((host) => by.get(host) ?? []);
  const shared = ofHosts(edge);
  if (shared.length === 0 && inside.size === 0) return undefined;
  // By host, so that traffic of one host through Caddy does not hide requests that bypassed it on another.
  const requestsOf = (sums: readonly Sum[] = []): number => sums.reduce((all, { requests }) => all + requests, 0);
  const bypassedEdgeOn = (host: string): number =>
    Math.max(0, requestsOf(inside.get(host)) - requestsOf(edge.get(host)));
  const bypassedEdge = [...inside.keys()].reduce((all, host) => all + bypassedEdgeOn(host), 0);
  // The app's mean includes requests that bypassed Caddy; Caddy's does not.
  const isBypassed = hosts.some((host) => bypassedEdgeOn(host) > 0);
  return compare(addSums(shared), addSums(ofHosts(inside)), { bypassedEdge, isBypassed });
}

/**
 * Returns the hosts that `pairsOf` needs, busiest first: all hosts of apps that have one in common with Caddy, and
 * Caddy's hosts of the same names. At most `hostsMax` names, each with all its ports.
 */
export function pairedHosts(
  counts: readonly Pick<HostCounts, 'source' | 'host' | 'requests'>[],
  hostsMax = Infinity,
): string[] {
  const [atEdge, ofApps] = [
    counts.filter(({ source }) => source === caddySource),
    counts.filter(({ source }) => source !== caddySource),
  ];
  const edgeHosts = new Set(atEdge.map(({ host }) => pairedHost(host)));
  const apps = new Set(ofApps.filter(({ host }) => edgeHosts.has(pairedHost(host))).map(({ source }) => source));
  const inApps = ofApps.filter(({ source }) => apps.has(source));
  const appHosts = new Set(inApps.map(({ host }) => pairedHost(host)));
  const paired = [...inApps, ...atEdge.filter(({ host }) => appHosts.has(pairedHost(host)))].sort(
    (one, other) => other.requests - one.requests,
  );
  const busiest = new Set([...new Set(paired.map(({ host }) => pairedHost(host)))].slice(0, hostsMax));
  return [...new Set(paired.filter(({ host }) => busiest.has(pairedHost(host))).map(({ host }) => host))];
}

/** A host without its port, which only the app may see. */
function pairedHost(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, '');
}

function byHost(hosts: ReadonlyMap<string, Sum>): Map<string, Sum[]> {
  const groups = groupBy(hosts, ([host]) => pairedHost(host));
  return new Map([...groups].map(([host, entries]) => [host, entries.map(([, sum]) => sum)]));
}

/** Compares the sums of the common hosts. */
function compare(
  edge: Sum,
  app: Sum,
  { bypassedEdge, isBypassed }: { bypassedEdge: number; isBypassed: boolean },
): PairFigures {
  return {
    proxyOverheadMeanMs: isBypassed ? null : proxyOverheadOf(edge.latencyMs.mean, app.latencyMs.mean),
    edgeOnlyErrors: Math.max(0, edge.errors - app.errors),
    bypassedEdge,
  };
}

function proxyOverheadOf(edgeMs: number | null, appMs: number | null): number | null {
  return edgeMs === null || appMs === null || edgeMs < appMs ? null : edgeMs - appMs;
}
