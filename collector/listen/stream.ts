import type { Socket } from 'node:net';
import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../shared/errors.js';
import { formatAddress } from '../../shared/settings.js';
import { createLineSplitter, type LineSplitter } from '../lines.js';
import { formatListenAddress } from './address.js';
import type { Listener, ListenOptions } from './listen.js';
import { peerAddress, withoutMapping, type LimitedConnection } from './peers.js';
import type { EarlierReads, OpenStream, StreamAddress, Unread } from './sockets.js';

/** How long a stopping listener goes on reading from peers that do not pause, in milliseconds. */
const drainMsMax = 2000;
/** A connection that brought nothing for so long has nothing under way, in milliseconds. */
const quietMsMin = 50;

/** How long a line may take. Caddy writes each at once: one that takes longer holds a connection, and memory, for nothing. */
const lineMsMaxDefault = 60_000;
const looksMax = 4;

/**
 * Bytes that are taken in one turn of the event loop: about a millisecond's work. libuv would read 32 times from each socket, and the store and
 * the pages would wait for all of it.
 */
const turnBytesMax = 65_536;

interface Connection extends LimitedConnection {
  /** When bytes came in last, by `performance.now`. */
  lastReadMs: number;
  readonly lines: LineSplitter;
  /** `new` until what came with the connection has been read, `silent` until a line has come that was understood. */
  is: 'new' | 'silent' | 'sending' | 'gone';
  /** Takes what the socket has read and still holds for the next turn. */
  takeHeld: () => void;
  /** The line that had begun at the last look, and in how many looks in a row it was the same: sockets are read between two looks. */
  unfinished: { readonly line: number; readonly looks: number };
}

/** Listens on TCP or on a unix stream socket. Rejects with the system's error when that cannot be done. */
export async function listenStream(address: StreamAddress, options: ListenOptions, open: OpenStream): Promise<Listener> {
  const connections = new Map<Socket, Connection>();
  const server = await open(address, { unixMode: options.unixMode, onConnection: take, onUnread, onError: options.onError });
  const { lineMsMax = lineMsMaxDefault } = options;
  const slowLines = setInterval(() => {
    for (const [socket, connection] of connections) closeWhenSlow(socket, connection);
  }, lineMsMax / looksMax);
  let unreadTaken = Promise.resolve();
  let turnBytes = 0;
  let waiting: Socket[] = [];
  return {
    address: address.kind === 'unix' ? address : { ...address, port: server.port ?? address.port },
    lost: () => Promise.resolve(undefined),
    async stop() {
      clearInterval(slowLines);
      const closed = server.close();
      await unreadTaken;
      const left = [...connections].filter(([socket, { lines, takeHeld }]) => !server.handBack(socket, () => {
        takeHeld();
        return lines.handOver();
      }));
      await Promise.all(left.map(([socket, state]) => drain(socket, state)));
      await closed;
    },
  };

  function take(socket: Socket, earlier?: EarlierReads): void {
    const { remoteAddress } = socket;
    const connection = connectionOf(socket);
    const why = address.kind !== 'unix' && !options.isAllowed(remoteAddress) ? 'not-allowed' : options.connections.enter(connection);
    if (why !== undefined) {
      socket.on('error', () => undefined); // a peer that is turned away may reset: nothing is lost
      socket.destroy();
      options.onRefused(why, remoteAddress);
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
    unreadTaken = unreadTaken.then(() => takeUnread(unread));
  }

  /** Takes megabytes, a turn's worth at a time: the supervisor kills a worker that does not answer meanwhile. */
  async function takeUnread({ beginning, bytes, droppedLines }: Unread): Promise<void> {
    if (droppedLines > 0) options.onDropped(droppedLines);
    const lines = createLineSplitter(options.lineBytesMax, options, options.heldMemory);
    if (beginning !== undefined) lines.takeUp(beginning);
    for (let from = 0; from < bytes.length; from += turnBytesMax) {
      lines.write(bytes.subarray(from, from + turnBytesMax));
      await turn();
    }
    lines.end();
  }

  /** Marks a new connection as silent after two turns of the event loop: bytes that came with it are read in the first. */
  async function watchSilence(connection: Connection): Promise<void> {
    await turn();
    await turn();
    if (connection.is !== 'new') return;
    connection.is = 'silent';
    options.connections.silent(connection);
  }

  /** Its line counts as unterminated. */
  function closeWhenSlow(socket: Socket, connection: Connection): void {
    const line = connection.lines.unfinished;
    connection.unfinished = { line, looks: line === connection.unfinished.line ? connection.unfinished.looks + 1 : 0 };
    if (line === 0 || connection.unfinished.looks < looksMax) return;
    options.onError(`one line took more than ${lineMsMax / 1000} s. Its connection is closed`);
    socket.destroy();
  }

  function connectionOf(socket: Socket): Connection {
    const { remoteAddress } = socket;
    const connection: Connection = {
      peer: address.kind === 'unix' ? undefined : peerAddress(remoteAddress ?? ''),
      is: 'new', lastReadMs: 0, unfinished: { line: 0, looks: 0 },
      lines: createLineSplitter(options.lineBytesMax, options, options.heldMemory),
      takeHeld: () => undefined,
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
    connection.takeHeld = takeHeld;
    if (earlier?.beginning !== undefined) lines.takeUp(earlier.beginning);
    if (earlier?.hasSentLines === true) {
      connection.is = 'sending';
      options.connections.sent(connection);
    } else {
      void watchSilence(connection);
    }
    socket.on('data', takeChunk);
    // Reset, timed out or the like: 'close' follows.
    socket.on('error', (error) => { options.onError(messageOf(error)); });
    socket.once('close', () => {
      takeHeld();
      sources.current = source;
      lines.end();
      for (let cut = source.partialLines?.end() ?? 0; cut > 0; cut -= 1) options.onUnterminated();
      sources.close(source);
    });

    function takeChunk(chunk: Buffer): void {
      connection.lastReadMs = performance.now();
      sources.current = source;
      if (connection.is === 'sending') lines.write(chunk);
      else takeFirst(chunk);
      boundTurn(socket, chunk.length);
    }

    /** Until a line was understood. */
    function takeFirst(chunk: Buffer): void {
      const before = options.linesUnderstood();
      lines.write(chunk);
      if (options.linesUnderstood() > before) {
        connection.is = 'sending';
        options.connections.sent(connection);
        server.sentLines(socket);
      } else if (connection.is === 'silent') {
        options.connections.silent(connection); // it is the last to be evicted now
      }
    }

    function takeHeld(): void {
      sources.current = source;
      socket.off('data', takeChunk); // reading tells the listeners too, but not always
      for (let held; (held = socket.read() as Buffer | null) !== null;) lines.write(held);
    }
  }

  /** Lets a socket wait for the next turn when this one has brought enough. It may hold bytes meanwhile: see `takeHeld`. */
  function boundTurn(socket: Socket, bytes: number): void {
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

/** The peer's address and port; of a unix socket, which has none, its path. */
function peerOf({ remoteAddress = 'gone', remotePort = 0 }: Socket, address: StreamAddress): string {
  return address.kind === 'unix' ? formatListenAddress(address) : formatAddress({ host: withoutMapping(remoteAddress), port: remotePort });
}

/**
 * Closes a connection when it has been quiet and the kernel holds nothing more of it: closing with bytes unread would send
 * a reset, which costs Caddy 9 to 17 lines instead of 1. The FIN goes first: a peer that reads then ends its own side.
 */
async function drain(socket: Socket, state: Connection): Promise<void> {
  if (socket.destroyed) return;
  const closed = new Promise<void>((resolve) => { socket.once('close', () => { resolve(); }); });
  socket.end();
  const startMs = performance.now();
  const quietSinceMs = (): number => performance.now() - Math.max(startMs, state.lastReadMs);
  while (!socket.closed && quietSinceMs() < quietMsMin && performance.now() - startMs < drainMsMax) await sleep(quietMsMin / 10);
  // A peer that never pauses is left between two reads: the event loop reads sockets once in each turn, also those that had to wait.
  for (let beforeMs = -1, turns = 0; beforeMs !== state.lastReadMs && turns < 100; turns += 1) {
    beforeMs = state.lastReadMs;
    await turn();
    await turn();
  }
  socket.destroy();
  await closed;
}
