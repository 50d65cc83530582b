import { createServer, type Server, type Socket } from 'node:net';
import { messageOf } from '../../shared/errors.js';
import { removeStaleSocket } from '../../shared/stale-socket.js';
import type { LineBeginning } from '../lines.js';
import type { ListenAddress } from './address.js';

/** An address of a stream socket. */
export type StreamAddress = Exclude<ListenAddress, { kind: 'udp' }>;

/** Where stream listeners get their sockets from: this process opens them, or a keeper has them. Rejects with the system's error. */
export type OpenStream = (address: StreamAddress, options: StreamOptions) => Promise<OpenedStream>;

/** What another process knows of a connection that it has read before. */
export interface EarlierReads {
  /** What it has read of a line that was not whole yet. */
  readonly beginning: LineBeginning | undefined;
  /** Whether the peer has sent a line that was understood. */
  readonly hasSentLines: boolean;
}

/** What the supervisor has read of a connection, which is closed, while no worker could read it. */
export interface Unread {
  /** What a worker had read before of a line that was not whole yet. */
  readonly beginning: LineBeginning | undefined;
  readonly bytes: Buffer;
  /** Lines after these bytes that were not kept. */
  readonly droppedLines: number;
}

/** What a stream socket is opened with. */
export interface StreamOptions {
  /** The permissions of a unix socket, such as 0o660. */
  readonly unixMode: number;
  readonly onConnection: (socket: Socket, earlier?: EarlierReads) => void;
  readonly onUnread: (unread: Unread) => void;
  readonly onError: (message: string) => void;
}

/** A stream socket that is listened on. */
export interface OpenedStream {
  /** The one that was really taken; `undefined` for unix sockets. */
  readonly port: number | undefined;
  /** Takes no new connections; resolves when those that it has are closed or handed back. */
  close(): Promise<void>;
  /** Records that a valid line came over this connection. Called once per connection; a later process that reads it is told. */
  sentLines(socket: Socket): void;
  /** Leaves a connection to the process that reads it next; `false` when there is none, and the caller has to close it. */
  handBack(socket: Socket, beginning: () => LineBeginning): boolean;
}

/** Opens a stream socket of this process. With `pauseOnConnect` nothing is read of a connection until somebody asks. */
export async function openStream(address: StreamAddress, { unixMode, onConnection, onError }: Omit<StreamOptions, 'onUnread'>, { pauseOnConnect = false } = {}): Promise<OpenedStream> {
  const server = createServer({ noDelay: true, pauseOnConnect }, (socket) => { onConnection(socket); });
  await listening(server, address, unixMode);
  server.on('error', (error) => { onError(messageOf(error)); });
  const bound = server.address();
  return {
    port: address.kind !== 'unix' && bound !== null && typeof bound === 'object' ? bound.port : undefined,
    close: () => new Promise((resolve) => { server.close(() => { resolve(); }); }),
    sentLines: () => undefined,
    handBack: () => false,
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
      // The socket is made inside `listen`, so it never has another mode, not even for a moment.
      const umask = process.umask(0o777 ^ unixMode);
      server.listen({ path: address.path });
      process.umask(umask);
    } else {
      server.listen({ host: address.host || (address.family === 6 ? '::' : '0.0.0.0'), port: address.port, ipv6Only: address.family === 6 && address.host !== '' });
    }
  });
}
