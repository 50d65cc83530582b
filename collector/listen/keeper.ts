/**
 * The keeper: a small process that owns the stream sockets and every connection, and outlives the worker that reads them.
 *
 * - It reads nothing. Worker and keeper each have a descriptor of the same socket; a peer sees its end only when both are closed. So the
 *   worker says when a connection has ended.
 * - UDP is not kept: Node cannot hold a datagram socket without reading it. Each worker opens its own.
 * - A worker says `ready` when its settings are good, and what to listen on. It opens its store, and all else that only one process can
 *   have, at `go`, when the one before it has ended. It says `take` for each address that it reads, and `running` when it has started.
 * - Messages of one channel arrive in their order, with and without sockets: what was passed on before `stop` is the old worker's, and is
 *   read or handed back by it; what comes later waits for the next.
 * - A worker gets connections when it is `running`. From then on it answers a `ping` four times a second. One that has not answered for
 *   `silentMsMax` is killed, and a new one gets its connections: closing this process's copy would not free Caddy of a worker that has its own.
 * - An unread connection makes Caddy wait, so after `unreadMsMax` all connections are closed, and new ones too, until a worker reads again. Caddy
 *   writes its lines to stderr meanwhile, and `import` takes them from there. Before closing, this process reads what the kernel has buffered and
 *   keeps up to `unreadBytesMax` of it for the next worker. Connections of a killed worker that hangs in the kernel stay open; this process reads
 *   them until that worker has ended. Lines beyond `unreadBytesMax` are dropped and counted.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { messageOf } from '../../shared/errors.js';
import { limitLog, type Log } from '../../shared/log.js';
import { pause } from '../../shared/retry.js';
import type { UsedTimes } from '../../shared/unique-time.js';
import type { LineBeginning } from '../lines.js';
import { formatListenAddress } from './address.js';
import { openStream, type EarlierReads, type OpenedStream, type StreamAddress, type Unread } from './sockets.js';
import { OwnClock, SilenceWatch, tickMs } from './silence.js';
import { UnreadBytes } from './unread.js';

/** Tells a worker that a keeper started it, and which version of the messages below the keeper speaks. */
export const keeperVariable = 'CADDY_LOG_SINK_KEEPER';
/** To be raised when the messages change: a worker of another version refuses to start, and the old one goes on. */
export const keeperVersion = '2';

/** What a worker says. Addresses are named as `formatListenAddress` writes them. */
export type FromWorker =
  | { readonly type: 'ready'; readonly listen: readonly StreamAddress[]; readonly unixMode: number; readonly connectionsMax: number }
  | { readonly type: 'take'; readonly address: string }
  | { readonly type: 'running' }
  /** The answer to `ping`. */
  | { readonly type: 'pong' }
  /** The peer has sent a line that was understood; once for each connection. */
  | { readonly type: 'sent-lines'; readonly id: number }
  /** Its copy is closed, and nobody is to read on. */
  | { readonly type: 'closed'; readonly id: number }
  /** Its copy is closed, and the next worker reads on. */
  | { readonly type: 'handed-back'; readonly id: number; readonly beginning: LineBeginning }
  /** The last word: all before it has been sent. The next worker gets the times. */
  | { readonly type: 'done'; readonly usedTimes: UsedTimes | undefined };

/** What a keeper says. */
export type ToWorker =
  | { readonly type: 'go'; readonly ports: ReadonlyMap<string, number | undefined>; readonly usedTimes: UsedTimes | undefined }
  | { readonly type: 'ping' }
  | { readonly type: 'cannot-listen'; readonly address: string; readonly code: string | undefined; readonly message: string }
  /** Comes with the socket. */
  | { readonly type: 'connection'; readonly address: string; readonly id: number; readonly earlier: EarlierReads }
  | ({ readonly type: 'unread'; readonly address: string } & Unread)
  | { readonly type: 'stop'; readonly handBack: boolean };

interface Worker {
  readonly process: ChildProcess;
  /** Whether its settings are good and its addresses are open; `false` when it ended before. */
  readonly ready: Promise<boolean>;
  /** Its exit status; by then all its messages have come. */
  readonly ended: Promise<number>;
  readonly startMs: number;
  addresses: readonly string[];
  readonly takes: Set<string>;
  isRunning: boolean;
  /** It was told to stop, and gets nothing more. */
  isStopping: boolean;
  /** It did not answer and was killed: it never reads again, but its end may come late. */
  isKilled: boolean;
  readonly silence: SilenceWatch;
  /** Connections of which it has a copy. */
  readonly held: Set<number>;
}

interface Connection { readonly address: string; readonly socket: Socket; beginning: LineBeginning | undefined; hasSentLines: boolean }

/**
 * How long connections may go unread, in milliseconds of this process's own time: from the last answer of a worker that does not answer, or from the end of
 * one that ended. Half of it is `silentMsMax`; the rest is for the next worker to start.
 */
const unreadMsMax = 4000;
/** For how long connections are read here before they are closed, in milliseconds: the kernel holds some megabytes at most. */
const readMs = 250;
/** Maximum number of bytes kept for the next worker, over all connections. Beyond it, lines are dropped and counted. */
const unreadBytesMax = 16 * 2 ** 20;
/** A worker that was told to hand over is killed after this time, in milliseconds. */
const handOverMsMax = 15_000;
/** The pause before a worker that died is started again: doubles from the first to the last, in milliseconds. */
const pauseMsMin = 100;
const pauseMsMax = 10_000;
/** A worker that ran for so long did not die of its start, in milliseconds. */
const soundMsMin = 10_000;

/** What `keepSockets` works with. */
export interface KeeperParts {
  /** The program's first file. */
  readonly program: string;
  readonly args: readonly string[];
  readonly log: Log;
  /** Kills a worker that does not answer: with SIGKILL. */
  readonly kill?: (worker: ChildProcess) => void;
}

/** Runs the program with these arguments as a worker, and again at SIGHUP and when it dies, until a signal ends it. Resolves to the exit status. */
export async function keepSockets({ program, args, log, kill = (worker) => worker.kill('SIGKILL') }: KeeperParts): Promise<number> {
  const sockets = new Map<string, OpenedStream>();
  const connections = new Map<number, Connection>();
  const stopped = new AbortController();
  let lastId = 0;
  let hasRun = false as boolean; // set in `hear`
  /** A restart was asked for while one was under way. */
  let again = false;
  let next = undefined as Worker | undefined; // set in `restart`
  let usedTimes: UsedTimes | undefined;
  /** How long nobody has read; `undefined` while a worker reads. */
  let unreadMs = undefined as number | undefined; // set in `startUnread`
  let holds = true;
  let connectionsMax = Infinity;
  /** Connections that are read here, since no worker does. */
  const reading = new Map<number, UnreadBytes>();
  /** What was read of connections that are closed, for the next worker. */
  let unread: Extract<ToWorker, { type: 'unread' }>[] = [];
  const room = { bytes: unreadBytesMax };
  let active = startWorker();
  const warn = limitLog(log.warn);
  const clock = new OwnClock();
  const ticker = setInterval(tick, tickMs);

  log.info(`To restart without losing a line: kill -HUP ${process.pid}`);
  process.on('SIGHUP', restart);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, stop);

  for (let pauseMs = pauseMsMin; ; ) {
    const worker = active;
    void worker.ready.then((isReady) => {
      if (isReady) tell(worker, { type: 'go', ports: new Map([...sockets].map(([address, { port }]) => [address, port])), usedTimes });
    });
    const status = await worker.ended;
    worker.isRunning = false;
    startUnread();
    if (worker.isKilled) endReading(worker.held);
    if (next !== undefined) {
      if (status !== 0) log.error('The old worker did not hand over cleanly: lines may be lost. A new one goes on.', { status });
      active = next;
      next = undefined;
      continue;
    }
    if (!stopped.signal.aborted && hasRun) {
      pauseMs = performance.now() - worker.startMs > soundMsMin ? pauseMsMin : Math.min(2 * pauseMs, pauseMsMax);
      if (!worker.isKilled) log.error('The worker exited unexpectedly. Lines that it had read but not stored are lost. Its connections are kept; starting a new worker.', { status, pauseMs });
      await pause(pauseMs, stopped.signal);
    }
    if (stopped.signal.aborted || !hasRun) {
      clearInterval(ticker);
      if (unread.length > 0) log.error('What was read while there was no worker is lost: no other one has started.', { bytes: unreadBytesMax - room.bytes });
      for (const socket of sockets.values()) void socket.close();
      closeConnections();
      return status;
    }
    again = false;
    active = startWorker();
  }

  function startWorker(): Worker {
    // Without the dashes Node takes --env-file for itself, wherever it stands.
    const child = fork(program, args, { execArgv: [...process.execArgv, '--'], serialization: 'advanced', env: { ...process.env, [keeperVariable]: keeperVersion } });
    child.on('error', (error) => { if (child.connected) log.warn(`Cannot reach the worker: ${error.message}`); });
    // A process that could not be started has no other event. The channel ends after the last message, which may be after the process.
    const ended = child.pid === undefined ? Promise.resolve(1)
      : Promise.all([once(child, 'exit'), once(child, 'disconnect')]).then(([[status]]) => (status as number | null) ?? 1);
    const ready = new Promise<boolean>((resolve) => {
      child.on('message', (message: FromWorker) => { void hear(worker, message, () => { resolve(true); }); });
      void ended.then(() => { resolve(false); });
    });
    const worker: Worker = { process: child, ready, ended, startMs: performance.now(), addresses: [], takes: new Set(), isRunning: false, isStopping: false, isKilled: false, silence: new SilenceWatch(), held: new Set() };
    return worker;
  }

  async function hear(worker: Worker, message: FromWorker, onReady: () => void): Promise<void> {
    switch (message.type) {
      case 'ready':
        worker.addresses = message.listen.map(formatListenAddress);
        ({ connectionsMax } = message);
        for (const address of message.listen) {
          try {
            await open(address, message.unixMode);
          } catch (error) {
            tell(worker, { type: 'cannot-listen', address: formatListenAddress(address), code: (error as NodeJS.ErrnoException).code, message: messageOf(error) });
            return;
          }
        }
        onReady();
        break;
      case 'take':
        worker.takes.add(message.address);
        break;
      case 'running':
        worker.isRunning = true;
        hasRun = true;
        holds = true;
        unreadMs = undefined;
        passUnread(worker);
        worker.silence.answered();
        for (const [id, connection] of connections) if (worker.takes.has(connection.address) && !reading.has(id)) pass(worker, id, connection);
        closeUnwanted();
        if (stopped.signal.aborted) end(worker);
        else if (again) restart();
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
        if (reading.has(message.id)) break; // it is closed when that is over
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

  function tell(worker: Worker, message: ToWorker, done?: () => void): void {
    if (worker.process.connected) worker.process.send(message, () => { done?.(); });
  }

  async function open(address: StreamAddress, unixMode: number): Promise<void> {
    const name = formatListenAddress(address);
    if (sockets.has(name)) return;
    sockets.set(name, await openStream(address, {
      unixMode,
      onError: (message) => { log.warn(`A socket failed: ${message}`, { address: name }); },
      onConnection: (socket) => { keep(name, socket); },
    }, { pauseOnConnect: true }));
  }

  function keep(address: string, socket: Socket): void {
    socket.on('error', () => undefined); // the worker sees it too, and says so
    const isRead = canTake(active) && active.takes.has(address);
    // Half of the second `connectionsMax` are on their way to a worker that closes them, or from one that has.
    if (connections.size >= 2 * connectionsMax) {
      socket.destroy();
      return;
    }
    const connection: Connection = { address, socket, beginning: undefined, hasSentLines: false };
    connections.set(lastId += 1, connection);
    if (isRead) {
      pass(active, lastId, connection);
      return;
    }
    startUnread();
    if (!holds) readHere(lastId, connection); // then closes it, and keeps what Caddy sent with it
  }

  function canTake({ isRunning, isStopping, isKilled }: Worker): boolean {
    return isRunning && !isStopping && !isKilled;
  }

  function pass(worker: Worker, id: number, connection: Connection): void {
    const { address, socket, beginning, hasSentLines } = connection;
    connection.beginning = undefined; // the worker's from here on: should it die, the next one begins in the middle of the line
    if (!worker.process.connected) return;
    worker.held.add(id);
    worker.process.send({ type: 'connection', address, id, earlier: { beginning, hasSentLines } } satisfies ToWorker, socket, { keepOpen: true });
  }

  /** From now on, or for some time already, nobody reads. */
  function startUnread(forMs = 0): void {
    unreadMs ??= forMs;
  }

  function tick(): void {
    const passedMs = clock.tick();
    for (const worker of new Set([active, next])) if (worker !== undefined) watch(worker, passedMs);
    if (unreadMs === undefined) return;
    unreadMs += passedMs;
    if (unreadMs >= unreadMsMax && holds) letGo();
  }

  /** A worker is watched while it has connections, or is to be given some. One that is stopping and has none is in nobody's way. */
  function watch(worker: Worker, passedMs: number): void {
    if (!worker.isRunning || worker.isKilled || (worker.isStopping && worker.held.size === 0)) return;
    const silentMs = worker.silence.tick(passedMs);
    if (silentMs === undefined) {
      tell(worker, { type: 'ping' });
      return;
    }
    worker.isKilled = true;
    log.error('The worker does not answer: it was stopped, or hangs. Killing it so that Caddy does not wait. Lines that it had read but not stored are lost. Its connections are kept; starting a new worker.', { pid: worker.process.pid ?? 0, silentMs: Math.round(silentMs), connections: worker.held.size });
    startUnread(silentMs);
    kill(worker.process);
  }

  /**
   * Nobody has read for too long: Caddy is not to wait any longer. What the kernel holds is read before a connection is closed, so that it is counted:
   * Caddy believes that it was sent.
   */
  function letGo(): void {
    holds = false;
    const hanging = [active, next].find((worker) => worker?.isKilled === true);
    const isHung = (id: number): boolean => hanging?.held.has(id) === true;
    const hung = [...connections.keys()].filter(isHung).length;
    const closed = connections.size - hung;
    for (const [id, connection] of connections) readHere(id, connection, { untilEnded: isHung(id) });
    if (closed > 0) log.error('Nothing has read the connections for too long. They are closed, so that Caddy does not wait for them: it writes its log lines to its stderr now, from where `import` takes them.', { connections: closed, unreadMsMax });
    if (hung > 0) log.error('The killed worker cannot end: it hangs in the kernel, perhaps on a disk. Its connections cannot be closed, so the supervisor reads them until it has ended. Lines beyond unreadBytesMax are dropped and counted.', { connections: hung, pid: hanging?.process.pid ?? 0, unreadBytesMax });
  }

  /** Reads in place of a worker that is not there, or of one that was killed and has not ended: with SIGKILL pending it never reads again. */
  function readHere(id: number, { socket }: Connection, { untilEnded = false } = {}): void {
    if (reading.has(id)) return;
    const bytes = new UnreadBytes(room);
    reading.set(id, bytes);
    socket.on('data', (chunk) => { bytes.add(chunk); });
    socket.resume();
    if (!untilEnded) setTimeout(() => { endReading([id]); }, readMs);
  }

  /** Closes connections that are read here, right after a read, so that next to nothing comes in between. */
  function endReading(ids: Iterable<number>): void {
    setImmediate(() => {
      for (const id of ids) {
        const read = reading.get(id);
        const connection = connections.get(id);
        if (read === undefined || connection === undefined) continue;
        const { bytes: keptBytes, droppedLines } = read;
        if (keptBytes > 0 || droppedLines > 0) warn('unread', 'No worker could read a connection, and it was closed. Its buffered lines are kept for the next worker; lines beyond unreadBytesMax count as dropped (no-worker).', { keptBytes, droppedLines, unreadBytesMax });
        unread.push({ type: 'unread', address: connection.address, beginning: connection.beginning, bytes: read.take(), droppedLines });
        connection.socket.destroy();
        connections.delete(id);
        reading.delete(id);
      }
      if (canTake(active)) passUnread(active);
    });
  }

  function passUnread(worker: Worker): void {
    for (const message of unread) {
      room.bytes += message.bytes.length;
      tell(worker, message);
    }
    unread = [];
  }

  /** SIGHUP: a new worker takes over when its settings are good. */
  function restart(): void {
    if (stopped.signal.aborted) return;
    again = next !== undefined || !active.isRunning;
    if (again) return;
    const worker = next = startWorker();
    void worker.ready.then((isReady) => {
      if (next !== worker) return; // the old one died, and this one has its place
      if (isReady) {
        const old = active;
        old.isStopping = true;
        startUnread();
        tell(old, { type: 'stop', handBack: true });
        const killer = setTimeout(() => old.process.kill('SIGKILL'), handOverMsMax);
        void old.ended.then(() => { clearTimeout(killer); });
        return;
      }
      next = undefined;
      closeUnwanted();
      if (!stopped.signal.aborted) log.error('The new worker did not start, and said why. The old one goes on; send SIGHUP again when it is mended.');
      if (again) restart();
    });
  }

  /** SIGTERM and SIGINT: what has arrived is read and stored; at the second signal nothing more is waited for. */
  function stop(): void {
    if (stopped.signal.aborted) {
      for (const worker of [active, next]) worker?.process.kill('SIGKILL');
      process.exit(1);
    }
    stopped.abort();
    if (next !== undefined && !active.isStopping) next.process.kill('SIGKILL'); // it has nothing yet
    for (const socket of sockets.values()) void socket.close();
    if (active.isRunning && !active.isStopping) end(active); // one that is still starting is told when it runs
  }

  /** From here on the connections are the worker's alone, so that it closes them as it does without a keeper. */
  function end(worker: Worker): void {
    worker.isStopping = true;
    tell(worker, { type: 'stop', handBack: false }, () => { closeConnections(); });
  }

  /** Those of one address, or all. */
  function closeConnections(of?: string): void {
    for (const [id, { address, socket }] of connections) {
      if ((of !== undefined && address !== of) || reading.has(id)) continue;
      socket.destroy();
      connections.delete(id);
    }
  }

  /** Closes what only settings of before have asked for. */
  function closeUnwanted(): void {
    const wanted = new Set([...active.addresses, ...next?.addresses ?? []]);
    for (const [address, socket] of sockets) {
      if (wanted.has(address)) continue;
      void socket.close();
      sockets.delete(address);
      closeConnections(address);
    }
  }
}
