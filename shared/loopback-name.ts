import ipaddr from 'ipaddr.js';

/**
 * Whether a `Host` header names this machine, or nothing that others could name: `localhost` and what ends in it (RFC 6761), or an address.
 * Anybody's own name can be made to lead to 127.0.0.1 (DNS rebinding): a page under it would then be of one origin with the dashboard.
 */
export function isLoopbackName(host: string): boolean {
  const name = host.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase();
  return name === '' || name === 'localhost' || name.endsWith('.localhost') || ipaddr.isValid(name.replace(/^\[(.*)\]$/, '$1'));
}
