/** How often the supervisor pings its worker, in milliseconds. */
export const tickMs = 250;
/** A worker that has not answered for this long is killed, in milliseconds: decision 22. */
export const silentMsMax = 2000;

/**
 * A clock that does not count pauses of its own process. A late tick counts as a single tick: if the process was
 * stopped or the machine suspended, the processes that it watches may have been, too.
 */
export class OwnClock {
  readonly #now: () => number;
  #lastMs: number;

  /** `now` is a monotonic clock in milliseconds. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#lastMs = now();
  }

  /** Returns the milliseconds since the last tick, at most `tickMs`. Call it every `tickMs`. */
  tick(): number {
    const nowMs = this.#now();
    const passedMs = Math.min(nowMs - this.#lastMs, tickMs);
    this.#lastMs = nowMs;
    return passedMs;
  }
}

/** Detects a worker that has not answered for too long. */
export class SilenceWatch {
  #silentMs = 0;

  answered(): void {
    this.#silentMs = 0;
  }

  /**
   * Adds elapsed time. Returns how long the worker has been silent if that is too long, in milliseconds; otherwise
   * `undefined`.
   */
  tick(passedMs: number): number | undefined {
    this.#silentMs += passedMs;
    return this.#silentMs >= silentMsMax ? this.#silentMs : undefined;
  }
}
