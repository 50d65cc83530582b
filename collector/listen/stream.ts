import type { Socket } from 'node:net';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../shared/errors.js';
import { formatAddress } from '../../shared/settings/settings.js';
import { LineSplitter } from '../lines.js';
import { formatListenAddress } from './address.js';
import type { Listener, ListenOptions } from './listener.js';
import { peerAddress, withoutMapping, type LimitedConnection } from './peers.js';
import type { EarlierReads, OpenStream, StreamAddress, Unread } from './sockets.js';

/** Maximum time for which a stopping listener reads from peers that do not pause, in milliseconds. */
const drainMsMax = 2000;
/** A connection that has been quiet for this long has no lines in transit, in milliseconds. */
const quietMsMin = 50;

/**
 * Maximum duration of a line, in milliseconds. Caddy writes each line in one piece; a slower one only ties up a
 * connection and memory.
 */
const lineMsMaxDefault = 60_000;
/** Number of checks per `lineMsMax`. */
const checksMax = 4;

/**
 * Maximum number of bytes read per turn of the event loop: about a millisecond of work. libuv would read each socket up
 * to 32 times in a row, and block the store and the pages.
 */
const turnBytesMax = 65_536;

interface Connection extends LimitedConnection {
  /** When bytes last arrived, by `performance.now`. */
  lastReadMs: number;
  readonly lines: LineSplitter;
  /** `new` until the first bytes of the connection have been read, then `silent` until it has sent a valid line. */
  is: 'new' | 'silent' | 'sending' | 'gone';
  /** Reads the bytes that the paused socket has buffered. */
  readBuffered: () => void;
  /**
   * Id of the partial line at the last check, and the number of consecutive checks that saw it. Sockets are read
   * between checks.
   */
  unfinished: { readonly line: number; readonly checks: number };
}

/** Listens on TCP or on a unix stream socket. Rejects with the system's error. */
export async function listenStream(
  address: StreamAddress,
  options: ListenOptions,
  open: OpenStream,
): Promise<Listener> {
  const connections = new Map<Socket, Connection>();
  const server = await open(address, {
    unixMode: options.unixMode,
    onConnection: accept,
    onUnread,
    onError: options.onError,
  });
  const { lineMsMax = lineMsMaxDefault } = options;
  const slowLines = setInterval(() => {
    for (const [socket, connection] of connections) closeWhenSlow(socket, connection);
  }, lineMsMax / checksMax);
  let unreadDone = Promise.resolve();
  let turnBytes = 0;
  let waiting: Socket[] = [];
  return {
    address: address.kind === 'unix' ? address : { ...address, port: server.port ?? address.port },
    lost: () => Promise.resolve(undefined),
    async stop() {
      clearInterval(slowLines);
      const closed = server.close();
      await unreadDone;
      const left = [...connections].filter(
        ([socket, { lines, readBuffered }]) =>
          !server.release(socket, () => {
            readBuffered();
            return lines.detach();
          }),
      );
      await Promise.all(left.map(([socket, state]) => drain(socket, state)));
      await closed;
    },
  };

  function accept(socket: Socket, earlier?: EarlierReads): void {
    const { remoteAddress } = socket;
    const connection = connectionOf(socket);
    const refusal =
      address.kind !== 'unix' && !options.isAllowed(remoteAddress)
        ? 'not-allowed'
        : options.connections.enter(connection);
    if (refusal !== undefined) {
      socket.on('error', () => undefined); // a reset by a refused peer loses nothing
      socket.destroy();
      options.onRefused(refusal, remoteAddress);
      return;
    }
    connections.set(socket, connection);
    socket.once('close', () => {
      connections.delete(socket);
      if (connection.is !== 'gone') options.connections.leave(connection);
      connection.is = 'gone';
    });
    read(socket, connection, earlier);
  }

  function onUnread(unread: Unread): void {
    unreadDone = unreadDone.then(() => readUnread(unread));
  }

  /**
   * Reads what the supervisor has buffered, in small steps, since the supervisor kills a worker that does not answer.
   * Checks the peer, since the supervisor accepts any.
   */
  async function readUnread({ address: from, remoteAddress, beginning, bytes, droppedLines }: Unread): Promise<void> {
    const isUnix = from.startsWith('unix:');
    if (!isUnix && !options.isAllowed(remoteAddress)) {
      options.onRefused('not-allowed', remoteAddress);
      return;
    }
    if (droppedLines > 0) options.onDropped(droppedLines);
    const { sources } = options;
    const source = sources.open(isUnix ? from : peerAddress(remoteAddress ?? ''));
    const lines = new LineSplitter(options.lineBytesMax, options, options.partialLineMemory);
    if (beginning !== undefined) lines.resume(beginning);
    for (let at = 0; at < bytes.length; at += turnBytesMax) {
      sources.current = source;
      lines.write(bytes.subarray(at, at + turnBytesMax));
      await turn();
    }
    sources.current = source;
    lines.end();
    sources.close(source);
  }

  /**
   * Marks a new connection as silent after two turns of the event loop: bytes that arrived with it are read in the
   * first.
   */
  async function watchSilence(connection: Connection): Promise<void> {
    await turn();
    await turn();
    if (connection.is !== 'new') return;
    connection.is = 'silent';
    options.connections.silent(connection);
  }

  /** Closes a connection whose line takes too long. The line counts as unterminated. */
  function closeWhenSlow(socket: Socket, connection: Connection): void {
    const line = connection.lines.unfinished;
    connection.unfinished = {
      line,
      checks: line === connection.unfinished.line ? connection.unfinished.checks + 1 : 0,
    };
    if (line === 0 || connection.unfinished.checks < checksMax) return;
    options.onError(`a line was not complete after ${lineMsMax / 1000} s. The connection was closed`);
    socket.destroy();
  }

  function connectionOf(socket: Socket): Connection {
    const { remoteAddress } = socket;
    const connection: Connection = {
      peer: address.kind === 'unix' ? undefined : peerAddress(remoteAddress ?? ''),
      is: 'new',
      lastReadMs: 0,
      unfinished: { line: 0, checks: 0 },
      lines: new LineSplitter(options.lineBytesMax, options, options.partialLineMemory),
      readBuffered: () => undefined,
      evict() {
        connection.is = 'gone';
        socket.destroy();
        options.onEvicted(remoteAddress);
      },
    };
    return connection;
  }

  function read(socket: Socket, connection: Connection, earlier: EarlierReads | undefined): void {
    const { lines } = connection;
    const { sources } = options;
    const source = sources.open(peerOf(socket, address));
    connection.readBuffered = readBuffered;
    if (earlier?.beginning !== undefined) lines.resume(earlier.beginning);
    if (earlier?.hasSentLines === true) {
      connection.is = 'sending';
      options.connections.sent(connection);
    } else {
      void watchSilence(connection);
    }
    socket.on('data', onChunk);
    // A reset, a timeout or the like. 'close' follows.
    socket.on('error', (error) => {
      options.onError(messageOf(error));
    });
    socket.once('close', () => {
      readBuffered();
      sources.current = source;
      lines.end();
      for (let left = source.partialLines?.end() ?? 0; left > 0; left -= 1) options.onUnterminated();
      sources.close(source);
    });

    function onChunk(chunk: Buffer): void {
      connection.lastReadMs = performance.now();
      sources.current = source;
      if (connection.is === 'sending') lines.write(chunk);
      else onFirstChunk(chunk);
      limitTurn(socket, chunk.length);
    }

    /** Handles a chunk of a connection that has not sent a valid line yet. */
    function onFirstChunk(chunk: Buffer): void {
      const before = options.linesUnderstood();
      lines.write(chunk);
      if (options.linesUnderstood() > before) {
        connection.is = 'sending';
        options.connections.sent(connection);
        server.sentLines(socket);
      } else if (connection.is === 'silent') {
        options.connections.silent(connection); // now the last to be evicted
      }
    }

    function readBuffered(): void {
      sources.current = source;
      socket.off('data', onChunk); // `read` emits 'data' too, but not always
      for (let chunk; (chunk = socket.read() as Buffer | null) !== null; ) lines.write(chunk);
    }
  }

  /**
   * Pauses a socket until the next turn once enough bytes have been read in this one. It may buffer bytes meanwhile:
   * see `readBuffered`.
   */
  function limitTurn(socket: Socket, bytes: number): void {
    if (turnBytes === 0) setImmediate(nextTurn);
    turnBytes += bytes;
    if (turnBytes < turnBytesMax) return;
    socket.pause();
    waiting.push(socket);
  }

  function nextTurn(): void {
    turnBytes = 0;
    const sockets = waiting;
    waiting = [];
    for (const socket of sockets) socket.resume();
  }
}

/** The peer's address and port, or the path of a unix socket, whose peers have no address. */
function peerOf({ remoteAddress = 'gone', remotePort = 0 }: Socket, address: StreamAddress): string {
  return address.kind === 'unix'
    ? formatListenAddress(address)
    : formatAddress({ host: withoutMapping(remoteAddress), port: remotePort });
}

/**
 * Closes a connection once it is quiet and the kernel has no more unread bytes: closing it with unread bytes would send
 * a reset, which costs Caddy 9 to 17 lines instead of 1. Sends a FIN first, so that a peer that reads ends its own
 * side.
 */
async function drain(socket: Socket, state: Connection): Promise<void> {
  if (socket.destroyed) return;
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      resolve();
    });
  });
  socket.end();
  const startMs = performance.now();
  const quietSinceMs = (): number => performance.now() - Math.max(startMs, state.lastReadMs);
  while (!socket.closed && quietSinceMs() < quietMsMin && performance.now() - startMs < drainMsMax)
    await sleep(quietMsMin / 10);
  // A peer that never pauses is abandoned between two reads: the event loop reads each socket once per turn, even after
  // a pause.
  for (let beforeMs = -1, turns = 0; beforeMs !== state.lastReadMs && turns < 100; turns += 1) {
    beforeMs = state.lastReadMs;
    await turn();
    await turn();
  }
  socket.destroy();
  await closed;
}
