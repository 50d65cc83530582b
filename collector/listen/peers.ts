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
    const address = peerAddress(remoteAddress);
    return allowed.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  };
}

/** A peer's address without an IPv6 zone, and as IPv4 where it is that. */
export function peerAddress(remoteAddress: string): string {
  return withoutMapping(remoteAddress).replace(/%.*$/, '');
}

/** An address as IPv4 where it is an IPv4 address mapped into IPv6 (RFC 4291, section 2.5.5.2). */
export function withoutMapping(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}

/** Share of all connections that one address may have: the others leave room for other peers. */
const shareOfPeer = 0.75;
/** Share of all connections reserved for peers that have sent lines before. */
const shareReserved = 0.1;
/** Addresses that are remembered because they have sent lines; the oldest is forgotten first. */
const knownPeersMax = 1000;

/** One connection, as the limit sees it. */
export interface LimitedConnection {
  /** The peer's address; `undefined` on a unix socket, whose peers have none. */
  readonly peer: string | undefined;
  /** Makes room for another peer. The connection must `leave` by itself when it is closed. */
  readonly evict: () => void;
}

/** Why there is no room for a connection. */
export type NoRoom = 'too-many-connections' | 'too-many-of-peer';

/**
 * Limits how many connections are open, over all stream listeners, and decides who has to go when there are too many: the one that has been
 * idle longest of those that have never sent a line that was understood. One that has sent lines is never evicted.
 *
 * Only TCP peers are limited by address. Who may open a unix socket is decided by the file's mode.
 */
export class ConnectionLimit {
  readonly #connectionsMax: number;
  readonly #ofPeerMax: number;
  readonly #reserved: number;
  /** How many each peer has open. */
  readonly #open = new Map<string | undefined, number>();
  /** Those that never sent a line and can be evicted: the one that has been idle longest comes first. */
  readonly #silent = new Set<LimitedConnection>();
  readonly #silentOfPeer = new Map<string | undefined, Set<LimitedConnection>>();
  readonly #known = new Set<string | undefined>();
  #count = 0;

  constructor(connectionsMax: number) {
    this.#connectionsMax = connectionsMax;
    this.#ofPeerMax = Math.ceil(connectionsMax * shareOfPeer);
    this.#reserved = Math.floor(connectionsMax * shareReserved);
  }

  /** Connections that are open. */
  get count(): number {
    return this.#count;
  }

  /** Takes a connection, and evicts another one where that is needed; says why when there is no room. */
  enter(connection: LimitedConnection): NoRoom | undefined {
    const { peer } = connection;
    const limit = this.#connectionsMax - (this.#known.has(peer) ? 0 : this.#reserved);
    if (peer !== undefined && (this.#open.get(peer) ?? 0) >= this.#ofPeerMax) {
      if (!this.#evictFirst(this.#silentOfPeer.get(peer))) return 'too-many-of-peer';
    } else if (this.#count >= limit && !this.#evictFirst(this.#silent)) {
      return 'too-many-connections';
    }
    this.#count += 1;
    this.#open.set(peer, (this.#open.get(peer) ?? 0) + 1);
    return undefined;
  }

  /** From now on it can be evicted. Call it again when bytes have come that were no line. */
  silent(connection: LimitedConnection): void {
    const { peer } = connection;
    this.#forget(connection);
    this.#silent.add(connection);
    const ofPeer = this.#silentOfPeer.get(peer) ?? new Set();
    this.#silentOfPeer.set(peer, ofPeer.add(connection));
  }

  /** It has sent a line, and is not evicted any more. */
  sent(connection: LimitedConnection): void {
    const { peer } = connection;
    this.#forget(connection);
    this.#known.delete(peer);
    this.#known.add(peer);
    if (this.#known.size > knownPeersMax) for (const oldest of this.#known) { this.#known.delete(oldest); break; }
  }

  /** It is closed, or was evicted. */
  leave(connection: LimitedConnection): void {
    const { peer } = connection;
    this.#forget(connection);
    this.#count -= 1;
    const left = this.#open.get(peer)! - 1;
    if (left === 0) this.#open.delete(peer);
    else this.#open.set(peer, left);
  }

  #evictFirst(candidates: ReadonlySet<LimitedConnection> | undefined): boolean {
    for (const connection of candidates ?? []) {
      this.leave(connection);
      connection.evict();
      return true;
    }
    return false;
  }

  #forget(connection: LimitedConnection): void {
    const { peer } = connection;
    this.#silent.delete(connection);
    const ofPeer = this.#silentOfPeer.get(peer);
    if (ofPeer?.delete(connection) === true && ofPeer.size === 0) this.#silentOfPeer.delete(peer);
  }
}
