import { messageOf, UsageError } from '../../shared/errors.js';
import type { LineSources } from '../line-sources.js';
import type { HeldMemory, LineHandlers } from '../lines.js';
import { formatListenAddress, type ListenAddress } from './address.js';
import type { ConnectionLimit, NoRoom } from './peers.js';
import { openStream, type OpenStream } from './sockets.js';
import { listenStream } from './stream.js';
import { listenUdp } from './udp.js';

/** What every listener is given. */
export interface ListenOptions extends LineHandlers {
  readonly lineBytesMax: number;
  /** Asked before a byte is read; not for unix sockets, which the file's mode guards. */
  readonly isAllowed: (remoteAddress: string | undefined) => boolean;
  /** The permissions of unix sockets, such as 0o660. */
  readonly unixMode: number;
  /** A peer that was turned away. */
  readonly onRefused: (why: 'not-allowed' | NoRoom, remoteAddress: string | undefined) => void;
  /** A connection without a line was closed to make room for another. */
  readonly onEvicted: (remoteAddress: string | undefined) => void;
  /** Lines that the supervisor could not keep while no worker read. */
  readonly onDropped: (lines: number) => void;
  /** How many lines were understood so far, over all listeners. */
  readonly linesUnderstood: () => number;
  /** A socket that failed; it is closed, the others go on. */
  readonly onError: (message: string) => void;
  /** For lines that have begun, over all listeners. */
  readonly heldMemory: HeldMemory;
  /** How long a line may take from its first byte to its last, in milliseconds; then its connection is closed: 60 s. */
  readonly lineMsMax?: number;
  /** Where lines come from: its `current` is set before each chunk of bytes is taken. */
  readonly sources: LineSources;
  /** Of connections, over all stream listeners. */
  readonly connections: ConnectionLimit;
}

/** One socket that is being listened on. */
export interface Listener {
  /** With the port that was really taken. */
  readonly address: ListenAddress;
  /** Datagrams that the kernel dropped because its buffer was full; `undefined` where it does not say, and for streams. */
  lost(): Promise<number | undefined>;
  /** Takes no new peers, reads what has arrived, and closes without a reset. */
  stop(): Promise<void>;
}

/** Listens on every address, or on none: throws a `UsageError` that says which one failed, why, and what to do. */
export async function listen(addresses: readonly ListenAddress[], options: ListenOptions, open: OpenStream = openStream): Promise<Listener[]> {
  const results = await Promise.allSettled(addresses.map((address) =>
    address.kind === 'udp' ? listenUdp(address, options) : listenStream(address, options, open)));
  const listeners = results.flatMap((result) => result.status === 'fulfilled' ? [result.value] : []);
  const failed = results.findIndex((result) => result.status === 'rejected');
  if (failed === -1) return listeners;
  await Promise.all(listeners.map((listener) => listener.stop()));
  const reason: unknown = (results[failed] as PromiseRejectedResult).reason;
  throw cannotListen(formatListenAddress(addresses[failed]!), reason);
}

/** What to tell about an address that could not be opened, and the system's error. */
export function cannotListen(address: string, error: unknown): UsageError {
  return new UsageError(`Cannot listen on ${address}: ${explain(error)}`, { cause: error });
}

function explain(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE': return 'the address is in use. Stop the other process, or set COLLECTOR_LISTEN to a free one.';
    case 'EACCES': return 'this user may not, or the folder of the path is missing. Set COLLECTOR_LISTEN to a port from 1024 on, or to a path in a folder that this user can write.';
    case 'EADDRNOTAVAIL': case 'ENOTFOUND': return 'this machine does not have that address. Set COLLECTOR_LISTEN to one that it has.';
    default: return messageOf(error);
  }
}
