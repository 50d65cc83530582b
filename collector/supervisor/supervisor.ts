/**
 * The supervisor: a small process that owns the stream sockets and all connections, and outlives the worker that reads
 * them.
 *
 * - Normally it reads nothing. Worker and supervisor each have a descriptor of the same socket, and the peer sees the
 *   end of the connection only when both are closed. So the worker reports closed connections.
 * - UDP sockets belong to the worker: Node cannot hold a datagram socket without reading it.
 * - A worker sends `ready` with its listen addresses when its settings are valid. At `go`, when its predecessor has
 *   ended, it opens its store and every other exclusive resource. It sends `take` for each address that it reads, and
 *   `running` when it has started.
 * - Messages of a channel arrive in order, with and without sockets. Connections passed on before `stop` belong to the
 *   old worker, which reads them or hands them back. Later ones wait for the next worker.
 * - A worker gets connections once it is `running`. From then on it must answer four pings per second. If it does not
 *   answer for `silentMsMax`, it is killed and a new worker gets its connections: closing this process's descriptor
 *   would not close the worker's.
 * - An unread connection blocks Caddy. So after `unreadMsMax` all connections, including new ones, are closed until a
 *   worker reads again; Caddy then writes its lines to stderr, from where `import` can read them. Before closing, this
 *   process reads what the kernel has buffered, and keeps up to `unreadBytesMax` of it for the next worker.
 * - Connections of a killed worker that hangs in the kernel cannot be closed; this process reads them until that worker
 *   has exited. Lines beyond `unreadBytesMax` are dropped and counted.
 */
import { fork, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { messageOf } from '../../shared/errors.js';
import { rateLimitedWarn, type Log } from '../../shared/log.js';
import { pause } from '../../shared/retry.js';
import type { UsedTimes } from '../../shared/record/unique-time.js';
import type { PartialLine } from '../lines.js';
import { formatListenAddress } from '../listen/address.js';
import {
  openStream,
  type EarlierReads,
  type OpenedStream,
  type StreamAddress,
  type Unread,
} from '../listen/sockets.js';
import { OwnClock, SilenceWatch, tickMs } from './silence.js';
import { UnreadBytes, UnreadQueue } from './unread-bytes.js';

/** Environment variable that the supervisor sets for its workers. Its value is the protocol version. */
export const supervisorVariable = 'CADDY_LOG_SINK_KEEPER';
/**
 * Protocol version. Raise it when the messages change: a worker of another version refuses to start, and the old one
 * keeps running.
 */
export const supervisorVersion = '3';

/** A message from the worker. Addresses are in the format of `formatListenAddress`. */
export type FromWorker =
  | {
      readonly type: 'ready';
      readonly listen: readonly StreamAddress[];
      readonly unixMode: number;
      readonly connectionsMax: number;
    }
  | { readonly type: 'take'; readonly address: string }
  | { readonly type: 'running' }
  /** The answer to `ping`. */
  | { readonly type: 'pong' }
  /** The peer has sent a valid line. Sent once per connection. */
  | { readonly type: 'sent-lines'; readonly id: number }
  /** The worker has closed its descriptor, and the connection is finished. */
  | { readonly type: 'closed'; readonly id: number }
  /** The worker has closed its descriptor, and the next worker continues to read. */
  | { readonly type: 'handed-back'; readonly id: number; readonly beginning: PartialLine }
  /** The last message. The next worker gets the times. */
  | { readonly type: 'done'; readonly usedTimes: UsedTimes | undefined };

/** A message from the supervisor. */
export type ToWorker =
  | {
      readonly type: 'go';
      readonly ports: ReadonlyMap<string, number | undefined>;
      readonly usedTimes: UsedTimes | undefined;
    }
  | { readonly type: 'ping' }
  | {
      readonly type: 'cannot-listen';
      readonly address: string;
      readonly code: string | undefined;
      readonly message: string;
    }
  /** Sent with the socket. */
  | { readonly type: 'connection'; readonly address: string; readonly id: number; readonly earlier: EarlierReads }
  | ({ readonly type: 'unread' } & Unread)
  | { readonly type: 'stop'; readonly handBack: boolean };

interface Worker {
  readonly process: ChildProcess;
  /** Resolves to whether its settings are valid and its addresses are open; to `false` if it ended before. */
  readonly ready: Promise<boolean>;
  /** Resolves to its exit status, after all its messages have arrived. */
  readonly ended: Promise<number>;
  readonly startMs: number;
  addresses: readonly string[];
  readonly takes: Set<string>;
  isRunning: boolean;
  /** A stop was requested. It gets no more connections. */
  isStopping: boolean;
  /** It did not answer and was killed. It never reads again, but may take a while to exit. */
  isKilled: boolean;
  readonly silence: SilenceWatch;
  /** Connections for which it has a descriptor. */
  readonly held: Set<number>;
}

interface Connection {
  readonly address: string;
  readonly socket: Socket;
  /** Kept here, since a closed socket has none. */
  readonly remoteAddress: string | undefined;
  beginning: PartialLine | undefined;
  hasSentLines: boolean;
}

/**
 * Maximum time for which connections may go unread, in milliseconds by `OwnClock`: since a hung worker last answered,
 * or since a worker ended. Half of it is `silentMsMax`; the rest is for the next worker to start.
 */
const unreadMsMax = 4000;
/**
 * How long this process reads a connection before it closes it, in milliseconds. The kernel buffers a few megabytes at
 * most.
 */
const readMs = 250;
/** Maximum number of bytes kept for the next worker, over all connections. Beyond it, lines are dropped and counted. */
const unreadBytesMax = 16 * 2 ** 20;
/** Maximum time for a worker to hand over, in milliseconds. Then it is killed. */
const handOverMsMax = 15_000;
/** Back-off before a crashed worker is restarted, in milliseconds. Doubles from the minimum to the maximum. */
const backoffMsMin = 100;
const backoffMsMax = 10_000;
/** Minimum uptime of a worker after which the back-off is reset, in milliseconds. */
const stableMsMin = 10_000;

/** Dependencies of `runSupervisor`. */
export interface SupervisorParts {
  /** The program's entry file. */
  readonly program: string;
  readonly args: readonly string[];
  readonly log: Log;
  /** Kills a worker that does not answer. Default: with SIGKILL. */
  readonly kill?: (worker: ChildProcess) => void;
}

/**
 * Runs the program as a worker, and restarts it on SIGHUP and when it exits unexpectedly, until SIGTERM or SIGINT.
 * Resolves to the exit status.
 */
export async function runSupervisor({
  program,
  args,
  log,
  kill = (worker) => worker.kill('SIGKILL'),
}: SupervisorParts): Promise<number> {
  const sockets = new Map<string, OpenedStream>();
  const connections = new Map<number, Connection>();
  const stopped = new AbortController();
  let lastId = 0;
  let hasRun = false as boolean; // set in `handleMessage`
  /** Whether another restart was requested during a restart. */
  let isRestartPending = false;
  let next = undefined as Worker | undefined; // set in `restart`
  let usedTimes: UsedTimes | undefined;
  /** How long no worker has read, in milliseconds; `undefined` while one does. */
  let unreadMs = undefined as number | undefined; // set in `startUnread`
  /** Whether unread connections stay open. `false` from `closeUnread` until a worker is running. */
  let isHolding = true;
  let connectionsMax = Infinity;
  /** Connections that this process reads, since no worker does. */
  const reading = new Map<number, UnreadBytes>();
  const unread = new UnreadQueue();
  const room = { bytes: unreadBytesMax };
  let active = startWorker();
  const warn = rateLimitedWarn(log.warn);
  const clock = new OwnClock();
  const ticker = setInterval(tick, tickMs);

  log.info(`To restart without losing a line: kill -HUP ${process.pid}`);
  process.on('SIGHUP', restart);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop);

  for (let pauseMs = backoffMsMin; ; ) {
    const worker = active;
    void worker.ready.then((isReady) => {
      if (isReady)
        send(worker, {
          type: 'go',
          ports: new Map([...sockets].map(([address, { port }]) => [address, port])),
          usedTimes,
        });
    });
    const status = await worker.ended;
    log.debug('A worker has ended.', { pid: worker.process.pid ?? 0, status });
    worker.isRunning = false;
    startUnread();
    if (worker.isKilled) endReading(worker.held);
    if (next !== undefined) {
      if (status !== 0)
        log.error('The old worker did not hand over cleanly: lines may be lost. The new one takes over.', { status });
      active = next;
      next = undefined;
      continue;
    }
    if (!stopped.signal.aborted && hasRun) {
      pauseMs = performance.now() - worker.startMs > stableMsMin ? backoffMsMin : Math.min(2 * pauseMs, backoffMsMax);
      if (!worker.isKilled)
        log.error(
          'The worker exited unexpectedly. Lines that it had read but not stored are lost. Its connections stay open; starting a new worker.',
          { status, pauseMs },
        );
      await pause(pauseMs, stopped.signal);
    }
    if (stopped.signal.aborted || !hasRun) {
      clearInterval(ticker);
      if (unread.size > 0)
        log.error('Lines buffered while there was no worker are lost: no new worker has started.', {
          bytes: unreadBytesMax - room.bytes,
        });
      for (const socket of sockets.values()) void socket.close();
      closeConnections();
      return status;
    }
    isRestartPending = false;
    active = startWorker();
  }

  function startWorker(): Worker {
    // Without the dashes, Node interprets --env-file as its own option, at any position.
    const child = fork(program, args, {
      execArgv: [...process.execArgv, '--'],
      serialization: 'advanced',
      env: { ...process.env, [supervisorVariable]: supervisorVersion },
    });
    child.on('error', (error) => {
      if (child.connected) log.warn(`Cannot reach the worker: ${error.message}`);
    });
    const ended = child.pid === undefined ? Promise.resolve(1) : endOf(child); // not spawned: only 'error' is emitted
    const ready = new Promise<boolean>((resolve) => {
      child.on('message', (message: FromWorker) => {
        void handleMessage(worker, message, () => {
          resolve(true);
        });
      });
      void ended.then(() => {
        resolve(false);
      });
    });
    const worker: Worker = {
      process: child,
      ready,
      ended,
      startMs: performance.now(),
      addresses: [],
      takes: new Set(),
      isRunning: false,
      isStopping: false,
      isKilled: false,
      silence: new SilenceWatch(),
      held: new Set(),
    };
    return worker;
  }

  async function handleMessage(worker: Worker, message: FromWorker, onReady: () => void): Promise<void> {
    switch (message.type) {
      case 'ready':
        worker.addresses = message.listen.map(formatListenAddress);
        ({ connectionsMax } = message);
        for (const address of message.listen) {
          try {
            await open(address, message.unixMode);
          } catch (error) {
            send(worker, {
              type: 'cannot-listen',
              address: formatListenAddress(address),
              code: (error as NodeJS.ErrnoException).code,
              message: messageOf(error),
            });
            return;
          }
        }
        onReady();
        break;
      case 'take':
        worker.takes.add(message.address);
        break;
      case 'running':
        log.debug('A worker is running.', { pid: worker.process.pid ?? 0, connections: connections.size });
        worker.isRunning = true;
        hasRun = true;
        isHolding = true;
        unreadMs = undefined;
        passUnread(worker);
        worker.silence.answered();
        for (const [id, connection] of connections)
          if (worker.takes.has(connection.address) && !reading.has(id)) pass(worker, id, connection);
        closeUnwanted();
        if (stopped.signal.aborted) end(worker);
        else if (isRestartPending) restart();
        break;
      case 'pong':
        worker.silence.answered();
        break;
      case 'sent-lines': {
        const connection = connections.get(message.id);
        if (connection !== undefined) connection.hasSentLines = true;
        break;
      }
      case 'closed':
        worker.held.delete(message.id);
        if (reading.has(message.id)) break; // `endReading` closes it
        connections.get(message.id)?.socket.destroy();
        connections.delete(message.id);
        break;
      case 'handed-back': {
        const connection = connections.get(message.id);
        worker.held.delete(message.id);
        if (connection !== undefined) connection.beginning = message.beginning;
        break;
      }
      case 'done':
        ({ usedTimes } = message);
    }
  }

  function send(worker: Worker, message: ToWorker, done?: () => void): void {
    if (worker.process.connected)
      worker.process.send(message, () => {
        done?.();
      });
  }

  async function open(address: StreamAddress, unixMode: number): Promise<void> {
    const name = formatListenAddress(address);
    if (sockets.has(name)) return;
    sockets.set(
      name,
      await openStream(
        address,
        {
          unixMode,
          onError: (message) => {
            log.warn(`A socket failed: ${message}`, { address: name });
          },
          onConnection: (socket) => {
            accept(name, socket);
          },
        },
        { pauseOnConnect: true },
      ),
    );
  }

  function accept(address: string, socket: Socket): void {
    socket.on('error', () => undefined); // the worker sees the error, too, and logs it
    const isRead = canRead(active) && active.takes.has(address);
    // The worker enforces `connectionsMax`. Twice that number leaves room for connections that it is closing.
    if (connections.size >= 2 * connectionsMax) {
      socket.destroy();
      return;
    }
    const connection: Connection = {
      address,
      socket,
      remoteAddress: socket.remoteAddress,
      beginning: undefined,
      hasSentLines: false,
    };
    connections.set((lastId += 1), connection);
    if (isRead) {
      pass(active, lastId, connection);
      return;
    }
    // A new address that the active worker does not read waits for the next worker. All other connections are still
    // being read.
    if (!canRead(active)) startUnread();
    if (!isHolding) readHere(lastId, connection); // buffers what Caddy has sent, then closes
  }

  function canRead({ isRunning, isStopping, isKilled }: Worker): boolean {
    return isRunning && !isStopping && !isKilled;
  }

  function pass(worker: Worker, id: number, connection: Connection): void {
    const { address, socket, beginning, hasSentLines } = connection;
    connection.beginning = undefined; // the worker owns it now: after a crash, its successor starts mid-line
    if (!worker.process.connected) return;
    worker.held.add(id);
    worker.process.send(
      { type: 'connection', address, id, earlier: { beginning, hasSentLines } } satisfies ToWorker,
      socket,
      { keepOpen: true },
    );
  }

  /** Records that no worker has been reading for `forMs` milliseconds. */
  function startUnread(forMs = 0): void {
    unreadMs ??= forMs;
  }

  function tick(): void {
    const passedMs = clock.tick();
    for (const worker of new Set([active, next])) if (worker !== undefined) watch(worker, passedMs);
    if (unreadMs === undefined) return;
    unreadMs += passedMs;
    if (unreadMs >= unreadMsMax && isHolding) closeUnread();
  }

  /**
   * Pings a running worker and kills it if it does not answer. Ignores a stopping worker without connections, since it
   * blocks nobody.
   */
  function watch(worker: Worker, passedMs: number): void {
    if (!worker.isRunning || worker.isKilled || (worker.isStopping && worker.held.size === 0)) return;
    const silentMs = worker.silence.tick(passedMs);
    if (silentMs === undefined) {
      send(worker, { type: 'ping' });
      return;
    }
    worker.isKilled = true;
    log.error(
      'The worker does not answer: it was stopped, or hangs. Killing it so that Caddy does not block. Lines that it had read but not stored are lost. Its connections stay open; starting a new worker.',
      { pid: worker.process.pid ?? 0, silentMs: Math.round(silentMs), connections: worker.held.size },
    );
    startUnread(silentMs);
    kill(worker.process);
  }

  /**
   * Closes all connections, so that Caddy does not block any longer. Reads what the kernel has buffered first: Caddy
   * believes that those lines were sent, so they have to be counted.
   */
  function closeUnread(): void {
    isHolding = false;
    const hanging = [active, next].find((worker) => worker?.isKilled === true);
    const isHung = (id: number): boolean => hanging?.held.has(id) === true;
    const hung = [...connections.keys()].filter(isHung).length;
    const closed = connections.size - hung;
    for (const [id, connection] of connections) readHere(id, connection, { untilEnded: isHung(id) });
    if (closed > 0)
      log.error(
        'Nothing has read the connections for too long. Closing them, so that Caddy does not block: it now writes its log lines to its stderr, from where `import` can read them.',
        { connections: closed, unreadMsMax },
      );
    if (hung > 0)
      log.error(
        'The killed worker cannot end: it hangs in the kernel, perhaps on disk I/O. Its connections cannot be closed, so the supervisor reads them until it has exited. Lines beyond unreadBytesMax are dropped and counted.',
        { connections: hung, pid: hanging?.process.pid ?? 0, unreadBytesMax },
      );
  }

  /**
   * Reads a connection in place of a worker that has ended, or that was killed and has not exited: with SIGKILL
   * pending, it never reads again.
   */
  function readHere(id: number, { socket }: Connection, { untilEnded = false } = {}): void {
    if (reading.has(id)) return;
    const bytes = new UnreadBytes(room);
    reading.set(id, bytes);
    socket.on('data', (chunk) => {
      bytes.add(chunk);
    });
    socket.resume();
    if (!untilEnded)
      setTimeout(() => {
        endReading([id]);
      }, readMs);
  }

  /** Closes connections that this process reads, right after a read, so that hardly anything arrives in between. */
  function endReading(ids: Iterable<number>): void {
    setImmediate(() => {
      for (const id of ids) {
        const read = reading.get(id);
        const connection = connections.get(id);
        if (read === undefined || connection === undefined) continue;
        const { bytes: keptBytes, droppedLines } = read;
        if (keptBytes > 0 || droppedLines > 0)
          warn(
            'unread',
            'No worker could read a connection, and it was closed. Its buffered lines go to the next worker; lines beyond unreadBytesMax count as dropped (no-worker).',
            { keptBytes, droppedLines, unreadBytesMax },
          );
        unread.add({
          address: connection.address,
          remoteAddress: connection.remoteAddress,
          beginning: connection.beginning,
          bytes: read.take(),
          droppedLines,
        });
        connection.socket.destroy();
        connections.delete(id);
        reading.delete(id);
      }
      if (canRead(active)) passUnread(active);
    });
  }

  function passUnread(worker: Worker): void {
    for (const message of unread.takeAll()) {
      room.bytes += message.bytes.length;
      send(worker, { type: 'unread', ...message });
    }
  }

  /** SIGHUP: starts a new worker, which takes over if its settings are valid. */
  function restart(): void {
    if (stopped.signal.aborted) return;
    isRestartPending = next !== undefined || !active.isRunning;
    if (isRestartPending) return;
    const worker = (next = startWorker());
    void worker.ready.then((isReady) => {
      if (next !== worker) return; // the old worker has exited, and this one has already replaced it
      if (isReady) {
        const old = active;
        old.isStopping = true;
        startUnread();
        send(old, { type: 'stop', handBack: true });
        const killer = setTimeout(() => old.process.kill('SIGKILL'), handOverMsMax);
        void old.ended.then(() => {
          clearTimeout(killer);
        });
        return;
      }
      next = undefined;
      closeUnwanted();
      if (!stopped.signal.aborted)
        log.error(
          'The new worker did not start: see its own message. The old one keeps running. Fix the cause and send SIGHUP again.',
        );
      if (isRestartPending) restart();
    });
  }

  /** SIGTERM and SIGINT: reads and stores what has arrived. A second signal exits immediately. */
  function stop(): void {
    if (stopped.signal.aborted) {
      for (const worker of [active, next]) worker?.process.kill('SIGKILL');
      process.exit(1);
    }
    stopped.abort();
    if (next !== undefined && !active.isStopping) next.process.kill('SIGKILL'); // it has no connections yet
    for (const socket of sockets.values()) void socket.close();
    if (active.isRunning && !active.isStopping) end(active); // a starting worker is stopped once it runs
  }

  /** Stops a worker and closes this process's descriptors, so that the worker closes the connections itself. */
  function end(worker: Worker): void {
    worker.isStopping = true;
    send(worker, { type: 'stop', handBack: false }, () => {
      closeConnections();
    });
  }

  /** Closes the connections of a listen address, or all of them. */
  function closeConnections(listenAddress?: string): void {
    for (const [id, { address, socket }] of connections) {
      if ((listenAddress !== undefined && address !== listenAddress) || reading.has(id)) continue;
      socket.destroy();
      connections.delete(id);
    }
  }

  /** Closes addresses that are no longer in the settings. */
  function closeUnwanted(): void {
    const wanted = new Set([...active.addresses, ...(next?.addresses ?? [])]);
    for (const [address, socket] of sockets) {
      if (wanted.has(address)) continue;
      void socket.close();
      sockets.delete(address);
      closeConnections(address);
    }
  }
}

/** Time for which the last message of a worker may arrive after its exit, in milliseconds. */
const lastMessageMsMax = 1000;

/**
 * Resolves to the exit status of a process once no message from it can arrive. Node does not always emit 'disconnect'
 * for a process that was killed while sockets were being passed to it.
 */
function endOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once('exit', (status) => {
      const end = (): void => {
        resolve(status ?? 1);
      };
      if (!child.connected) {
        end();
        return;
      }
      const timer = setTimeout(end, lastMessageMsMax);
      child.once('disconnect', () => {
        clearTimeout(timer);
        end();
      });
    });
  });
}
