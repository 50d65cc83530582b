const lineFeed = 0x0a;

/** Bytes read from one connection while there is no worker. Keeps whole lines while there is room, and counts the rest. */
export class UnreadBytes {
  readonly #room: { bytes: number };
  #kept: Buffer[] = [];
  #isFull = false;
  #endsInside = false;
  #ended = 0;
  /** Number of bytes kept. */
  bytes = 0;

  /** `room` is shared with other connections. */
  constructor(room: { bytes: number }) {
    this.#room = room;
  }

  add(chunk: Buffer): void {
    if (!this.#isFull && chunk.length <= this.#room.bytes) {
      this.#kept.push(chunk);
      this.#grow(chunk.length);
      return;
    }
    if (!this.#isFull) this.#fill();
    this.#count(chunk);
  }

  /** Returns the kept bytes in one buffer. */
  take(): Buffer {
    return Buffer.concat(this.#kept);
  }

  /** Lines that were not kept. One that has not ended counts too. */
  get droppedLines(): number {
    return this.#ended + (this.#endsInside ? 1 : 0);
  }

  /** The line that has begun is counted with what comes, not kept in half. */
  #fill(): void {
    this.#isFull = true;
    const all = this.take();
    const whole = all.lastIndexOf(lineFeed) + 1;
    this.#grow(whole - all.length);
    this.#kept = [all.subarray(0, whole)];
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
