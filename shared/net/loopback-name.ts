import ipaddr from 'ipaddr.js';

/**
 * Whether a `Host` header is a name that no other site can use: `localhost`, a name below it (RFC 6761), or an IP
 * address. Any other domain can be made to resolve to 127.0.0.1 (DNS rebinding); a page on it would then have the same
 * origin as the dashboard.
 */
export function isLoopbackName(host: string): boolean {
  const name = host.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase();
  return (
    name === '' ||
    name === 'localhost' ||
    name.endsWith('.localhost') ||
    ipaddr.isValid(name.replace(/^\[(.*)\]$/, '$1'))
  );
}
