import { detachString } from '../shared/memo.js';

/** What the error line and the access line of one request have in common. */
export interface RequestIdentity {
  /** Address and port of the client's connection; `''` if the line does not have them. */
  readonly remoteIp: string;
  readonly remotePort: string;
  readonly method: string;
  readonly host: string;
  readonly uri: string;
  /** 0 if the line has none. */
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

interface Pending extends ErrorReport, Pick<RequestIdentity, 'remoteIp' | 'remotePort' | 'status'> {
  /** See `digitsOf`. */
  readonly digits: string | undefined;
  readonly arrivedMs: number;
}

/** Maximum time from an error line to its access line, in milliseconds. An error page may take that long. */
const waitMsMax = 5000;

/** The same limit where durations do not tell requests of one kind apart. */
const waitWithoutDurationMsMax = 1000;

/** Tolerance for rounding: how much later than its access line an error line may be, in milliseconds. */
const aheadMsMax = 100;

/** Maximum number of pending reports. Beyond it, the oldest are evicted. */
const pendingMax = 20_000;

/** Maximum number of pending reports with the same connection, method, host and target. */
const perKeyMax = 200;

/** Number of digits from which a duration identifies a request. Caddy's default format has nanoseconds. */
const digitsMin = 4;

/**
 * Finds the error report of a request. Caddy writes the error line tens of microseconds before the access line, with
 * the same connection, method, host, target and duration. A request gets no reason rather than a wrong one: reports
 * that could belong to several requests are not used.
 */
export class Correlator {
  /** By `keyOf`, in order of arrival. */
  readonly #pending = new Map<string, Pending[]>();
  #size = 0;

  /** Number of error lines that wait for their access lines. */
  get size(): number {
    return this.#size;
  }

  /** Keeps a report until its access line arrives. `nowMs` is the time of arrival, or in a file that of the line. */
  add(identity: RequestIdentity, report: ErrorReport, nowMs = report.timeMs): void {
    this.#evictBefore(nowMs - waitMsMax);
    while (this.#size >= pendingMax) this.#evictOldest();
    const key = keyOf(identity);
    const reports = this.#pending.get(key) ?? [];
    // A site with several loggers writes each error once per logger.
    if (report.errorId !== '' && reports.some(({ errorId }) => errorId === report.errorId)) return;
    const { remoteIp, remotePort, status, duration } = identity;
    reports.push({ ...report, remoteIp, remotePort, status, digits: digitsOf(duration), arrivedMs: nowMs });
    this.#size += 1;
    if (reports.length > perKeyMax) {
      reports.shift();
      this.#size -= 1;
    }
    // Moves the key to the end, so that the first key is the one that has waited longest.
    this.#pending.delete(key);
    this.#pending.set(key, reports);
  }

  /** Returns the reason of a request whose access line was written at `timeMs`, and forgets it. `nowMs` as in `add`. */
  take(identity: RequestIdentity, timeMs: number, nowMs = timeMs): Reason | undefined {
    if (this.#size === 0) return undefined;
    this.#evictBefore(nowMs - waitMsMax);
    const key = keyOf(identity);
    const reports =
      this.#pending
        .get(key)
        ?.filter((report) => report.timeMs - timeMs <= aheadMsMax && timeMs - report.timeMs <= waitMsMax) ?? [];
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

  #evictBefore(arrivedMs: number): void {
    for (const [key, reports] of this.#pending) {
      if (reports.at(-1)!.arrivedMs >= arrivedMs) return;
      this.#pending.delete(key);
      this.#size -= reports.length;
    }
  }

  #evictOldest(): void {
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

/** Maximum length of a target in a key, in UTF-16 code units. */
const uriLengthMax = 300;

/** The address may be masked in one of the two logs, so that it is compared later. */
function keyOf({ remotePort, method, host, uri }: RequestIdentity): string {
  return detachString(`${remotePort} ${method} ${host} ${uri.length} ${uri.slice(0, uriLengthMax)}`);
}

/**
 * The significant digits of a duration, which are the same in every unit: `0.000501956` and `501.956µs` have `501956`.
 * `undefined` if it is not comparable.
 */
function digitsOf(duration: number | string | undefined): string | undefined {
  const text = typeof duration === 'number' ? String(duration).replace(/e.*$/, '') : duration;
  const number = /^(\d{1,20}(?:\.\d{1,20})?)(?:[nmµu]?s)?$/.exec(text ?? '')?.[1];
  return number?.replace('.', '').replace(/^0+|0+$/g, '');
}

/** The reason that the final reports of a key give for one request; `undefined` if none or several could be meant. */
function reasonIn(
  reports: readonly Pending[],
  access: RequestIdentity,
  timeMs: number,
): (Reason & { readonly used: readonly Pending[] }) | undefined {
  const digits = digitsOf(access.duration);
  const identifies = digits !== undefined && digits.length >= digitsMin;
  const sameDuration = identifies ? reports.filter((report) => report.digits === digits) : [];
  const candidates =
    sameDuration.length > 0
      ? sameDuration
      : reports.filter(
          (report) =>
            (report.digits === undefined || digits === undefined || report.digits === digits) &&
            isSameConnection(report, access) &&
            timeMs - report.timeMs <= waitWithoutDurationMsMax,
        );
  const first = candidates[0];
  if (first === undefined) return undefined;
  if (candidates.length === 1) return { ...first, used: candidates };
  // Several requests of the same kind on one connection: what all have in common is true for each of them.
  const isSame = candidates.every(({ error, upstream }) => error === first.error && upstream === first.upstream);
  return isSame ? { error: first.error, errorId: '', upstream: first.upstream, used: [first] } : undefined;
}

/** Whether a report is of the same connection, and of the same status if it has one. */
function isSameConnection({ remoteIp, remotePort, status }: Pending, access: RequestIdentity): boolean {
  return remotePort !== '' && remoteIp === access.remoteIp && (status === 0 || status === access.status);
}

function commonUpstream(attempts: readonly Pending[], access: RequestIdentity): string {
  const own = attempts.filter(({ remoteIp, remotePort }) => remotePort !== '' && remoteIp === access.remoteIp);
  const upstreams = new Set(own.map(({ upstream }) => upstream));
  return upstreams.size === 1 ? [...upstreams][0]! : '';
}
