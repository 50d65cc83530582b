import type { Socket } from 'node:net';
import type { PartialLine } from '../lines.js';
import type { Unread } from '../listen/sockets.js';
import { UnreadBytes } from './unread-bytes.js';
import type { WorkerProcess } from './worker-process.js';

/** Size of a full read of a socket (`uv__read` in libuv). */
const readBytes = 65_536;

/** An accepted connection. A worker reads it, or this process in place of one. */
export class Connection {
  /** The listen address that accepted it. */
  readonly address: string;
  /** The partial line that the last worker had read, for the next one. */
  beginning: PartialLine | undefined;
  hasSentLines = false;
  readonly #socket: Socket;
  /** Kept here, since a closed socket has none. */
  readonly #remoteAddress: string | undefined;
  #unread: UnreadBytes | undefined;
  #lastChunkBytes = 0;

  constructor(address: string, socket: Socket) {
    this.address = address;
    this.#socket = socket;
    this.#remoteAddress = socket.remoteAddress;
  }

  /** Whether this process reads it. */
  get isReadHere(): boolean {
    return this.#unread !== undefined;
  }

  /** Passes it to a worker, which owns its partial line from then on: after a crash, the next one starts mid-line. */
  passTo(worker: WorkerProcess, id: number): void {
    const { address, beginning, hasSentLines } = this;
    this.beginning = undefined;
    worker.pass({ type: 'connection', address, id, earlier: { beginning, hasSentLines } }, this.#socket);
  }

  /** Starts to read it and to buffer its lines. `room` is shared with other connections. */
  read(room: { bytes: number }): void {
    const unread = (this.#unread = new UnreadBytes(room));
    this.#socket.on('data', (chunk) => {
      unread.add(chunk);
      this.#lastChunkBytes = chunk.length;
    });
    this.#socket.resume();
  }

  /** Whether the kernel had more to read at the last read: Node reads 64 KiB at a time. */
  get hasMore(): boolean {
    return this.#lastChunkBytes >= readBytes;
  }

  /** Returns what was read; `undefined` if this process does not read it. */
  takeUnread(): Unread | undefined {
    if (this.#unread === undefined) return undefined;
    return {
      address: this.address,
      remoteAddress: this.#remoteAddress,
      beginning: this.beginning,
      bytes: this.#unread.take(),
      droppedLines: this.#unread.droppedLines,
    };
  }

  close(): void {
    this.#socket.destroy();
  }
}
