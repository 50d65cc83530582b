import type { Unread } from '../listen/sockets.js';

const lineFeed = 0x0a;

/**
 * Buffers what is read from one connection while there is no worker. Keeps complete lines while there is room, and
 * counts the rest.
 */
export class UnreadBytes {
  readonly #room: { bytes: number };
  #chunks: Buffer[] = [];
  #isFull = false;
  #endsInside = false;
  #ended = 0;
  /** Number of bytes kept. */
  bytes = 0;

  /** `room`: remaining capacity in bytes, shared with other connections. */
  constructor(room: { bytes: number }) {
    this.#room = room;
  }

  add(chunk: Buffer): void {
    if (!this.#isFull && chunk.length <= this.#room.bytes) {
      this.#chunks.push(chunk);
      this.#grow(chunk.length);
      return;
    }
    if (!this.#isFull) this.#fill();
    this.#count(chunk);
  }

  /** Returns the kept bytes in one buffer. */
  take(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  /** Number of lines that were not kept, including an unterminated one. */
  get droppedLines(): number {
    return this.#ended + (this.#endsInside ? 1 : 0);
  }

  /** Stops buffering. Removes the partial line at the end and counts it with the bytes that follow. */
  #fill(): void {
    this.#isFull = true;
    const all = this.take();
    const whole = all.lastIndexOf(lineFeed) + 1;
    this.#grow(whole - all.length);
    this.#chunks = [all.subarray(0, whole)];
    this.#count(all.subarray(whole));
  }

  #grow(bytes: number): void {
    this.bytes += bytes;
    this.#room.bytes -= bytes;
  }

  #count(bytes: Buffer): void {
    if (bytes.length === 0) return;
    for (let at = bytes.indexOf(lineFeed); at !== -1; at = bytes.indexOf(lineFeed, at + 1)) this.#ended += 1;
    this.#endsInside = bytes.at(-1) !== lineFeed;
  }
}

/** What was read from closed connections, for the next worker. */
export class UnreadQueue {
  #entries: Unread[] = [];

  get size(): number {
    return this.#entries.length;
  }

  /**
   * Adds a connection. A connection without bytes only adds to a count, since peers may reconnect any number of times
   * while there is no worker.
   */
  add(entry: Unread): void {
    if (entry.bytes.length > 0 || entry.beginning !== undefined) {
      this.#entries.push(entry);
      return;
    }
    if (entry.droppedLines === 0) return;
    const at = this.#entries.findIndex(
      ({ address, remoteAddress }) => address === entry.address && remoteAddress === entry.remoteAddress,
    );
    if (at === -1) this.#entries.push(entry);
    else
      this.#entries[at] = { ...this.#entries[at]!, droppedLines: this.#entries[at]!.droppedLines + entry.droppedLines };
  }

  /** Returns all entries and removes them. */
  takeAll(): Unread[] {
    const entries = this.#entries;
    this.#entries = [];
    return entries;
  }
}
