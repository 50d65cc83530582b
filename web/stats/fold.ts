/** Computes figures from rollup rows. Pure, and independent of the store. */
import type { Cell, RollupRow } from '../../shared/rollup/rollup.js';
import { groupBy } from '../../shared/group-by.js';
import { addSums, sumOfCells, withWindow, type Figures, type Sum, type WindowFigures } from './figures.js';
import { pairsOf, type Pair } from './pair.js';
import type { SourceDigest, WindowDigest } from './window-digest.js';
import { caddySource, dashboardSource } from '../../shared/request-event.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';

/** The figures of a range. */
export interface Fold {
  /** By time, then by source. Windows without requests are omitted: they are gaps, not zeros. */
  readonly windows: readonly WindowFigures[];
  /** By source: Caddy first, then by name, the dashboard last. */
  readonly sources: ReadonlyMap<string, Figures>;
  /**
   * Hosts of the first source only, because requests through both Caddy and an app would count twice. Empty for rows of
   * scope `all`.
   */
  readonly hosts: HostList;
  /** Methods of the first source, most requests first. */
  readonly methods: ReadonlyMap<string, Figures>;
  readonly pairs: readonly Pair[];
}

/** The hosts of a source. */
export interface HostList {
  /** Number of hosts, including those without figures. */
  readonly count: number;
  /** Requests and errors of all of them. */
  readonly requests: number;
  readonly errors: number;
  /** The host with the most errors, if any. */
  readonly worst: HostErrors | undefined;
  /** Figures of the busiest hosts, most requests first. */
  readonly figures: ReadonlyMap<string, Figures>;
}

interface HostErrors {
  readonly host: string;
  readonly errors: number;
}

/** Windows of length `stepMs`, starting at `fromMs`. */
export interface Grid {
  readonly fromMs: number;
  readonly stepMs: number;
}

/** Computes the digest of the rows of one window. `rows` must not be empty. */
export function digestOf(rows: readonly RollupRow[]): WindowDigest {
  const { windowMs } = rows[0]!;
  return digestWith(
    windowMs,
    [...groupBy(rows, ({ source }) => source)].map(([source, ofSource]) => {
      const cells = ofSource.flatMap((row) => row.cells);
      const ofHosts = ofSource.filter(({ host }) => host !== undefined);
      return [
        source,
        {
          all: sumOfCells(cells),
          hosts: sumsBy(
            ofHosts,
            ({ host }) => host!,
            (some) => some.flatMap((row) => row.cells),
          ),
          methods: sumsBy(
            cells,
            ({ method }) => method,
            (some) => some,
          ),
        },
      ];
    }),
  );
}

/** Number of sums in a digest. Each has a histogram, usually of at most 3 kB. */
export function sumsIn({ sources }: WindowDigest): number {
  return [...sources.values()].reduce((count, { hosts, methods }) => count + 1 + hosts.size + methods.size, 0);
}

/** Returns the figures without those of a source. */
export function withoutSource<Part extends Fold>(part: Part, source: string): Part {
  const sources = new Map([...part.sources].filter(([name]) => name !== source));
  const isFirst = part.sources.keys().next().value === source;
  return {
    ...part,
    sources,
    windows: part.windows.filter((window) => window.source !== source),
    pairs: part.pairs.filter(({ app }) => app !== source),
    ...(isFirst && { hosts: hostListOf([], new Map()), methods: new Map() }),
  };
}

/** Creates the host list of one source. `figures` may omit hosts. */
export function hostListOf(
  hosts: readonly (HostErrors & Pick<Figures, 'requests'>)[],
  figures: ReadonlyMap<string, Figures>,
): HostList {
  const list = { count: 0, requests: 0, errors: 0, worst: undefined as HostErrors | undefined, figures };
  for (const { host, requests, errors } of hosts) {
    list.count += 1;
    list.requests += requests;
    list.errors += errors;
    if (errors > (list.worst?.errors ?? 0)) list.worst = { host, errors };
  }
  return list;
}

/** Aggregates rows by window and source, and by source. */
export function fold(rows: readonly RollupRow[], grid: Grid): Fold {
  const byWindow = [...groupBy(rows, ({ windowMs }) => windowMs)].sort(([a], [b]) => a - b);
  return foldWindows(
    byWindow.map(([, ofWindow]) => digestOf(ofWindow)),
    grid,
  );
}

/** The windows of a grid, and their total. */
export interface FoldedRange {
  readonly windows: readonly WindowDigest[];
  readonly total: WindowDigest;
}

/** Returns the cached range of these digests, or calls `make`. */
type FoldedRangeCache = (digests: readonly WindowDigest[], make: () => FoldedRange) => FoldedRange;

/** Number of windows at the end of a grid that change between pages. */
const changingMax = 2;

/**
 * Aggregates digests into the windows of a grid. They must be ascending and not longer than the grid's windows.
 * `cacheOlder` may cache all but the newest windows.
 */
export function foldWindows(
  digests: readonly WindowDigest[],
  { fromMs, stepMs }: Grid,
  cacheOlder: FoldedRangeCache = (_, make) => make(),
): Fold {
  const windowOf = ({ windowMs }: WindowDigest): number => fromMs + Math.floor((windowMs - fromMs) / stepMs) * stepMs;
  const foldRange = (some: readonly WindowDigest[]): FoldedRange => {
    const windows = [...groupBy(some, windowOf)].map(([windowMs, together]) => merged(windowMs, together));
    return { windows, total: merged(fromMs, windows) };
  };
  const last = digests.at(-1);
  const changing =
    last === undefined ? [] : digests.filter((digest) => windowOf(digest) > windowOf(last) - changingMax * stepMs);
  const steady = digests.slice(0, digests.length - changing.length);
  const older = cacheOlder(steady, () => foldRange(steady));
  const newest = foldRange(changing);
  const windows = [...older.windows, ...newest.windows];
  const total = merged(fromMs, [older.total, newest.total]);
  const first = [...total.sources.values()].find(({ all }) => hasRequests(all));
  const hosts = ranked(first?.hosts);
  return {
    windows: windows.flatMap(({ sources }) => [...sources.values()].map(({ all }) => all)).filter(hasRequests),
    sources: new Map(
      [...total.sources].map(([source, { all }]) => [source, all] as const).filter(([, all]) => hasRequests(all)),
    ),
    hosts: hostListOf(
      [...hosts].map(([host, { requests, errors }]) => ({ host, requests, errors })),
      hosts,
    ),
    methods: ranked(first?.methods),
    pairs: pairsOf(windows, total),
  };
}

/** Whether any request remains. Corrections can cancel all requests of a window, source, host or method. */
function hasRequests({ requests }: Figures): boolean {
  return requests > 0;
}

/** Merges the digests of several windows into one. */
export function merged(windowMs: number, digests: readonly WindowDigest[]): WindowDigest {
  const [first, ...others] = digests;
  if (first?.windowMs === windowMs && others.length === 0) return first;
  return digestWith(
    windowMs,
    [...together(digests.map(({ sources }) => sources))].map(([source, parts]) => [
      source,
      {
        all: addSums(parts.map(({ all }) => all)),
        hosts: sumsOf(parts.map(({ hosts }) => hosts)),
        methods: sumsOf(parts.map(({ methods }) => methods)),
      },
    ]),
  );
}

function digestWith(
  windowMs: number,
  sources: readonly (readonly [string, Omit<SourceDigest, 'all'> & { readonly all: Sum }])[],
): WindowDigest {
  return {
    windowMs,
    sources: new Map(
      sources
        .toSorted(([a], [b]) => compareSources(a, b))
        .map(([source, digest]) => [source, { ...digest, all: withWindow(digest.all, windowMs, source) }]),
    ),
  };
}

/** Groups the values of several maps by key. */
function together<Value>(maps: readonly ReadonlyMap<string, Value>[]): Map<string, Value[]> {
  const parts = groupBy(
    maps.flatMap((map) => [...map]),
    ([key]) => key,
  );
  return new Map([...parts].map(([key, entries]) => [key, entries.map(([, value]) => value)]));
}

/** Number of sampled requests, `kept`, of all counted requests, `of`. See `request-sample.ts`. */
export interface Sampled {
  readonly kept: number;
  readonly of: number;
}

/** Returns how many requests of some windows are sampled; `undefined` if all are stored. */
export function sampledIn(digests: readonly WindowDigest[]): Sampled | undefined {
  const all = digests.flatMap(({ sources }) => [...sources.values()]);
  const of = all.reduce((sum, source) => sum + source.all.requests, 0);
  const sampledOut = Math.min(
    of,
    all.reduce((sum, source) => sum + source.all.net.sampledOut, 0),
  );
  return sampledOut <= 0 ? undefined : { kept: of - sampledOut, of };
}

/** Whether the figures include all requests: no lines lost or spooled, and no read truncated. */
export function isComplete(ledgers: readonly LedgerSnapshot[], { bounded }: { bounded: boolean }): boolean {
  return (
    !bounded &&
    ledgers.every(
      (ledger) =>
        sumOf(ledger.dropped) === 0 &&
        ledger.deadLettered === 0 &&
        ledger.spooled === 0 &&
        !ledger.warnings['datagrams-lost'] &&
        !ledger.warnings['earlier-spooled'],
    )
  );
}

/** The sum of counts by reason. */
export function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

function sumsBy<Item>(
  items: readonly Item[],
  keyOf: (item: Item) => string,
  cellsOf: (items: readonly Item[]) => readonly Cell[],
): Map<string, Sum> {
  return new Map([...groupBy(items, keyOf)].map(([value, ofValue]) => [value, sumOfCells(cellsOf(ofValue))]));
}

function sumsOf(maps: readonly ReadonlyMap<string, Sum>[]): Map<string, Sum> {
  return new Map([...together(maps)].map(([value, parts]) => [value, addSums(parts)]));
}

/** Returns the sums by value, most requests first. */
export function ranked(sums: ReadonlyMap<string, Sum> = new Map()): Map<string, Sum> {
  return new Map(
    [...sums]
      .filter(([, sum]) => hasRequests(sum))
      .sort(([a, { requests: requestsA }], [b, { requests: requestsB }]) => requestsB - requestsA || (a < b ? -1 : 1)),
  );
}

function compareSources(a: string, b: string): number {
  return (
    Number(b === caddySource) - Number(a === caddySource) ||
    Number(a === dashboardSource) - Number(b === dashboardSource) ||
    (a < b ? -1 : a > b ? 1 : 0)
  );
}
