import type { Socket } from 'node:net';
import { UsageError } from '../../shared/errors.js';
import type { UsedTimes } from '../../shared/record/unique-time.js';
import { formatListenAddress, type ListenAddress } from '../listen/address.js';
import { supervisorVariable, supervisorVersion, type FromWorker, type ToWorker } from './supervisor.js';
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
  turn(config: {
    readonly listen: readonly ListenAddress[];
    readonly unixMode: number;
    readonly connectionsMax: number;
  }): Promise<void>;
  /** The times that the previous worker left. */
  readonly usedTimes: () => UsedTimes | undefined;
  /** Leaves the used times to the next worker. */
  leaveTimes(usedTimes: UsedTimes): void;
  /**
   * Reports that everything has started. Calls `stop` when the supervisor requests it or is gone; `stop` resolves to
   * the exit status and must not reject.
   */
  stopWith(stop: () => Promise<number>): void;
  /** Closes the channel of a program that did not start. */
  leave(): void;
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
  // The terminal sends these to the supervisor, too, which then tells this process what to do.
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => undefined);

  const streams = new Map<string, Pick<StreamOptions, 'onConnection' | 'onUnread'>>();
  const ids = new Map<Socket, number>();
  let ports: ReadonlyMap<string, number | undefined> | undefined;
  let usedTimes: UsedTimes | undefined;
  let left: UsedTimes | undefined;
  let atTurn: { resolve: () => void; reject: (error: Error) => void } | undefined;
  let handsBack = true;
  let stopAll: (() => Promise<number>) | undefined;
  let mustStop = false;

  process.on('message', (message: ToWorker, socket?: Socket) => {
    switch (message.type) {
      case 'go':
        ({ ports, usedTimes } = message);
        atTurn?.resolve();
        break;
      case 'ping':
        void tell({ type: 'pong' });
        break;
      case 'cannot-listen':
        atTurn?.reject(
          cannotListen(message.address, Object.assign(new Error(message.message), { code: message.code })),
        );
        break;
      case 'connection':
        if (socket !== undefined) take(message.address, message.id, socket, message.earlier);
        break;
      case 'unread':
        // If this address is no longer listened on, another listener takes the lines.
        (streams.get(message.address) ?? [...streams.values()][0])?.onUnread(message);
        break;
      case 'stop':
        handsBack = message.handBack;
        stop();
    }
  });
  process.once('disconnect', onGone);

  return {
    isHandingOver: () => handsBack,
    usedTimes: () => usedTimes,
    leaveTimes(times) {
      left = times;
    },
    turn: ({ listen, unixMode, connectionsMax }) =>
      new Promise((resolve, reject) => {
        atTurn = { resolve, reject };
        void tell({
          type: 'ready',
          listen: listen.filter((address) => address.kind !== 'udp'),
          unixMode,
          connectionsMax,
        });
      }),
    async openStream(address, { onConnection, onUnread }) {
      const name = formatListenAddress(address);
      streams.set(name, { onConnection, onUnread });
      void tell({ type: 'take', address: name });
      return {
        port: ports?.get(name),
        async close() {
          streams.delete(name);
        },
        sentLines(socket) {
          const id = ids.get(socket);
          if (id !== undefined) void tell({ type: 'sent-lines', id });
        },
        handBack(socket, beginning) {
          const id = ids.get(socket);
          if (!handsBack || id === undefined) return false;
          ids.delete(socket);
          void tell({ type: 'handed-back', id, beginning: beginning() });
          socket.destroy(); // closes this descriptor; the supervisor's stays open
          return true;
        },
      };
    },
    stopWith(stopParts) {
      stopAll = stopParts;
      void tell({ type: 'running' });
      if (mustStop) stop();
    },
    leave() {
      process.off('disconnect', onGone);
      if (process.connected) process.disconnect();
    },
  };

  function take(address: string, id: number, socket: Socket, earlier: EarlierReads): void {
    const stream = streams.get(address);
    if (stream === undefined) {
      // already stopping: nothing was read from it
      socket.destroy();
      return;
    }
    ids.set(socket, id);
    socket.once('close', () => {
      if (ids.delete(socket)) void tell({ type: 'closed', id });
    });
    stream.onConnection(socket, earlier);
  }

  function stop(): void {
    mustStop = true;
    if (stopAll === undefined) return; // still starting
    const stopParts = stopAll;
    stopAll = () => new Promise(() => undefined); // once
    void stopParts().then(async (status) => {
      await tell({ type: 'done', usedTimes: left });
      process.exit(status);
    });
  }

  /** Without its supervisor, a worker ends as on SIGTERM. */
  function onGone(): void {
    handsBack = false;
    if (ports === undefined) process.exit(1);
    stop();
  }
}

/** Sends a message to the supervisor. Resolves when it has been sent or cannot be sent. */
function tell(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (!process.connected) resolve();
    else
      process.send!(message, undefined, undefined, () => {
        resolve();
      });
  });
}
