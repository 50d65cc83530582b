import type { LineSources } from '../line-sources.js';
import type { LineHandlers, PartialLineMemory } from '../lines.js';
import type { ListenAddress } from './address.js';
import type { ConnectionLimit, NoRoom } from './peers.js';

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
