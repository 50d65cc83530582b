import { formatAddress, parseAddress } from '../../shared/settings/settings.js';

/** A socket that the collector listens on. */
export type ListenAddress =
  | { readonly kind: 'tcp' | 'udp'; readonly family: 4 | 6; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

/** The syntax that `parseListenAddress` accepts, for messages. */
export const listenSyntax =
  'tcp://host:port, tcp6://, udp://, udp6:// or unix:///path, separated by commas; an empty host means every address';

/** Parses one address. Throws a `TypeError` if the text is not one. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(tcp|udp)(4|6)?:\/\/(.*)$/.exec(text);
  if (match !== null) {
    const { host, port } = parseAddress(match[3]!);
    return { kind: match[1] as 'tcp' | 'udp', family: match[2] === '6' || host.includes(':') ? 6 : 4, host, port };
  }
  const path = /^unix:\/\/(\/.+)$/.exec(text)?.[1];
  // The kernel's `sun_path` holds 108 bytes with the ending NUL (unix(7)).
  if (path === undefined || Buffer.byteLength(path) > 107) throw new TypeError('not an address');
  return { kind: 'unix', path };
}

/** Formats an address in the syntax of `parseListenAddress`. */
export function formatListenAddress(address: ListenAddress): string {
  return address.kind === 'unix' ? `unix://${address.path}` : `${address.kind}://${formatAddress(address)}`;
}

/** Formats an address for `output net` in a Caddyfile. A wildcard address becomes `localhost`. */
export function caddyAddress(address: ListenAddress): string {
  if (address.kind === 'unix') return `unix/${address.path}`;
  const anyHost = address.host === '' || address.host === '0.0.0.0' || address.host === '::';
  return `${address.kind}/${formatAddress({ host: anyHost ? 'localhost' : address.host, port: address.port })}`;
}
