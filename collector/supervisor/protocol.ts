/**
 * The messages between supervisor and worker, over Node's IPC channel. They arrive in order, with and without sockets.
 *
 * - A worker sends `ready` with its listen addresses when its settings are valid. At `go`, when its predecessor has
 *   ended, it opens its store and every other exclusive resource. It sends `take` for each address that it reads, and
 *   `running` when it has started.
 * - Connections passed on before `stop` belong to the old worker, which reads them or hands them back. Later ones wait
 *   for the next worker.
 */
import type { UsedTimes } from '../../shared/record/unique-time.js';
import type { PartialLine } from '../lines.js';
import type { EarlierReads, StreamAddress, Unread } from '../listen/sockets.js';

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
