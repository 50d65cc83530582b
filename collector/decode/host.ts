/**
 * Normalises a host: lower case, without a default port and without a trailing dot, so that `Example.com.:443` becomes
 * `example.com`. Keeps other ports. IPv6 keeps its brackets only with a port.
 */
export function normaliseHost(host: string): string {
  const match = /^(\[[^\]]*\]|[^:]*)(?::(\d*))?$/.exec(host);
  if (match === null) return host.toLowerCase(); // a bare IPv6 address, or not a host at all
  const [, name = '', port] = match;
  const bare = name.toLowerCase().replace(/\.$/, '');
  if (port !== undefined && port !== '' && port !== '80' && port !== '443') return `${bare}:${port}`;
  return bare.startsWith('[') ? bare.slice(1, -1) : bare;
}
