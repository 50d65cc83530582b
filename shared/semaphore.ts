/** Grants a fixed number of permits. Further callers wait in FIFO order. */
export class Semaphore {
  readonly #waitingMax: number;
  readonly #waitMsMax: number;
  readonly #queue = new Set<() => void>();
  #free: number;

  /** At most `waitingMax` callers wait, each for at most `waitMsMax` milliseconds. */
  constructor({ permits, waitingMax, waitMsMax }: { permits: number; waitingMax: number; waitMsMax: number }) {
    this.#free = permits;
    this.#waitingMax = waitingMax;
    this.#waitMsMax = waitMsMax;
  }

  /**
   * Resolves to a function that releases the permit, or to `undefined` if the queue is full, the wait takes too long, or
   * `signal` is aborted. Calling the function again does nothing.
   */
  async acquire(signal?: AbortSignal): Promise<(() => void) | undefined> {
    if (signal?.aborted === true) return undefined;
    if (this.#free > 0) this.#free -= 1;
    else if (this.#queue.size >= this.#waitingMax || !(await this.#wait(signal))) return undefined;
    let held = true;
    return () => {
      if (held) this.#release();
      held = false;
    };
  }

  /** Resolves to `true` when another caller passes its permit on, and to `false` when this one gives up. */
  #wait(signal: AbortSignal | undefined): Promise<boolean> {
    return new Promise((resolve) => {
      const leave = (hasPermit: boolean): void => {
        this.#queue.delete(enter);
        clearTimeout(timer);
        signal?.removeEventListener('abort', giveUp);
        resolve(hasPermit);
      };
      const enter = (): void => { leave(true); };
      const giveUp = (): void => { leave(false); };
      const timer = setTimeout(giveUp, this.#waitMsMax);
      signal?.addEventListener('abort', giveUp);
      this.#queue.add(enter);
    });
  }

  #release(): void {
    const [next] = this.#queue;
    if (next === undefined) this.#free += 1;
    else next();
  }
}
