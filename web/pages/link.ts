import { printable } from '../format.js';
import { filterNames, type DashboardQuery, type Parameter } from '../query/query.js';

/** Returns a link to this page, or to `path`, with some parameters changed; `undefined` removes one. */
export type Link = (changes: Partial<Record<Parameter, string | undefined>>, path?: string) => string;

/** Creates links that preserve the parameters of the page, except `edit`. */
export function linksOf({ given }: Pick<DashboardQuery, 'given'>): Link {
  return (changes, path = '/') => {
    const parameters = Object.entries({ ...given, edit: undefined, ...changes }).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '',
    );
    const search = new URLSearchParams(parameters).toString();
    return search === '' ? path : `${path}?${search}`;
  };
}

/** Maximum length of a link: most servers and proxies limit request headers to 16 KiB. */
const hrefLengthMax = 14_500;

/** Returns a link that filters the page by a value; `undefined` without such a filter, for `''` or a too long value. */
export function filterHref(link: Link, name: string, value: string): string | undefined {
  const filter = filterNames.find((each) => each === name);
  if (filter === undefined || value === '') return undefined;
  const href = link({ [filter]: value });
  return href.length > hrefLengthMax ? undefined : href;
}

/** A value that is shown, possibly shortened, with a link that filters the page by it. */
export interface LinkedValue {
  readonly text: string;
  /** The whole value, if it is not shown. */
  readonly full: string | undefined;
  readonly href: string | undefined;
}

/** Returns a value as it is shown. `shown` replaces its text; `lengthMax` is the maximum length of the text. */
export function linkedValue(
  link: Link,
  name: string,
  value: string,
  { shown = value, lengthMax = 60 } = {},
): LinkedValue {
  return {
    text: printable(shown, lengthMax),
    full: shown === value && value.length <= lengthMax ? undefined : printable(value, 1000),
    href: filterHref(link, name, value),
  };
}
