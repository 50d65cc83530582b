import { BlockList, isIP } from 'node:net';

/** Loopback (RFC 1122, RFC 4291) and private ranges (RFC 1918, RFC 4193, RFC 3927): the default of `COLLECTOR_ALLOW`. */
export const privateRanges = '127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10';

/** An address range. */
export interface Cidr {
  readonly network: string;
  readonly prefixLength: number;
}

/** Reads `10.0.0.0/8`, `fc00::/7` or a single address. Throws when the text is not a range. */
export function parseCidr(text: string): Cidr {
  const match = /^([\da-f:.]+)(?:\/(\d{1,3}))?$/i.exec(text);
  const version = isIP(match?.[1] ?? '');
  const longest = version === 6 ? 128 : 32;
  const prefixLength = match?.[2] === undefined ? longest : Number(match[2]);
  if (version === 0 || prefixLength > longest) throw new TypeError('not a range');
  return { network: match![1]!, prefixLength };
}

/** Tells whether a peer's address is in one of the ranges. */
export function allowList(ranges: readonly Cidr[]): (remoteAddress: string | undefined) => boolean {
  const allowed = new BlockList(); // Node's name; here it lists who may come in
  for (const { network, prefixLength } of ranges) {
    allowed.addSubnet(network, prefixLength, isIP(network) === 6 ? 'ipv6' : 'ipv4');
  }
  return (remoteAddress) => {
    if (remoteAddress === undefined) return false; // the peer is gone already
    const address = remoteAddress.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '');
    return allowed.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  };
}
