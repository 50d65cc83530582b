/** What only the edge and an app together can tell: pure. */
import { groupBy } from '../../shared/group-by.js';
import { caddySource } from '../../shared/request-event.js';
import type { HostCounts } from '../../shared/store/store.js';
import { addSums, type Sum } from './figures.js';
import type { WindowDigest } from './fold.js';

/** An app beside the edge. Latencies and errors are of the hosts that both have seen. */
export interface PairFigures {
  /**
   * Mean latency at the edge less that in the app, in milliseconds: the time outside the app. Percentiles have no such
   * difference. `null` without latencies, and if the two have not served the same requests: the app's mean is the
   * greater one, or it had requests that bypassed the edge.
   */
  readonly proxyOverheadMeanMs: number | null;
  /** 5xx at the edge beyond those of the app: it never produced them. */
  readonly edgeOnlyErrors: number;
  /** Requests of the app beyond those at the edge, on any host: they did not come through it. */
  readonly bypassedEdge: number;
}

/** The same in one window, by its start in milliseconds since 1970. */
export interface PairWindow extends PairFigures {
  readonly timeMs: number;
}

/** An app over the whole range, and by window, ascending. */
export interface Pair extends PairFigures {
  readonly app: string;
  readonly windows: readonly PairWindow[];
}

/** One pair for each app that has a host in common with the edge. `total` is all windows together. */
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
          windows: windows.flatMap((window) => knownFiguresOf(window, app, hosts, key) ?? []),
        },
      ];
    });
}

/**
 * What was found of a window the last time, by app: it stays so as long as edge and app have the same hosts in common.
 */
const known = new WeakMap<WindowDigest, Map<string, Known>>();

interface Known {
  readonly hosts: string;
  readonly figures: PairWindow | undefined;
}

/** `key` stands for the hosts. */
function knownFiguresOf(
  window: WindowDigest,
  app: string,
  hosts: readonly string[],
  key: string,
): PairWindow | undefined {
  let ofApps = known.get(window);
  if (ofApps === undefined) known.set(window, (ofApps = new Map<string, Known>()));
  let found = ofApps.get(app);
  if (found?.hosts !== key) {
    const figures = figuresOf(window, app, hosts);
    ofApps.set(app, (found = { hosts: key, figures: figures && { timeMs: window.windowMs, ...figures } }));
  }
  return found.figures;
}

/** `undefined` where neither has seen a request that matters. */
function figuresOf({ sources }: WindowDigest, app: string, hosts: readonly string[]): PairFigures | undefined {
  const [edge, inside] = [caddySource, app].map((source) =>
    byHost(sources.get(source)?.hosts ?? new Map<string, Sum>()),
  ) as [Map<string, Sum[]>, Map<string, Sum[]>];
  const ofHosts = (by: ReadonlyMap<string, readonly Sum[]>): Sum[] => hosts.flatMap((host) => by.get(host) ?? []);
  const shared = ofHosts(edge);
  if (shared.length === 0 && inside.size === 0) return undefined;
  // Host by host, so that traffic of one host through the edge does not hide what bypassed it on another.
  const requestsOf = (sums: readonly Sum[] = []): number => sums.reduce((all, { requests }) => all + requests, 0);
  const bypassedEdgeOn = (host: string): number =>
    Math.max(0, requestsOf(inside.get(host)) - requestsOf(edge.get(host)));
  const bypassedEdge = [...inside.keys()].reduce((all, host) => all + bypassedEdgeOn(host), 0);
  // Requests that bypassed the edge are in the app's mean, and not in the edge's.
  const isBypassed = hosts.some((host) => bypassedEdgeOn(host) > 0);
  return compare(addSums(shared), addSums(ofHosts(inside)), { bypassedEdge, isBypassed });
}

/**
 * The hosts that `pairsOf` needs, busiest first: all hosts of apps that share one with the edge, and the edge's hosts
 * of the same names. Returns at most `hostsMax` names, each with all its ports: without its requests at the edge, a
 * host would seem to bypass it.
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

/** A host without its port, which the app may see and the edge not. */
function pairedHost(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, '');
}

function byHost(hosts: ReadonlyMap<string, Sum>): Map<string, Sum[]> {
  const groups = groupBy(hosts, ([host]) => pairedHost(host));
  return new Map([...groups].map(([host, entries]) => [host, entries.map(([, sum]) => sum)]));
}

/** Of the hosts that both have seen. */
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
