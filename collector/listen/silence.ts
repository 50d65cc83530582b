/** How often the supervisor pings its worker, in milliseconds. */
export const tickMs = 250;
/** A worker that has not answered for this long is killed, in milliseconds: decision 37. */
export const silentMsMax = 2000;

/**
 * The time of a process, in which its own pauses do not count. A tick that comes late counts as one: the process was stopped, or the machine
 * suspended, and so were those that it watches.
 */
export class OwnClock {
  readonly #now: () => number;
  #lastMs: number;

  /** `now` is a monotonic clock in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#lastMs = now();
  }

  /** Milliseconds since the last tick, `tickMs` at most. Call it every `tickMs`. */
  tick(): number {
    const nowMs = this.#now();
    const passedMs = Math.min(nowMs - this.#lastMs, tickMs);
    this.#lastMs = nowMs;
    return passedMs;
  }
}

/** Tells when a worker has not answered for too long. */
export class SilenceWatch {
  #silentMs = 0;

  answered(): void {
    this.#silentMs = 0;
  }

  /** How long the worker has been silent when that is too long, in milliseconds; `undefined` while it is not. */
  tick(passedMs: number): number | undefined {
    this.#silentMs += passedMs;
    return this.#silentMs >= silentMsMax ? this.#silentMs : undefined;
  }
}
