/** Grants a number of permits. Further callers wait in FIFO order. */
export class Semaphore {
  readonly #waitingMax: number;
  readonly #waitMsMax: number;
  readonly #queue = new Set<() => void>();
  #permits: number;
  #held = 0;
  #onIdle: (() => void)[] = [];

  /** At most `waitingMax` callers wait, each for at most `waitMsMax` milliseconds. */
  constructor({ permits, waitingMax, waitMsMax }: { permits: number; waitingMax: number; waitMsMax: number }) {
    this.#permits = permits;
    this.#waitingMax = waitingMax;
    this.#waitMsMax = waitMsMax;
  }

  /**
   * Resolves to a function that releases the permit, or to `undefined` if the queue is full, the wait takes too long,
   * or `signal` is aborted. Calling the function again does nothing.
   */
  async acquire(signal?: AbortSignal): Promise<(() => void) | undefined> {
    if (signal?.aborted === true) return undefined;
    if (this.#held < this.#permits) this.#held += 1;
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
      const enter = (): void => {
        leave(true);
      };
      const giveUp = (): void => {
        leave(false);
      };
      const timer = setTimeout(giveUp, this.#waitMsMax);
      signal?.addEventListener('abort', giveUp);
      this.#queue.add(enter);
    });
  }

  /** Changes the number of permits. Held ones remain valid until they are released. */
  setPermits(permits: number): void {
    this.#permits = permits;
    this.#passOn();
  }

  /** Whether no permit is held. */
  get isIdle(): boolean {
    return this.#held === 0;
  }

  /** Resolves when no permit is held. */
  async idle(): Promise<void> {
    if (!this.isIdle)
      await new Promise<void>((resolve) => {
        this.#onIdle.push(resolve);
      });
  }

  #release(): void {
    this.#held -= 1;
    this.#passOn();
    if (this.isIdle) for (const resolve of this.#onIdle.splice(0)) resolve();
  }

  #passOn(): void {
    for (const next of this.#queue) {
      if (this.#held >= this.#permits) return;
      this.#held += 1;
      next();
    }
  }
}
