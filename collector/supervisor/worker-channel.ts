import type { Socket } from 'node:net';
import { UsageError } from '../../shared/errors.js';
import type { UsedTimes } from '../../shared/record/unique-time.js';
import { formatListenAddress, type ListenAddress } from '../listen/address.js';
import { supervisorVariable, supervisorVersion, type FromWorker, type ToWorker } from './protocol.js';
import { cannotListen } from '../listen/listen.js';
import type { EarlierReads, OpenStream, StreamOptions } from '../listen/sockets.js';

/** A worker's channel to the supervisor that started it. */
export interface WorkerChannel {
  readonly openStream: OpenStream;
  /** Whether another worker takes over after this one. */
  readonly isHandingOver: () => boolean;
  /**
   * Reports that the settings are valid and waits until the previous worker has ended. Throws a `UsageError` if an
   * address cannot be listened on.
   */
  waitForTurn(config: {
    readonly listen: readonly ListenAddress[];
    readonly unixMode: number;
    readonly connectionsMax: number;
  }): Promise<void>;
  /** Timestamps of the last requests of the previous worker. */
  readonly usedTimes: () => UsedTimes | undefined;
  /** Passes the used timestamps on to the next worker. */
  saveUsedTimes(usedTimes: UsedTimes): void;
  /**
   * Reports that everything has started. Calls `stop` when the supervisor requests it or is gone; `stop` resolves to
   * the exit status and must not reject.
   */
  onStop(stop: () => Promise<number>): void;
  /** Closes the channel. For a program that did not start. */
  disconnect(): void;
}

/**
 * Connects to the supervisor of this process; returns `undefined` if it has none. Throws a `UsageError` if the
 * supervisor has another protocol version.
 */
export function connectToSupervisor(): WorkerChannel | undefined {
  const version = process.env[supervisorVariable];
  if (version === undefined || process.send === undefined) return undefined;
  if (version !== supervisorVersion)
    throw new UsageError(
      'This version of the program cannot take over the sockets of the running one. Stop that one and start this one instead.',
    );
  // A terminal sends these to the whole process group. The supervisor handles them and sends `stop`.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);

  const streams = new Map<string, Pick<StreamOptions, 'onConnection' | 'onUnread'>>();
  const ids = new Map<Socket, number>();
  let ports: ReadonlyMap<string, number | undefined> | undefined;
  let usedTimes: UsedTimes | undefined;
  let usedTimesToSend: UsedTimes | undefined;
  let turn: { resolve: () => void; reject: (error: Error) => void } | undefined;
  let isHandingOver = true;
  let stopAll: (() => Promise<number>) | undefined;
  let isStopRequested = false;

  process.on('message', (message: ToWorker, socket?: Socket) => {
    switch (message.type) {
      case 'go':
        ({ ports, usedTimes } = message);
        turn?.resolve();
        break;
      case 'ping':
        void send({ type: 'pong' });
        break;
      case 'cannot-listen':
        turn?.reject(cannotListen(message.address, Object.assign(new Error(message.message), { code: message.code })));
        break;
      case 'connection':
        if (socket !== undefined) accept(message.address, message.id, socket, message.earlier);
        break;
      case 'unread':
        // If this address is no longer listened on, another listener takes the lines.
        (streams.get(message.address) ?? [...streams.values()][0])?.onUnread(message);
        break;
      case 'stop':
        isHandingOver = message.handBack;
        stop();
    }
  });
  process.once('disconnect', onGone);

  return {
    isHandingOver: () => isHandingOver,
    usedTimes: () => usedTimes,
    saveUsedTimes(times) {
      usedTimesToSend = times;
    },
    waitForTurn: ({ listen, unixMode, connectionsMax }) =>
      new Promise((resolve, reject) => {
        turn = { resolve, reject };
        void send({
          type: 'ready',
          listen: listen.filter((address) => address.kind !== 'udp'),
          unixMode,
          connectionsMax,
        });
      }),
    async openStream(address, { onConnection, onUnread }) {
      const name = formatListenAddress(address);
      streams.set(name, { onConnection, onUnread });
      void send({ type: 'take', address: name });
      return {
        port: ports?.get(name),
        async close() {
          streams.delete(name);
        },
        sentLines(socket) {
          const id = ids.get(socket);
          if (id !== undefined) void send({ type: 'sent-lines', id });
        },
        release(socket, beginning) {
          const id = ids.get(socket);
          if (!isHandingOver || id === undefined) return false;
          ids.delete(socket);
          void send({ type: 'handed-back', id, beginning: beginning() });
          socket.destroy(); // closes this descriptor; the supervisor's stays open
          return true;
        },
      };
    },
    onStop(stopParts) {
      stopAll = stopParts;
      void send({ type: 'running' });
      if (isStopRequested) stop();
    },
    disconnect() {
      process.off('disconnect', onGone);
      if (process.connected) process.disconnect();
    },
  };

  function accept(address: string, id: number, socket: Socket, earlier: EarlierReads): void {
    const stream = streams.get(address);
    if (stream === undefined) {
      socket.destroy(); // already stopping: nothing was read from it
      return;
    }
    ids.set(socket, id);
    socket.once('close', () => {
      if (ids.delete(socket)) void send({ type: 'closed', id });
    });
    stream.onConnection(socket, earlier);
  }

  function stop(): void {
    isStopRequested = true;
    if (stopAll === undefined) return; // still starting
    const stopParts = stopAll;
    stopAll = () => new Promise(() => undefined); // once
    void stopParts().then(async (status) => {
      await send({ type: 'done', usedTimes: usedTimesToSend });
      process.exit(status);
    });
  }

  /** Without its supervisor, a worker stops as on SIGTERM. */
  function onGone(): void {
    isHandingOver = false;
    if (ports === undefined) process.exit(1);
    stop();
  }
}

/** Sends a message to the supervisor. Resolves when it has been sent or cannot be sent. */
function send(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected) resolve();
    else
      process.send!(message, undefined, undefined, () => {
        resolve();
      });
  });
}
