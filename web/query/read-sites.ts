/** Reads the sites: the hosts of each source, page by page. */
import { levelsOf, windowStart, type Level, type RollupRow } from '../../shared/rollup/rollup.js';
import { hostKey } from '../../shared/store/rollups-query.js';
import { needsRequests, type Filter, type HostCounts, type TimeRange } from '../../shared/store/store.js';
import { alignRange, coverRange, levelFor } from '../../shared/time-range.js';
import { CellSum, type Figures } from '../stats/figures.js';
import { refineOpen } from './host-counts.js';
import { hostParts } from './plan.js';
import { QueryError, type DashboardQuery } from './query.js';
import { readHostDigests, streamHostRows } from './read-hosts.js';
import type { Reads } from './reads.js';
import { sitesOfPage, type SitePage } from './sites.js';

/** One site with its figures. */
export interface Site {
  readonly source: string;
  readonly host: string;
  readonly figures: Figures;
  /** Requests per window of the range, ascending. */
  readonly spark: readonly number[];
  /**
   * The start of the last window with requests, in milliseconds since 1970: a minute, if it is one of the last ten, or
   * a longer window.
   */
  readonly lastWindowMs: number;
}

/** The figures of a site in one window. */
export interface SiteWindow {
  readonly timeMs: number;
  readonly source: string;
  readonly host: string;
  readonly figures: Figures;
}

/** Maximum number of windows in a sparkline. */
const sparkWindowsMax = 48;

/**
 * Reads a page of the sites of a range. Throws a `StoreError`, and a `QueryError` for a filter that rollups cannot
 * answer.
 */
export async function readSites(
  reads: Reads,
  query: DashboardQuery,
  page: SitePage,
  nowMs = Date.now(),
): Promise<{ sites: readonly Site[]; hasMore: boolean }> {
  const filter = rowsFilter(query.filter);
  const { sites, hasMore } = sitesOfPage(
    await reads.readHostCounts({ parts: hostParts(query, nowMs), filter }, nowMs),
    page,
  );
  const spark = sparkGrid(query, nowMs);
  const found = new Map(sites.map((site) => [hostKey(site.source, site.host), new SiteSum(site, spark)]));
  const parts = siteParts(query, spark.level, nowMs);
  for await (const row of streamHostRows(reads, { parts, filter, hosts: sites.map(({ host }) => host) }))
    found.get(hostKey(row.source, row.host!))?.add(row);
  return { sites: [...found.values()].flatMap((sum) => sum.site() ?? []), hasMore };
}

/**
 * Reads the windows of each site of a page, ascending by time. Throws a `StoreError`, and a `QueryError` for a filter
 * that rollups cannot answer.
 */
export async function readSiteWindows(
  reads: Reads,
  query: DashboardQuery,
  page: SitePage,
  nowMs = Date.now(),
): Promise<{ windows: readonly SiteWindow[]; last: HostCounts | undefined; hasMore: boolean }> {
  const filter = rowsFilter(query.filter);
  const { sites, hasMore } = sitesOfPage(
    await reads.readHostCounts({ parts: hostParts(query, nowMs), filter }, nowMs),
    page,
  );
  const level = levelFor(query, nowMs, 'host');
  const hosts = [...new Set(sites.map(({ host }) => host))];
  const digests =
    hosts.length === 0
      ? []
      : await readHostDigests(reads, {
          parts: [{ ...alignRange(query, level), level }],
          filter,
          hosts,
          byClass: false,
          nowMs,
        });
  const windows = digests.flatMap(({ windowMs, sources }) =>
    sites.flatMap(({ source, host }) => {
      const figures = sources.get(source)?.hosts.get(host);
      return figures === undefined ? [] : [{ timeMs: windowMs, source, host, figures }];
    }),
  );
  return { windows, last: sites.at(-1), hasMore };
}

interface SparkGrid extends TimeRange {
  readonly level: Level;
}

function sparkGrid(query: TimeRange, nowMs: number): SparkGrid {
  const finest = levelFor(query, nowMs, 'host');
  const level =
    levelsOf.host.find((each) => each >= finest && (query.toMs - query.fromMs) / (each * 1000) <= sparkWindowsMax) ??
    86_400;
  return { ...alignRange(query, level), level };
}

/**
 * Whole windows that cover the range, none longer than those of a sparkline. Open ones are split into finer windows, to
 * find the time of the last request.
 */
function siteParts(query: TimeRange, sparkLevel: Level, nowMs: number): (TimeRange & { readonly level: Level })[] {
  const finest = levelFor(query, nowMs, 'host');
  return refineOpen(
    coverRange(
      alignRange(query, finest),
      levelsOf.host.filter((level) => level >= finest && level <= sparkLevel),
    ),
    nowMs,
  );
}

/** Adds up the rows of one site. */
class SiteSum {
  readonly #name: Pick<Site, 'source' | 'host'>;
  readonly #grid: SparkGrid;
  readonly #sum = new CellSum();
  readonly #spark: number[];
  #lastWindowMs = -Infinity;

  constructor({ source, host }: Pick<Site, 'source' | 'host'>, grid: SparkGrid) {
    this.#name = { source, host };
    this.#grid = grid;
    this.#spark = Array.from({ length: (grid.toMs - grid.fromMs) / (grid.level * 1000) }, () => 0);
  }

  add({ windowMs, cells }: RollupRow): void {
    let requests = 0;
    for (const cell of cells) {
      this.#sum.add(cell);
      requests += cell.count;
    }
    this.#spark[(windowStart(windowMs, this.#grid.level) - this.#grid.fromMs) / (this.#grid.level * 1000)]! += requests;
    if (requests > 0) this.#lastWindowMs = Math.max(this.#lastWindowMs, windowMs);
  }

  /** `undefined` without requests. */
  site(): Site | undefined {
    return this.#lastWindowMs === -Infinity
      ? undefined
      : { ...this.#name, figures: this.#sum.sum(), spark: this.#spark, lastWindowMs: this.#lastWindowMs };
  }
}

/** A filter that rollups can answer. Throws a `QueryError` for others. */
function rowsFilter(filter: Filter): Filter {
  if (needsRequests(filter))
    throw new QueryError('filter', Object.keys(filter).join(', '), 'a filter by source, host, method or status');
  return filter;
}
