import { createServer, type Server, type Socket } from 'node:net';
import { messageOf } from '../../shared/errors.js';
import { removeStaleSocket } from '../../shared/net/stale-socket.js';
import type { PartialLine } from '../lines.js';
import type { ListenAddress } from './address.js';

/** The address of a stream socket. */
export type StreamAddress = Exclude<ListenAddress, { kind: 'udp' }>;

/** Opens a stream socket, in this process or through the supervisor. Rejects with the system's error. */
export type OpenStream = (address: StreamAddress, options: StreamOptions) => Promise<OpenedStream>;

/** State of a connection that another process has read before. */
export interface EarlierReads {
  /** The partial line that it had read. */
  readonly beginning: PartialLine | undefined;
  /** Whether the peer has sent a line that was understood. */
  readonly hasSentLines: boolean;
}

/** What the supervisor read from a connection, now closed, while no worker could read it. */
export interface Unread {
  /** The listen address, as `formatListenAddress` writes it. */
  readonly address: string;
  /** The peer's address; `undefined` for unix sockets. */
  readonly remoteAddress: string | undefined;
  /** The partial line that a worker had read before. */
  readonly beginning: PartialLine | undefined;
  readonly bytes: Buffer;
  /** Number of lines after these bytes that were not kept. */
  readonly droppedLines: number;
}

/** Options of a stream socket. */
export interface StreamOptions {
  /** File mode of a unix socket, such as 0o660. */
  readonly unixMode: number;
  readonly onConnection: (socket: Socket, earlier?: EarlierReads) => void;
  readonly onUnread: (unread: Unread) => void;
  readonly onError: (message: string) => void;
}

/** A listening stream socket. */
export interface OpenedStream {
  /** The port that was bound; `undefined` for unix sockets. */
  readonly port: number | undefined;
  /** Stops accepting connections. Resolves when the existing ones are closed or released. */
  close(): Promise<void>;
  /**
   * Records that this connection has sent a valid line, for a later process that reads it. Called once per connection.
   */
  sentLines(socket: Socket): void;
  /**
   * Releases a connection to the process that reads it next. Returns `false` if there is none; the caller then has to
   * close it.
   */
  release(socket: Socket, beginning: () => PartialLine): boolean;
}

/** Opens a stream socket in this process. With `pauseOnConnect`, connections are not read until they are resumed. */
export async function openStream(
  address: StreamAddress,
  { unixMode, onConnection, onError }: Omit<StreamOptions, 'onUnread'>,
  { pauseOnConnect = false } = {},
): Promise<OpenedStream> {
  const server = createServer({ noDelay: true, pauseOnConnect }, (socket) => {
    onConnection(socket);
  });
  await listening(server, address, unixMode);
  server.on('error', (error) => {
    onError(messageOf(error));
  });
  const bound = server.address();
  return {
    port: address.kind !== 'unix' && bound !== null && typeof bound === 'object' ? bound.port : undefined,
    close: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve();
        });
      }),
    sentLines: () => undefined,
    release: () => false,
  };
}

async function listening(server: Server, address: StreamAddress, unixMode: number): Promise<void> {
  if (address.kind === 'unix') await removeStaleSocket(address.path);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.once('listening', () => {
      server.off('error', reject);
      resolve();
    });
    if (address.kind === 'unix') {
      // `listen` creates the socket synchronously, so it never has another mode, not even for a moment.
      const umask = process.umask(0o777 ^ unixMode);
      server.listen({ path: address.path });
      process.umask(umask);
    } else {
      server.listen({
        host: address.host || (address.family === 6 ? '::' : '0.0.0.0'),
        port: address.port,
        ipv6Only: address.family === 6 && address.host !== '',
      });
    }
  });
}
