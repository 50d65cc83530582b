/** Suggested changes, and what they are about, as text. */
import type { CheckOptions } from './finding.js';
import { refusedName, textsOf, type NetLogger, type RequestGroup } from './log-routing.js';

/** The change to a logger's `exclude` and, on request, its `level`. Drops `include` where Caddy would refuse both. */
export function excludeLines(
  { name, path, config }: NetLogger,
  exclude: readonly string[],
  syntax: CheckOptions['syntax'],
  { dropInclude = false, level }: { readonly dropInclude?: boolean; readonly level?: string | undefined } = {},
): string[] {
  const include = textsOf(config['include']);
  const isDropped = dropInclude || refusedName(include, exclude) !== undefined;
  if (syntax === 'json')
    return [
      ...(level === undefined ? [] : [jsonChange(`${path}/level`, level)]),
      ...(isDropped ? [jsonChange(`${path}/include`, undefined)] : []),
      ...(exclude.length === 0 ? [] : [jsonChange(`${path}/exclude`, exclude)]),
    ];
  return [
    `log ${name} {`,
    ...(level === undefined ? [] : [`    level ${level}`]),
    ...(isDropped ? [`    # remove: include ${include.join(' ')}`] : []),
    ...(exclude.length === 0 ? [] : [`    exclude ${exclude.join(' ')}`]),
    '}',
  ];
}

/** A path of Caddy's JSON with the value to set; `undefined` to remove it. */
export function jsonChange(path: string, value: unknown): string {
  return value === undefined ? `${path}: remove it` : `${path}: ${JSON.stringify(value)}`;
}

/** The hosts of groups, for a finding. */
export function sitesOf(groups: readonly RequestGroup[]): string[] {
  return hostNames([...new Set(groups.map(({ host }) => host))]);
}

/** Hosts as a finding names them, sorted. */
export function hostNames(hosts: readonly string[]): string[] {
  return hosts.map((host) => host || 'any host').sort();
}
