import { BlockList, isIP } from 'node:net';

/**
 * Loopback (RFC 1122, RFC 4291) and private ranges (RFC 1918, RFC 4193, RFC 3927): the default of `COLLECTOR_ALLOW`.
 */
export const privateRanges =
  '127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,169.254.0.0/16,fc00::/7,fe80::/10';

/** An address range. */
export interface Cidr {
  readonly network: string;
  readonly prefixLength: number;
}

/** Parses `10.0.0.0/8`, `fc00::/7` or a single address. Throws a `TypeError` if the text is not a range. */
export function parseCidr(text: string): Cidr {
  const match = /^([\da-f:.]+)(?:\/(\d{1,3}))?$/i.exec(text);
  const version = isIP(match?.[1] ?? '');
  const bits = version === 6 ? 128 : 32;
  const prefixLength = match?.[2] === undefined ? bits : Number(match[2]);
  if (version === 0 || prefixLength > bits) throw new TypeError('not a range');
  return { network: match![1]!, prefixLength };
}

/** Returns a predicate: whether a peer's address is in one of the ranges. */
export function allowList(ranges: readonly Cidr[]): (remoteAddress: string | undefined) => boolean {
  const allowed = new BlockList(); // despite its name, the list of allowed ranges
  for (const { network, prefixLength } of ranges) {
    allowed.addSubnet(network, prefixLength, isIP(network) === 6 ? 'ipv6' : 'ipv4');
  }
  return (remoteAddress) => {
    if (remoteAddress === undefined) return false; // the peer has already disconnected
    const address = peerAddress(remoteAddress);
    return allowed.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  };
}

/** A peer's address without an IPv6 zone. IPv4-mapped addresses become IPv4. */
export function peerAddress(remoteAddress: string): string {
  return withoutMapping(remoteAddress).replace(/%.*$/, '');
}

/** Turns an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) into an IPv4 address. */
export function withoutMapping(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, '');
}

/** Maximum share of all connections for one address. The rest is left to other peers. */
const shareOfPeer = 0.75;
/** Share of all connections reserved for peers that have sent lines before. */
const shareReserved = 0.1;
/** Maximum number of remembered addresses that have sent lines. Beyond it, the least recent is evicted. */
const knownPeersMax = 1000;

/** A connection under the limit. */
export interface LimitedConnection {
  /** The peer's address; `undefined` on a unix socket, whose peers have none. */
  readonly peer: string | undefined;
  /** Closes the connection to make room for another. The limit has already removed it, so do not call `leave`. */
  readonly evict: () => void;
}

/** Why there is no room for a connection. */
export type NoRoom = 'too-many-connections' | 'too-many-of-peer';

/**
 * Limits the number of open connections over all stream listeners. When there are too many, evicts the longest idle
 * connection of those that have never sent a valid line. A connection that has sent lines is never evicted.
 *
 * Only TCP peers are limited by address. Access to a unix socket is controlled by its file mode.
 */
export class ConnectionLimit {
  readonly #connectionsMax: number;
  readonly #ofPeerMax: number;
  readonly #reserved: number;
  /** Number of open connections by peer. */
  readonly #open = new Map<string | undefined, number>();
  /** Connections that have never sent a line and can be evicted, the longest idle first. */
  readonly #silent = new Set<LimitedConnection>();
  readonly #silentOfPeer = new Map<string | undefined, Set<LimitedConnection>>();
  readonly #known = new Set<string | undefined>();
  #count = 0;

  constructor(connectionsMax: number) {
    this.#connectionsMax = connectionsMax;
    this.#ofPeerMax = Math.ceil(connectionsMax * shareOfPeer);
    this.#reserved = Math.floor(connectionsMax * shareReserved);
  }

  /** Number of open connections. */
  get count(): number {
    return this.#count;
  }

  /** Admits a connection, and evicts another one if necessary. Returns the reason if there is no room. */
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

  /** Marks a connection as one that can be evicted. Call it again when it has sent bytes without a valid line. */
  silent(connection: LimitedConnection): void {
    const { peer } = connection;
    this.#forget(connection);
    this.#silent.add(connection);
    const ofPeer = this.#silentOfPeer.get(peer) ?? new Set();
    this.#silentOfPeer.set(peer, ofPeer.add(connection));
  }

  /** Marks a connection that has sent a line. It can no longer be evicted. */
  sent(connection: LimitedConnection): void {
    const { peer } = connection;
    this.#forget(connection);
    this.#known.delete(peer);
    this.#known.add(peer);
    if (this.#known.size > knownPeersMax)
      for (const oldest of this.#known) {
        this.#known.delete(oldest);
        break;
      }
  }

  /** Removes a connection that was closed. Call it exactly once, and not for an evicted one. */
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
