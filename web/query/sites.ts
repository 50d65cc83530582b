/** Sites: the hosts of each source, sorted and paged. */
import type { HostCounts } from '../../shared/store/store.js';
import { QueryError } from './query.js';

/** Sort orders of sites: `host` is ascending, all others are descending. */
export const siteSorts = ['requests', 'errors', 'error_share', 'client_errors', 'bytes', 'host'] as const;
/** A sort order of sites. */
export type SiteSort = (typeof siteSorts)[number];

/** A page of the sites. */
export interface SitePage {
  readonly sort: SiteSort;
  readonly limit: number;
  /** The `source` and `host` of the last site of the page before; `undefined` for the first page. */
  readonly after: { readonly source: string; readonly host: string } | undefined;
}

/** Parses the parameters `sort` and `after`. Throws a `QueryError`. */
export function parseSitePage(
  { sort = 'requests', after }: { readonly sort?: string | undefined; readonly after?: string | undefined },
  limit: number,
): SitePage {
  if (!isSiteSort(sort)) throw new QueryError('sort', sort, siteSorts.join(', '));
  return { sort, limit, after: after === undefined ? undefined : parseAfter(after) };
}

/** The cursor of the page after a site, for the parameter `after`: its source and host, each percent-encoded. */
export function afterOf({ source, host }: { readonly source: string; readonly host: string }): string {
  return `${encodeURIComponent(source)}/${encodeURIComponent(host)}`;
}

function parseAfter(text: string): { source: string; host: string } {
  const parts = text.split('/');
  try {
    if (parts.length === 2) return { source: decodeURIComponent(parts[0]!), host: decodeURIComponent(parts[1]!) };
  } catch {
    // not percent-encoded
  }
  throw new QueryError('after', text, 'the X-Next header of the previous answer');
}

/**
 * Returns the sites of a page, and whether more follow. Compares with the current counts of the site `after`, which may
 * have changed since the page before.
 */
export function sitesOfPage(
  counts: readonly HostCounts[],
  { sort, limit, after }: SitePage,
): { sites: readonly HostCounts[]; hasMore: boolean } {
  const sorted = counts.filter(({ requests }) => requests > 0).sort((one, other) => compareSites(one, other, sort));
  const last =
    after &&
    (counts.find(({ source, host }) => source === after.source && host === after.host) ?? { ...noCounts, ...after });
  const from = last === undefined ? 0 : sorted.findIndex((site) => compareSites(site, last, sort) > 0);
  const sites = from < 0 ? [] : sorted.slice(from, from + limit);
  return { sites, hasMore: from >= 0 && from + limit < sorted.length };
}

const noCounts = { requests: 0, errors: 0, clientErrors: 0, bytes: 0 };

const valueOf: Readonly<Record<Exclude<SiteSort, 'host'>, (site: HostCounts) => number>> = {
  requests: ({ requests }) => requests,
  errors: ({ errors }) => errors,
  error_share: ({ errors, requests }) => errors / Math.max(1, requests),
  client_errors: ({ clientErrors }) => clientErrors,
  bytes: ({ bytes }) => bytes,
};

/** A total order, so that pages neither repeat nor skip a site. */
function compareSites(one: HostCounts, other: HostCounts, sort: SiteSort): number {
  const byValue = sort === 'host' ? 0 : valueOf[sort](other) - valueOf[sort](one);
  return byValue || compareText(one.host, other.host) || compareText(one.source, other.source);
}

function compareText(one: string, other: string): number {
  return one < other ? -1 : one > other ? 1 : 0;
}

function isSiteSort(text: string): text is SiteSort {
  return (siteSorts as readonly string[]).includes(text);
}
