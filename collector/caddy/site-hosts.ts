/**
 * Collects the hosts of the sites in Caddy's JSON configuration: the `host` matchers of all routes, including nested
 * ones.
 */
import { domainToASCII } from 'node:url';
import { objectOf, textsOf } from './check/log-routing.js';
import { normaliseHost } from '../decode/host.js';

/** Returns the hosts of a configuration in the form that `ConfiguredHosts` accepts. Accepts any shape. */
export function siteHosts(config: unknown): string[] {
  const hosts = new Set<string>();
  const left: unknown[] = [objectOf(objectOf(objectOf(config)['apps'])['http'])['servers']];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next !== 'object' || next === null) continue;
    for (const [key, nested] of Object.entries(next)) {
      if (key === 'match' && Array.isArray(nested))
        for (const host of nested.flatMap((matchers) => textsOf(objectOf(matchers)['host']))) hosts.add(asLogged(host));
      else left.push(nested);
    }
  }
  // Only Caddy can resolve placeholders.
  return [...hosts].filter((host) => host !== '' && !host.includes('{'));
}

/** As browsers send it: international names are encoded label by label, since a label may be `*`. */
function asLogged(host: string): string {
  return normaliseHost(
    host
      .split('.')
      .map((label) => domainToASCII(label) || label)
      .join('.'),
  );
}
