/** Number of requests by state. Those of damaged records count as dead-lettered. */
export interface SpoolCounts {
  readonly spooled: number;
  readonly stored: number;
  readonly deadLettered: number;
}

/**
 * Counts the requests of a spool by state: its own, which were appended since it was opened, and those left by an
 * earlier process. A request is identified by the number of requests before it.
 */
export class RequestCounts {
  readonly #requestsAtStart: number;
  readonly #found: number;
  readonly #own = { stored: 0, deadLettered: 0 };
  readonly #earlier = { stored: 0, deadLettered: 0 };

  /** `requestsRead`: requests that an earlier process has delivered. `requestsAtStart`: all requests that it had. */
  constructor({ requestsRead, requestsAtStart }: { readonly requestsRead: number; readonly requestsAtStart: number }) {
    this.#requestsAtStart = requestsAtStart;
    this.#found = requestsAtStart - requestsRead;
  }

  /** Counts of this process, which has appended up to `requestsAppended`. */
  own(requestsAppended: number): SpoolCounts {
    const { stored, deadLettered } = this.#own;
    return { ...this.#own, spooled: requestsAppended - this.#requestsAtStart - stored - deadLettered };
  }

  /** Counts of the requests left by an earlier process. */
  get earlier(): SpoolCounts {
    const { stored, deadLettered } = this.#earlier;
    return { ...this.#earlier, spooled: this.#found - stored - deadLettered };
  }

  /** Counts committed requests, `deadLettered` of which were rejected. All are own, or all are from earlier. */
  commit({
    isOwn,
    requests,
    deadLettered,
  }: {
    readonly isOwn: boolean;
    readonly requests: number;
    readonly deadLettered: number;
  }): void {
    const counts = isOwn ? this.#own : this.#earlier;
    counts.deadLettered += deadLettered;
    counts.stored += requests - deadLettered;
  }

  /** Counts the requests of a gap between two records as lost. Does nothing if there is no gap. */
  lose(from: number, to: number): void {
    const ownLost = to - Math.max(from, this.#requestsAtStart);
    const earlierLost = Math.min(to, this.#requestsAtStart) - from;
    if (ownLost > 0) this.#own.deadLettered += ownLost;
    if (earlierLost > 0) this.#earlier.deadLettered += earlierLost;
  }
}
