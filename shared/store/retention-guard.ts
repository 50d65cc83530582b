/**
 * Decides which rows may be deleted. Does not immediately trust a change of the clock or the settings: a single start
 * with the clock days ahead, or without its settings file, must not delete data. An unusual change is announced in
 * the log and takes effect after a delay.
 */
import type { Log } from '../log.js';
import type { Retention } from '../rollup/rollup.js';
import { isoTime } from '../time-range.js';

/** State of the guard, stored between checks and across restarts. Can be serialized as JSON. */
export interface RetentionState {
  /** Wall clock at the last check, in milliseconds since 1970. */
  readonly lookedMs: number;
  /** Time by which rows expire: the wall clock, without steps that are not trusted yet. */
  readonly trustedMs: number;
  /**
   * How long the program has run with a wall clock that differs from `trustedMs`, in milliseconds; `null` if it does
   * not differ.
   */
  readonly clockWaitedMs: number | null;
  /** The retention in force. */
  readonly requestsMs: number;
  readonly rollupsMs: number;
  /**
   * Requests before this time have been deleted, in milliseconds since 1970; absent in a state of an earlier version.
   */
  readonly deletedBeforeMs?: number;
  /**
   * A shorter retention that is not in force yet, and how long the program has run since it was announced, in
   * milliseconds.
   */
  readonly announced: (Retention & { readonly waitedMs: number }) | null;
}

/** The time span of the stored data, in milliseconds since 1970; `undefined` if there is none. */
export interface StoredSpan {
  readonly oldestRequestMs: number | undefined;
  /** Of rollups of all levels. */
  readonly oldestRollupMs: number | undefined;
  /** Of requests, rollups and ledgers. */
  readonly newestMs: number | undefined;
}

/** What may be deleted: rows older than `retention` at `nowMs`. */
export interface DueDeletion {
  readonly retention: Retention;
  /** Milliseconds since 1970. Differs from the machine's clock while that is not trusted. */
  readonly nowMs: number;
}

/** Settings and dependencies of the guard. */
export interface RetentionGuardParts {
  /** The settings. */
  readonly retention: Retention;
  /**
   * How long to wait before a step of the clock or a shorter retention takes effect, in milliseconds. Default: a day.
   */
  readonly delayMs?: number | undefined;
  /** Resolves to the value last passed to `save`, or to `undefined`. */
  readonly load: () => Promise<unknown>;
  readonly save: (state: RetentionState) => Promise<unknown>;
  /** Called only when the result is needed. */
  readonly readSpan: () => Promise<StoredSpan>;
  readonly log: Log;
  /** The wall clock, in milliseconds since 1970. */
  readonly now?: () => number;
  /** A clock in milliseconds that never steps. */
  readonly monotonicMs?: () => number;
}

const dayMs = 86_400_000;
const hourMs = 3_600_000;
/**
 * Maximum time between the checks before and after a restart that counts as running, in milliseconds: stores check at
 * least every hour.
 */
const restartMsMax = hourMs;

/**
 * Largest step of the clock that is trusted immediately: a seventh of the retention of raw requests, at least 2 h and
 * at most a day.
 */
function stepMsMax({ requestsMs }: Retention): number {
  return Math.min(dayMs, Math.max(2 * hourMs, requestsMs / 7));
}

/** Checks the clocks and the settings before each deletion. Checks must not overlap. */
export class RetentionGuard {
  readonly #parts: Required<Omit<RetentionGuardParts, 'delayMs'>> & { readonly delayMs: number };
  #state: RetentionState | undefined;
  /** The monotonic clock at the last check of this process. */
  #lastMonotonicMs: number | undefined;
  /** Whether this process has logged the deviating clock, and the shorter retention. */
  #hasLoggedClock = false;
  #hasLoggedRetention = false;

  constructor({
    delayMs = dayMs,
    now = Date.now,
    monotonicMs = () => performance.now(),
    ...parts
  }: RetentionGuardParts) {
    this.#parts = { ...parts, delayMs, now, monotonicMs };
  }

  /**
   * Decides what may be deleted now, and saves the state for the next check. Throws the errors of `load`, `save` and
   * `readSpan`.
   */
  async check(): Promise<DueDeletion> {
    const { retention, now, monotonicMs, load, save, readSpan } = this.#parts;
    const before = this.#state ?? readState(await load());
    let span: StoredSpan | undefined;
    const spanOnce = async (): Promise<StoredSpan> => (span ??= await readSpan());
    const [nowMs, checkMonotonicMs] = [now(), monotonicMs()];
    const last = before ?? firstState(retention, nowMs, await spanOnce());

    // Across a restart, only the wall clock shows how much time has passed, and only a small step is trusted.
    const gapMs = nowMs - last.lookedMs;
    const isFirst = this.#lastMonotonicMs === undefined;
    const elapsedMs = isFirst
      ? gapMs > 0 && gapMs <= stepMsMax(retention)
        ? gapMs
        : 0
      : checkMonotonicMs - this.#lastMonotonicMs!;
    // The delay counts running time, when operators can notice the announcement. Short restarts count too: the
    // program may be restarted often.
    const ranMs = isFirst ? Math.min(elapsedMs, restartMsMax) : elapsedMs;
    const clock = await this.#checkClock(last, { nowMs, elapsedMs, ranMs, stepMs: gapMs - elapsedMs }, spanOnce);
    const inForce = await this.#checkRetention(last, { trustedMs: clock.trustedMs, ranMs }, spanOnce);
    const deletionNowMs = Math.min(nowMs, clock.trustedMs);
    const state = {
      lookedMs: nowMs,
      ...clock,
      ...inForce,
      deletedBeforeMs: Math.max(deletedBefore(last), deletionNowMs - inForce.requestsMs),
    };
    await save(state);
    this.#state = state;
    this.#lastMonotonicMs = checkMonotonicMs;
    return {
      retention: { ...retention, requestsMs: state.requestsMs, rollupsMs: state.rollupsMs },
      nowMs: deletionNowMs,
    };
  }

  async #checkClock(
    last: RetentionState,
    { nowMs, elapsedMs, ranMs, stepMs }: { nowMs: number; elapsedMs: number; ranMs: number; stepMs: number },
    readSpan: () => Promise<StoredSpan>,
  ): Promise<Pick<RetentionState, 'trustedMs' | 'clockWaitedMs'>> {
    const { retention, delayMs, log } = this.#parts;
    const trusted = { trustedMs: nowMs, clockWaitedMs: null };
    const trustedMs = last.trustedMs + elapsedMs;
    const aheadMs = nowMs - trustedMs;
    if (Math.abs(aheadMs) <= stepMsMax(retention)) {
      if (last.clockWaitedMs !== null) log.info("The machine's clock agrees with the time of the last deletion again.");
      this.#hasLoggedClock = false;
      return trusted;
    }
    const clockWaitedMs =
      last.clockWaitedMs === null || Math.abs(stepMs) > stepMsMax(retention) ? 0 : last.clockWaitedMs + ranMs;
    if (clockWaitedMs >= delayMs) {
      log.warn(
        `The machine's clock, ${durationText(Math.abs(aheadMs))} ${aheadMs > 0 ? 'ahead of' : 'behind'} the time of the last deletion, is now trusted, since RETENTION_DELAY=${durationText(delayMs)} has passed. Data that is too old by it is deleted now.`,
      );
      this.#hasLoggedClock = false;
      return trusted;
    }
    const { newestMs } = await readSpan();
    if (newestMs === undefined) return trusted; // nothing to delete
    if (!this.#hasLoggedClock || clockWaitedMs === 0)
      log.warn(clockWarning({ nowMs, trustedMs, newestMs, waitMs: delayMs - clockWaitedMs, retention }));
    this.#hasLoggedClock = true;
    return { trustedMs, clockWaitedMs };
  }

  async #checkRetention(
    last: RetentionState,
    { trustedMs, ranMs }: { trustedMs: number; ranMs: number },
    readSpan: () => Promise<StoredSpan>,
  ): Promise<Pick<RetentionState, 'requestsMs' | 'rollupsMs' | 'announced'>> {
    const { retention, delayMs, log } = this.#parts;
    const configured = { requestsMs: retention.requestsMs, rollupsMs: retention.rollupsMs, announced: null };
    if (configured.requestsMs >= last.requestsMs && configured.rollupsMs >= last.rollupsMs) {
      this.#hasLoggedRetention = false;
      return configured;
    }
    const { announced } = last;
    const isAnnounced = announced?.requestsMs === configured.requestsMs && announced.rollupsMs === configured.rollupsMs;
    const waitedMs = isAnnounced ? announced.waitedMs + ranMs : 0;
    if (waitedMs >= delayMs) {
      log.warn(
        `The shorter retention takes effect now (RETENTION_REQUESTS=${durationText(configured.requestsMs)}, RETENTION_ROLLUPS=${durationText(configured.rollupsMs)}). Older data is deleted.`,
      );
      return configured;
    }
    const { oldestRequestMs = Infinity, oldestRollupMs = Infinity } = await readSpan();
    const losses = (
      [
        ['RETENTION_REQUESTS', 'requests', oldestRequestMs, 'requestsMs'],
        ['RETENTION_ROLLUPS', 'rollups', oldestRollupMs, 'rollupsMs'],
      ] as const
    ).filter(([, , oldestMs, kind]) => configured[kind] < last[kind] && oldestMs < trustedMs - configured[kind]);
    if (losses.length === 0) return configured;
    const loss = losses
      .map(
        ([setting, what, oldestMs, kind]) =>
          `${setting} is ${durationText(configured[kind])} and was ${durationText(last[kind])}: ${what} from ${timeText(oldestMs)} to ${timeText(trustedMs - configured[kind])} will be deleted`,
      )
      .join('; ');
    if (!this.#hasLoggedRetention || waitedMs === 0) {
      log.warn(
        `${loss} when the program has run for ${durationText(delayMs - waitedMs)} with this setting. To keep them, restore the setting; to delete them immediately, set RETENTION_DELAY=0s.`,
      );
    }
    this.#hasLoggedRetention = true;
    // A retention that deletes nothing takes effect immediately; the other one is delayed.
    return {
      requestsMs: losses.some(([, , , kind]) => kind === 'requestsMs') ? last.requestsMs : configured.requestsMs,
      rollupsMs: losses.some(([, , , kind]) => kind === 'rollupsMs') ? last.rollupsMs : configured.rollupsMs,
      announced: { requestsMs: configured.requestsMs, rollupsMs: configured.rollupsMs, waitedMs },
    };
  }
}

/**
 * Infers a state from the stored data if none was saved: the last check was at the time of the newest row, and the
 * retention was as long as the age of the oldest.
 */
function firstState(
  retention: Retention,
  nowMs: number,
  { oldestRequestMs, oldestRollupMs, newestMs }: StoredSpan,
): RetentionState {
  const lastMs = Math.min(nowMs, newestMs ?? nowMs);
  const retentionFrom = (oldestMs = lastMs, settingMs: number): number => {
    const days = Math.ceil((lastMs - oldestMs) / dayMs) * dayMs;
    return days - settingMs > dayMs ? days : settingMs; // rows outlive their retention until deletion runs, and by up to a day, the widest window
  };
  return {
    lookedMs: lastMs,
    trustedMs: lastMs,
    clockWaitedMs: null,
    announced: null,
    requestsMs: retentionFrom(oldestRequestMs, retention.requestsMs),
    rollupsMs: retentionFrom(oldestRollupMs, retention.rollupsMs),
  };
}

function clockWarning({
  nowMs,
  trustedMs,
  newestMs,
  waitMs,
  retention,
}: {
  nowMs: number;
  trustedMs: number;
  newestMs: number;
  waitMs: number;
  retention: Retention;
}): string {
  const differs = `The machine's clock shows ${timeText(nowMs)}, ${durationText(Math.abs(nowMs - trustedMs))} ${nowMs > trustedMs ? 'ahead of' : 'behind'} the time used for deletion, ${timeText(trustedMs)} (the newest data is from ${timeText(newestMs)})`;
  return nowMs > trustedMs
    ? `${differs}. By that clock, requests before ${timeText(nowMs - retention.requestsMs)} and rollups before ${timeText(nowMs - retention.rollupsMs)} are too old; they will be deleted when the program has run for ${durationText(waitMs)} with it. If it is wrong, correct it; if the program was off for that time, there is nothing to do; to delete immediately, set RETENTION_DELAY=0s.`
    : `${differs}. Correct it if it is wrong; it will be trusted when the program has run for ${durationText(waitMs)} with it.`;
}

/** ISO time in seconds. */
function timeText(timeMs: number): string {
  return isoTime(Math.floor(timeMs / 1000) * 1000);
}

/** A duration in the syntax of the settings, such as `36h`. Rounded to minutes if it is a minute or more. */
function durationText(ms: number): string {
  if (ms < 60_000) return `${Math.ceil(ms / 1000)}s`;
  const minutes = Math.round(ms / 60_000);
  if (minutes % 1440 === 0) return `${minutes / 1440}d`;
  if (minutes >= 4 * 1440) return `${Math.round(minutes / 144) / 10}d`;
  return minutes % 60 === 0 ? `${minutes / 60}h` : minutes > 600 ? `${Math.round(minutes / 6) / 10}h` : `${minutes}m`;
}

/**
 * Returns the time before which requests have been deleted, in milliseconds since 1970, from a value passed to
 * `save`; `-Infinity` if unknown.
 */
export function deletedBefore(state: unknown): number {
  const beforeMs = (state as Partial<RetentionState> | null | undefined)?.deletedBeforeMs;
  return typeof beforeMs === 'number' ? beforeMs : -Infinity;
}

/** Parses a saved state; `undefined` if it is invalid. */
function readState(value: unknown): RetentionState | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { lookedMs, trustedMs, clockWaitedMs, requestsMs, rollupsMs, announced, deletedBeforeMs } =
    value as Partial<RetentionState>;
  const areNumbers = (...values: unknown[]): boolean => values.every((each) => Number.isFinite(each));
  if (!areNumbers(lookedMs, trustedMs, requestsMs, rollupsMs, clockWaitedMs ?? 0)) return undefined;
  if (announced && !areNumbers(announced.requestsMs, announced.rollupsMs, announced.waitedMs)) return undefined;
  return {
    lookedMs: lookedMs!,
    trustedMs: trustedMs!,
    clockWaitedMs: clockWaitedMs ?? null,
    requestsMs: requestsMs!,
    rollupsMs: rollupsMs!,
    announced: announced ?? null,
    ...(typeof deletedBeforeMs === 'number' && { deletedBeforeMs }),
  };
}
