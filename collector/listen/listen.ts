import { messageOf, UsageError } from '../../shared/errors.js';
import type { LineSources } from '../line-sources.js';
import type { PartialLineMemory, LineHandlers } from '../lines.js';
import { formatListenAddress, type ListenAddress } from './address.js';
import type { ConnectionLimit, NoRoom } from './peers.js';
import { openStream, type OpenStream } from './sockets.js';
import { listenStream } from './stream.js';
import { listenUdp } from './udp.js';

/** Options of every listener. */
export interface ListenOptions extends LineHandlers {
  readonly lineBytesMax: number;
  /** Called before a byte is read, but not for unix sockets, which their file mode protects. */
  readonly isAllowed: (remoteAddress: string | undefined) => boolean;
  /** File mode of unix sockets, such as 0o660. */
  readonly unixMode: number;
  /** A peer was refused. */
  readonly onRefused: (why: 'not-allowed' | NoRoom, remoteAddress: string | undefined) => void;
  /** A connection that has never sent a line was closed to make room for another. */
  readonly onEvicted: (remoteAddress: string | undefined) => void;
  /** The supervisor could not keep these lines while no worker was reading. */
  readonly onDropped: (lines: number) => void;
  /** Number of valid lines so far, over all listeners. */
  readonly linesUnderstood: () => number;
  /** A socket failed and is closed; the others continue. */
  readonly onError: (message: string) => void;
  /** Memory for partial lines, over all listeners. */
  readonly partialLineMemory: PartialLineMemory;
  /**
   * Maximum time from the first byte of a line to its last, in milliseconds. Beyond it, its connection is closed.
   * Default: 60 s.
   */
  readonly lineMsMax?: number;
  /** The sources of lines. Listeners set its `current` before each chunk. */
  readonly sources: LineSources;
  /** The limit on connections, over all stream listeners. */
  readonly connections: ConnectionLimit;
}

/** A listening socket. */
export interface Listener {
  /** The address, with the port that was bound. */
  readonly address: ListenAddress;
  /**
   * Number of datagrams that the kernel dropped because its buffer was full; `undefined` if unknown, and for streams.
   */
  lost(): Promise<number | undefined>;
  /** Stops accepting peers, reads what has arrived, and closes without a reset. */
  stop(): Promise<void>;
}

/** Listens on all addresses or on none. Throws a `UsageError` that says which one failed, why, and what to do. */
export async function listen(
  addresses: readonly ListenAddress[],
  options: ListenOptions,
  open: OpenStream = openStream,
): Promise<Listener[]> {
  const results = await Promise.allSettled(
    addresses.map((address) =>
      address.kind === 'udp' ? listenUdp(address, options) : listenStream(address, options, open),
    ),
  );
  const listeners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const failed = results.findIndex((result) => result.status === 'rejected');
  if (failed === -1) return listeners;
  await Promise.all(listeners.map((listener) => listener.stop()));
  const reason: unknown = (results[failed] as PromiseRejectedResult).reason;
  throw cannotListen(formatListenAddress(addresses[failed]!), reason);
}

/** The error for an address that could not be opened. `error` is the system's. */
export function cannotListen(address: string, error: unknown): UsageError {
  return new UsageError(`Cannot listen on ${address}: ${explain(error)}`, { cause: error });
}

function explain(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE':
      return 'the address is in use. Stop the other process, or set COLLECTOR_LISTEN to a free one.';
    case 'EACCES':
      return 'permission denied, or the folder of the path is missing. Set COLLECTOR_LISTEN to a port above 1023, or to a path in a folder that this user can write to.';
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return 'this machine does not have that address. Set COLLECTOR_LISTEN to an address of this machine.';
    default:
      return messageOf(error);
  }
}
