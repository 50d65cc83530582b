/** From rollup rows to figures: pure, and the same for every store. */
import type { Cell, RollupRow } from '../../shared/rollup/rollup.js';
import { groupBy } from '../../shared/group-by.js';
import { addSums, sumOfCells, withWindow, type Figures, type Sum, type WindowFigures } from './figures.js';
import { pairsOf, type Pair } from './pair.js';
import { caddySource, dashboardSource } from '../../shared/request-event.js';
import type { LedgerSnapshot } from '../../shared/store/store.js';

/** What a page shows of its rows. */
export interface Fold {
  /** By time, then by source. A window without requests of a source is left out: that is a gap, not a zero. */
  readonly windows: readonly WindowFigures[];
  /** By source: Caddy first, then by name, the dashboard itself last. */
  readonly sources: ReadonlyMap<string, Figures>;
  /**
   * Of the first source, since what passes through both edge and app would count twice. Empty if the rows were of scope
   * `all`.
   */
  readonly hosts: HostList;
  /** Of the first source, by requests, most first. */
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
  /** The host with most errors, if there were any. */
  readonly worst: HostErrors | undefined;
  /** Figures of the hosts with most requests, most first. */
  readonly figures: ReadonlyMap<string, Figures>;
}

interface HostErrors {
  readonly host: string;
  readonly errors: number;
}

/** The windows of a page: `stepMs` long, the first one starting at `fromMs`. */
export interface Grid {
  readonly fromMs: number;
  readonly stepMs: number;
}

/**
 * What a page needs of a window's rows: far fewer sums than rows, which add up with those of other windows. Several
 * windows together are one again.
 */
export interface WindowDigest {
  readonly windowMs: number;
  /** In the order of the page. */
  readonly sources: ReadonlyMap<string, SourceDigest>;
}

interface SourceDigest {
  readonly all: Sum & WindowFigures;
  readonly hosts: ReadonlyMap<string, Sum>;
  readonly methods: ReadonlyMap<string, Sum>;
}

/** Makes the digest of the rows of one window, one at least. */
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

/** How many sums a digest holds: each has a histogram, of 3 kB at most as a rule. */
export function sumsIn({ sources }: WindowDigest): number {
  return [...sources.values()].reduce((count, { hosts, methods }) => count + 1 + hosts.size + methods.size, 0);
}

/** The same without a source. */
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

/** Makes the list of the hosts of one source. `figures` may lack some of them. */
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

/** Adds rows up, by window and source and by source. */
export function fold(rows: readonly RollupRow[], grid: Grid): Fold {
  const byWindow = [...groupBy(rows, ({ windowMs }) => windowMs)].sort(([a], [b]) => a - b);
  return foldWindows(
    byWindow.map(([, ofWindow]) => digestOf(ofWindow)),
    grid,
  );
}

/** Windows of a grid, and all of them together. */
export interface FoldedRange {
  readonly windows: readonly WindowDigest[];
  readonly total: WindowDigest;
}

/** Makes a stretch of windows, or has it from before. */
type MakeFoldedRange = (digests: readonly WindowDigest[], make: () => FoldedRange) => FoldedRange;

/** So many windows of the grid, the newest, change from page to page. */
const changingMax = 2;

/**
 * Adds windows up. They come in the order of time, and are as long as the grid's or shorter. `makeOlder` may remember
 * all but those that change.
 */
export function foldWindows(
  digests: readonly WindowDigest[],
  { fromMs, stepMs }: Grid,
  makeOlder: MakeFoldedRange = (_, make) => make(),
): Fold {
  const windowOf = ({ windowMs }: WindowDigest): number => fromMs + Math.floor((windowMs - fromMs) / stepMs) * stepMs;
  const stretchOf = (some: readonly WindowDigest[]): FoldedRange => {
    const windows = [...groupBy(some, windowOf)].map(([windowMs, together]) => merged(windowMs, together));
    return { windows, total: merged(fromMs, windows) };
  };
  const last = digests.at(-1);
  const changing =
    last === undefined ? [] : digests.filter((digest) => windowOf(digest) > windowOf(last) - changingMax * stepMs);
  const steady = digests.slice(0, digests.length - changing.length);
  const older = makeOlder(steady, () => stretchOf(steady));
  const newest = stretchOf(changing);
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

/**
 * Whether any request is left. Corrections can take away all that was counted: nothing is shown of such a window,
 * source, host or method.
 */
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

/** What several maps have under each key. */
function together<Value>(maps: readonly ReadonlyMap<string, Value>[]): Map<string, Value[]> {
  const parts = groupBy(
    maps.flatMap((map) => [...map]),
    ([key]) => key,
  );
  return new Map([...parts].map(([key, entries]) => [key, entries.map(([, value]) => value)]));
}

/** How many of the requests that are counted are kept one by one, where not all are: see `request-sample.ts`. */
export interface Sampled {
  readonly kept: number;
  readonly of: number;
}

/** What is kept of the requests of some windows; `undefined` where all are. */
export function sampledIn(digests: readonly WindowDigest[]): Sampled | undefined {
  const all = digests.flatMap(({ sources }) => [...sources.values()]);
  const of = all.reduce((sum, source) => sum + source.all.requests, 0);
  const sampledOut = Math.min(
    of,
    all.reduce((sum, source) => sum + source.all.net.sampledOut, 0),
  );
  return sampledOut <= 0 ? undefined : { kept: of - sampledOut, of };
}

/**
 * Whether the figures hold all requests: no line was lost, none is still on its way, and no read stopped at its limit.
 */
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

/** The sums by value, most requests first. */
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
