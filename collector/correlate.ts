/** What the error line and the access line of one request have in common. */
export interface RequestIdentity {
  /** Address and port of the peer; `''` if the line does not have them. */
  readonly remoteIp: string;
  readonly remotePort: string;
  readonly method: string;
  readonly host: string;
  readonly uri: string;
  readonly status: number;
  /** As written. Caddy computes it once, so that it is the same in both lines; `undefined` if it is not comparable. */
  readonly duration: number | string | undefined;
}

/** What Caddy logged about a request that failed. */
export interface ErrorReport {
  readonly timeMs: number;
  readonly error: string;
  readonly errorId: string;
  readonly upstream: string;
  /** Whether the line is about the request as a whole, and not only about one attempt to reach an upstream. */
  readonly isFinal: boolean;
}

/** The part of a request that its error report adds: see `RequestEvent`. */
export interface Reason {
  readonly error: string;
  readonly errorId: string;
  readonly upstream: string;
}

interface Pending extends ErrorReport {
  readonly identity: RequestIdentity;
}

/** Maximum time from an error line to its access line, in milliseconds. An error page may take that long. */
const waitMsMax = 5000;

/** The same where durations cannot be compared, so that only time tells requests of one kind apart. */
const waitWithoutDurationMsMax = 1000;

/** Tolerance for clocks and rounding: how much later than its access line an error line may be, in milliseconds. */
const aheadMsMax = 100;

/** Maximum number of error lines that wait for their access lines. Beyond it, the oldest are forgotten. */
const pendingMax = 20_000;

/** Maximum number of them with the same connection, method, host and target. */
const ofOneKindMax = 200;

/**
 * Finds the error report of a request. Caddy writes the error line tens of microseconds before the access line, with
 * the same peer, method, host, target and duration. A request gets no reason rather than a wrong one: reports that
 * could belong to several requests are not used. Times are those of the lines.
 */
export class Correlator {
  /** By `keyOf`, in order of arrival. */
  readonly #pending = new Map<string, Pending[]>();
  #size = 0;

  /** Number of error lines that wait for their access lines. */
  get size(): number {
    return this.#size;
  }

  /** Keeps a report until its access line arrives. */
  add(identity: RequestIdentity, report: ErrorReport): void {
    this.#forgetBefore(report.timeMs - waitMsMax);
    while (this.#size >= pendingMax) this.#forgetOldest();
    const key = keyOf(identity);
    const reports = this.#pending.get(key) ?? [];
    // A site with several loggers writes each error once per logger.
    if (report.errorId !== '' && reports.some(({ errorId }) => errorId === report.errorId)) return;
    reports.push({ ...report, identity });
    this.#size += 1;
    if (reports.length > ofOneKindMax) {
      reports.shift();
      this.#size -= 1;
    }
    // Moves the key to the end, so that the first key is the one that has waited longest.
    this.#pending.delete(key);
    this.#pending.set(key, reports);
  }

  /** Returns the reason of a request whose access line was written at `timeMs`, and forgets it. */
  take(identity: RequestIdentity, timeMs: number): Reason | undefined {
    if (this.#size === 0) return undefined;
    this.#forgetBefore(timeMs - waitMsMax);
    const key = keyOf(identity);
    const reports = this.#pending.get(key)?.filter((report) => report.timeMs - timeMs <= aheadMsMax) ?? [];
    if (reports.length === 0) return undefined;
    const attempts = reports.filter(({ isFinal }) => !isFinal);
    const found = reasonIn(
      reports.filter(({ isFinal }) => isFinal),
      identity,
      timeMs,
    );
    this.#forget(key, new Set([...(found?.used ?? []), ...attempts]));
    if (found === undefined) return undefined; // a failed attempt may have been followed by a successful one
    const { error, errorId, upstream } = found;
    return { error, errorId, upstream: upstream || commonUpstream(attempts, identity) };
  }

  #forgetBefore(timeMs: number): void {
    for (const [key, reports] of this.#pending) {
      if (reports.at(-1)!.timeMs >= timeMs) return;
      this.#pending.delete(key);
      this.#size -= reports.length;
    }
  }

  #forgetOldest(): void {
    for (const [key, reports] of this.#pending) {
      this.#forget(key, new Set([reports[0]!]));
      return;
    }
  }

  #forget(key: string, used: ReadonlySet<Pending>): void {
    const reports = this.#pending.get(key);
    if (reports === undefined || used.size === 0) return;
    const left = reports.filter((report) => !used.has(report));
    this.#size -= reports.length - left.length;
    if (left.length === 0) this.#pending.delete(key);
    else this.#pending.set(key, left);
  }
}

/** Peers may be masked in one of the two logs, so that the address is compared later. */
function keyOf({ remotePort, method, host, uri }: RequestIdentity): string {
  return `${remotePort} ${method} ${host} ${uri}`;
}

/** The reason that the final reports of a key give for one request; `undefined` if none or several could be meant. */
function reasonIn(
  reports: readonly Pending[],
  identity: RequestIdentity,
  timeMs: number,
): (Reason & { readonly used: readonly Pending[] }) | undefined {
  const sameDuration = reports.filter((report) => isComparable(report, identity) && isSameDuration(report, identity));
  const candidates =
    sameDuration.length > 0
      ? sameDuration
      : reports.filter(
          (report) =>
            !isComparable(report, identity) &&
            isSamePeer(report, identity) &&
            timeMs - report.timeMs <= waitWithoutDurationMsMax,
        );
  const first = candidates[0];
  if (first === undefined) return undefined;
  if (candidates.length === 1) return { ...first, used: candidates };
  // Several requests of the same kind on one connection: what all have in common is true for each of them.
  const isSame = candidates.every(({ error, upstream }) => error === first.error && upstream === first.upstream);
  return isSame ? { error: first.error, errorId: '', upstream: first.upstream, used: [first] } : undefined;
}

function isComparable({ identity: { duration } }: Pending, access: RequestIdentity): boolean {
  return duration !== undefined && typeof duration === typeof access.duration;
}

function isSameDuration({ identity: { duration } }: Pending, access: RequestIdentity): boolean {
  return duration === access.duration;
}

/** Whether a report without a comparable duration is of the same connection and status. */
function isSamePeer({ identity }: Pending, access: RequestIdentity): boolean {
  return (
    identity.remotePort !== '' &&
    identity.remoteIp === access.remoteIp &&
    (identity.status === 0 || identity.status === access.status)
  );
}

function commonUpstream(attempts: readonly Pending[], access: RequestIdentity): string {
  const ofPeer = attempts.filter(({ identity }) => identity.remotePort !== '' && identity.remoteIp === access.remoteIp);
  const upstreams = new Set(ofPeer.map(({ upstream }) => upstream));
  return upstreams.size === 1 ? [...upstreams][0]! : '';
}
