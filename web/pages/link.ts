import { filterNames, type DashboardQuery, type Parameter } from '../query/query.js';

/** Makes a link to this page, or to a `path`, with some parameters changed; `undefined` takes one away. */
export type Link = (changes: Partial<Record<Parameter, string | undefined>>, path?: string) => string;

/** Links that keep the parameters of the page, but for the open form. */
export function linksOf({ given }: Pick<DashboardQuery, 'given'>): Link {
  return (changes, path = '/') => {
    const parameters = Object.entries({ ...given, edit: undefined, ...changes }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '',
    );
    const search = new URLSearchParams(parameters).toString();
    return search === '' ? path : `${path}?${search}`;
  };
}

/** Servers and proxies take request headers of 16 KiB as a rule: a longer link would lead to a bare error. */
const hrefLengthMax = 14_500;

/**
 * A link that filters the page by a value; `undefined` where there is no such filter, no value, or one so long that no
 * server would take it.
 */
export function filterHref(link: Link, name: string, value: string): string | undefined {
  const filter = filterNames.find((each) => each === name);
  if (filter === undefined || value === '') return undefined;
  const href = link({ [filter]: value });
  return href.length > hrefLengthMax ? undefined : href;
}
