import type { Socket } from 'node:net';
import { rateLimitedWarn, type Log } from '../../shared/log.js';
import type { PartialLine } from '../lines.js';
import { formatListenAddress } from '../listen/address.js';
import { openStream, type OpenedStream, type StreamAddress } from '../listen/sockets.js';
import { Connection } from './connection.js';
import { UnreadQueue } from './unread-bytes.js';
import type { WorkerProcess } from './worker-process.js';

/**
 * Maximum time for which connections may go unread, in milliseconds by `OwnClock`: since a hung worker last answered,
 * or since a worker ended. Half of it is `silentMsMax`; the rest is for the next worker to start.
 */
const unreadMsMax = 4000;
/**
 * How long this process reads a connection before it closes it, in milliseconds. The kernel buffers several megabytes:
 * while there is more to read, it reads on, for `readMsMax` at most.
 */
const readMs = 250;
const readMsMax = 3000;
/** Maximum number of bytes kept for the next worker, over all connections. Beyond it, lines are dropped and counted. */
const unreadBytesMax = 16 * 2 ** 20;

/**
 * The listening sockets and all accepted connections, which outlive the workers.
 *
 * - Normally nothing is read here. Worker and supervisor each have a descriptor of the same socket, and the peer sees
 *   the end of the connection only when both are closed. So the worker reports closed connections.
 * - An unread connection blocks Caddy. So after `unreadMsMax` all connections, including new ones, are closed until a
 *   worker reads again; Caddy then writes its lines to stderr, from where `import` can read them. Before closing, this
 *   process reads what the kernel has buffered, and keeps up to `unreadBytesMax` of it for the next worker.
 * - Connections of a killed worker that hangs in the kernel cannot be closed; this process reads them until that worker
 *   has exited. Lines beyond `unreadBytesMax` are dropped and counted.
 */
export class Connections {
  readonly #log: Log;
  readonly #warn: ReturnType<typeof rateLimitedWarn>;
  readonly #activeWorker: () => WorkerProcess;
  /** By listen address, as `formatListenAddress` writes it. */
  readonly #sockets = new Map<string, OpenedStream>();
  readonly #connections = new Map<number, Connection>();
  #lastId = 0;
  #connectionsMax = Infinity;
  readonly #unread = new UnreadQueue();
  /** Remaining capacity for unread bytes. */
  readonly #room = { bytes: unreadBytesMax };
  /** How long no worker has read, in milliseconds; `undefined` while one does. */
  #unreadMs: number | undefined;
  /** Whether unread connections stay open. `false` from `#closeUnread` until a worker is running. */
  #isHolding = true;

  /** New connections go to the worker that `activeWorker` returns, if it can read. */
  constructor({ log, activeWorker }: { readonly log: Log; readonly activeWorker: () => WorkerProcess }) {
    this.#log = log;
    this.#warn = rateLimitedWarn(log.warn);
    this.#activeWorker = activeWorker;
  }

  /** Listens on an address, unless it does already. Throws the system's error. */
  async listen(address: StreamAddress, unixMode: number): Promise<void> {
    const name = formatListenAddress(address);
    if (this.#sockets.has(name)) return;
    const socket = await openStream(
      address,
      {
        unixMode,
        onError: (message) => {
          this.#log.warn(`A socket failed: ${message}`, { address: name });
        },
        onConnection: (socket) => {
          this.#accept(name, socket);
        },
      },
      { pauseOnConnect: true },
    );
    this.#sockets.set(name, socket);
  }

  /** Port of each listen address; `undefined` for unix sockets. */
  get ports(): Map<string, number | undefined> {
    return new Map([...this.#sockets].map(([address, { port }]) => [address, port]));
  }

  /** Sets how many connections a worker accepts. Default: any number. */
  limit(connectionsMax: number): void {
    this.#connectionsMax = connectionsMax;
  }

  /** Passes everything to a worker that has just started: buffered lines first, then the connections that it takes. */
  passTo(worker: WorkerProcess): void {
    this.#isHolding = true;
    this.#unreadMs = undefined;
    this.#passUnread(worker);
    for (const [id, connection] of this.#connections)
      if (worker.takes.has(connection.address) && !connection.isReadHere) connection.passTo(worker, id);
  }

  /** Records that the peer has sent a valid line. */
  sentLines(id: number): void {
    const connection = this.#connections.get(id);
    if (connection !== undefined) connection.hasSentLines = true;
  }

  /** Closes a connection that the worker has finished. */
  finish(id: number): void {
    const connection = this.#connections.get(id);
    if (connection === undefined || connection.isReadHere) return; // `#endReading` closes it
    connection.close();
    this.#connections.delete(id);
  }

  /** Takes a connection back from a worker that has read the beginning of a line. */
  takeBack(id: number, beginning: PartialLine): void {
    const connection = this.#connections.get(id);
    if (connection !== undefined) connection.beginning = beginning;
  }

  /** Records that no worker has been reading for `forMs` milliseconds. */
  startUnread(forMs = 0): void {
    this.#unreadMs ??= forMs;
  }

  /**
   * Counts the time for which no worker has read, in milliseconds by `OwnClock`, and closes all connections when it is
   * too long. `hung`: a worker that was killed and has not ended.
   */
  tick(passedMs: number, hung: WorkerProcess | undefined): void {
    if (this.#unreadMs === undefined) return;
    this.#unreadMs += passedMs;
    if (this.#unreadMs >= unreadMsMax && this.#isHolding) this.#closeUnread(hung);
  }

  /** Records that a worker has ended. The connections of a killed one can be closed now. */
  workerEnded(worker: WorkerProcess): void {
    this.startUnread();
    if (worker.isKilled) this.#endReading(worker.held);
  }

  /** Closes the listen addresses that are not in `wanted`, with their connections. */
  closeUnwanted(wanted: ReadonlySet<string>): void {
    for (const [address, socket] of this.#sockets) {
      if (wanted.has(address)) continue;
      void socket.close();
      this.#sockets.delete(address);
      this.closeAll(address);
    }
  }

  /** Stops listening. Connections stay open. */
  stopListening(): void {
    for (const socket of this.#sockets.values()) void socket.close();
  }

  /** Closes the connections of a listen address, or all of them, except those that this process reads. */
  closeAll(listenAddress?: string): void {
    for (const [id, connection] of this.#connections) {
      if ((listenAddress !== undefined && connection.address !== listenAddress) || connection.isReadHere) continue;
      connection.close();
      this.#connections.delete(id);
    }
  }

  /** Closes everything at the end of the supervisor, and logs the lines that no worker has taken. */
  close(): void {
    if (this.#unread.size > 0)
      this.#log.error('Lines buffered while there was no worker are lost: no new worker has started.', {
        bytes: unreadBytesMax - this.#room.bytes,
      });
    this.stopListening();
    this.closeAll();
  }

  #accept(address: string, socket: Socket): void {
    socket.on('error', () => undefined); // the worker sees the error, too, and logs it
    // The worker enforces `connectionsMax`. Twice that number leaves room for connections that it is closing.
    if (this.#connections.size >= 2 * this.#connectionsMax) {
      socket.destroy();
      return;
    }
    const connection = new Connection(address, socket);
    const id = (this.#lastId += 1);
    this.#connections.set(id, connection);
    const worker = this.#activeWorker();
    if (worker.canRead && worker.takes.has(address)) {
      connection.passTo(worker, id);
      return;
    }
    // A new address that the active worker does not read waits for the next worker. All other connections are still
    // being read.
    if (!worker.canRead) this.startUnread();
    if (!this.#isHolding) this.#read(id, connection); // buffers what Caddy has sent, then closes
  }

  /**
   * Closes all connections, so that Caddy does not block any longer. Reads what the kernel has buffered first: Caddy
   * believes that those lines were sent, so they have to be counted.
   */
  #closeUnread(hung: WorkerProcess | undefined): void {
    this.#isHolding = false;
    const isHung = (id: number): boolean => hung?.held.has(id) === true;
    const hungCount = [...this.#connections.keys()].filter(isHung).length;
    const closed = this.#connections.size - hungCount;
    for (const [id, connection] of this.#connections) this.#read(id, connection, { untilEnded: isHung(id) });
    if (closed > 0)
      this.#log.error(
        'Nothing has read the connections for too long. Closing them, so that Caddy does not block: it now writes its log lines to its stderr, from where `import` can read them.',
        { connections: closed, unreadMsMax },
      );
    if (hungCount > 0)
      this.#log.error(
        'The killed worker cannot end: it hangs in the kernel, perhaps on disk I/O. Its connections cannot be closed, so the supervisor reads them until it has exited. Lines beyond unreadBytesMax are dropped and counted.',
        { connections: hungCount, pid: hung?.pid ?? 0, unreadBytesMax },
      );
  }

  /**
   * Reads a connection in place of a worker that has ended, or that was killed and has not exited: with SIGKILL
   * pending, it never reads again.
   */
  #read(id: number, connection: Connection, { untilEnded = false } = {}): void {
    if (connection.isReadHere) return;
    connection.read(this.#room);
    if (!untilEnded) this.#endWhenDrained(id, connection, readMs);
  }

  #endWhenDrained(id: number, connection: Connection, afterMs: number): void {
    setTimeout(() => {
      if (connection.hasMore && afterMs < readMsMax) this.#endWhenDrained(id, connection, afterMs + readMs);
      else this.#endReading([id]);
    }, readMs);
  }

  /** Closes connections that this process reads, right after a read, so that hardly anything arrives in between. */
  #endReading(ids: Iterable<number>): void {
    setImmediate(() => {
      for (const id of ids) {
        const unread = this.#connections.get(id)?.takeUnread();
        if (unread === undefined) continue;
        const keptBytes = unread.bytes.length;
        const { droppedLines } = unread;
        if (keptBytes > 0 || droppedLines > 0)
          this.#warn(
            'unread',
            'No worker could read a connection, and it was closed. Its buffered lines go to the next worker; lines beyond unreadBytesMax count as dropped (no-worker).',
            { keptBytes, droppedLines, unreadBytesMax },
          );
        this.#unread.add(unread);
        this.#connections.get(id)?.close();
        this.#connections.delete(id);
      }
      const worker = this.#activeWorker();
      if (worker.canRead) this.#passUnread(worker);
    });
  }

  #passUnread(worker: WorkerProcess): void {
    for (const message of this.#unread.takeAll()) {
      this.#room.bytes += message.bytes.length;
      worker.send({ type: 'unread', ...message });
    }
  }
}
