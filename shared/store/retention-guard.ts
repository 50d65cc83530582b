/**
 * Decides before what time rows may be deleted. Neither the machine's clock nor the settings are believed at once: one start with the clock days
 * ahead, or without its settings file, must not cost the data. What is out of the ordinary is announced, and takes effect after a wait.
 */
import type { Log } from '../log.js';
import type { Retention } from '../rollup.js';
import { isoTime } from '../time-range.js';

/** What a store remembers for the guard from one look to the next, across restarts. JSON holds it. */
export interface RetentionState {
  /** The wall clock at the last look, in milliseconds since 1970. */
  readonly lookedMs: number;
  /** The time that deletion goes by: the wall clock, or, after a step that is not believed yet, what it would show without the step. */
  readonly trustedMs: number;
  /** How long the program has run with a wall clock that differs from `trustedMs`, in milliseconds; `null` when it does not. */
  readonly clockWaitedMs: number | null;
  /** The retention in force. */
  readonly requestsMs: number;
  readonly rollupsMs: number;
  /** Requests before this time have been deleted, in milliseconds since 1970; absent in a state of an earlier version. */
  readonly deletedBeforeMs?: number;
  /** A shorter retention that is not in force yet, and for how long it has been announced, in milliseconds. */
  readonly announced: Retention & { readonly waitedMs: number } | null;
}

/** The times of what a store holds, in milliseconds since 1970; `undefined` where it holds nothing. */
export interface StoredSpan {
  readonly oldestRequestMs: number | undefined;
  /** Of rollups of all levels. */
  readonly oldestRollupMs: number | undefined;
  /** Of requests, rollups and ledgers. */
  readonly newestMs: number | undefined;
}

/** Delete what is older than `retention` at `nowMs`. */
export interface DueDeletion {
  readonly retention: Retention;
  /** Milliseconds since 1970; not the machine's clock while that is not believed. */
  readonly nowMs: number;
}

/** What the guard works with. */
export interface RetentionGuardParts {
  /** The settings. */
  readonly retention: Retention;
  /** How long to wait before a step of the clock or a shorter retention takes effect, in milliseconds. Default: a day. */
  readonly delayMs?: number | undefined;
  /** Resolves to what `save` was given last, or to `undefined`. */
  readonly load: () => Promise<unknown>;
  readonly save: (state: RetentionState) => Promise<unknown>;
  /** Only called when the answer matters. */
  readonly readSpan: () => Promise<StoredSpan>;
  readonly log: Log;
  /** The wall clock, in milliseconds since 1970. */
  readonly now?: () => number;
  /** A clock in milliseconds that never steps. */
  readonly monotonicMs?: () => number;
}

const dayMs = 86_400_000;
const hourMs = 3_600_000;
/** The time between the last look before a restart and the first one after it that counts as running, at most: stores look every hour or more often. */
const restartMsMax = hourMs;

/** The largest step of the clock that is believed at once: a seventh of the retention of requests, at least 2 h and at most a day. */
function stepMsMax({ requestsMs }: Retention): number {
  return Math.min(dayMs, Math.max(2 * hourMs, requestsMs / 7));
}

/** Looks at the clocks and the settings before each deletion. One look at a time. */
export class RetentionGuard {
  readonly #parts: Required<Omit<RetentionGuardParts, 'delayMs'>> & { readonly delayMs: number };
  #state: RetentionState | undefined;
  /** The monotonic clock at the last look of this process. */
  #lookedMonotonicMs: number | undefined;
  /** Whether this process has logged what it waits for. */
  #hasSaidClock = false;
  #hasSaidRetention = false;

  constructor({ delayMs = dayMs, now = Date.now, monotonicMs = () => performance.now(), ...parts }: RetentionGuardParts) {
    this.#parts = { ...parts, delayMs, now, monotonicMs };
  }

  /** Decides what may be deleted now, and saves what the next look needs. Throws what `load`, `save` and `readSpan` throw. */
  async look(): Promise<DueDeletion> {
    const { retention, now, monotonicMs, load, save, readSpan } = this.#parts;
    const before = this.#state ?? readState(await load());
    let span: StoredSpan | undefined;
    const spanOnce = async (): Promise<StoredSpan> => span ??= await readSpan();
    const [nowMs, lookMonotonicMs] = [now(), monotonicMs()];
    const last = before ?? firstState(retention, nowMs, await spanOnce());

    // Between two starts only the wall clock tells how much time has passed, and only as far as it is believed.
    const gapMs = nowMs - last.lookedMs;
    const isFirst = this.#lookedMonotonicMs === undefined;
    const elapsedMs = isFirst ? (gapMs > 0 && gapMs <= stepMsMax(retention) ? gapMs : 0) : lookMonotonicMs - this.#lookedMonotonicMs!;
    // The wait is over when the program has run for that long. A restart costs little of it: the program may be restarted often.
    const ranMs = isFirst ? Math.min(elapsedMs, restartMsMax) : elapsedMs;
    const clock = await this.#lookAtClock(last, { nowMs, elapsedMs, ranMs, stepMs: gapMs - elapsedMs }, spanOnce);
    const inForce = await this.#lookAtRetention(last, { trustedMs: clock.trustedMs, ranMs }, spanOnce);
    const deletionNowMs = Math.min(nowMs, clock.trustedMs);
    const state = { lookedMs: nowMs, ...clock, ...inForce, deletedBeforeMs: Math.max(deletedBefore(last), deletionNowMs - inForce.requestsMs) };
    await save(state);
    this.#state = state;
    this.#lookedMonotonicMs = lookMonotonicMs;
    return { retention: { requestsMs: state.requestsMs, rollupsMs: state.rollupsMs }, nowMs: deletionNowMs };
  }

  async #lookAtClock(last: RetentionState, { nowMs, elapsedMs, ranMs, stepMs }: { nowMs: number; elapsedMs: number; ranMs: number; stepMs: number }, readSpan: () => Promise<StoredSpan>): Promise<Pick<RetentionState, 'trustedMs' | 'clockWaitedMs'>> {
    const { retention, delayMs, log } = this.#parts;
    const believed = { trustedMs: nowMs, clockWaitedMs: null };
    const trustedMs = last.trustedMs + elapsedMs;
    const aheadMs = nowMs - trustedMs;
    if (Math.abs(aheadMs) <= stepMsMax(retention)) {
      if (last.clockWaitedMs !== null) log.info("The machine's clock agrees with the time of the last deletion again.");
      this.#hasSaidClock = false;
      return believed;
    }
    const clockWaitedMs = last.clockWaitedMs === null || Math.abs(stepMs) > stepMsMax(retention) ? 0 : last.clockWaitedMs + ranMs;
    if (clockWaitedMs >= delayMs) {
      log.warn(`The machine's clock, ${durationText(Math.abs(aheadMs))} ${aheadMs > 0 ? 'ahead of' : 'behind'} the time of the last deletion, is taken to be right, since RETENTION_DELAY=${durationText(delayMs)} is over. What is too old by it is deleted now.`);
      this.#hasSaidClock = false;
      return believed;
    }
    const { newestMs } = await readSpan();
    if (newestMs === undefined) return believed; // there is nothing to lose
    if (!this.#hasSaidClock || clockWaitedMs === 0) log.warn(clockWarning({ nowMs, trustedMs, newestMs, waitMs: delayMs - clockWaitedMs, retention }));
    this.#hasSaidClock = true;
    return { trustedMs, clockWaitedMs };
  }

  async #lookAtRetention(last: RetentionState, { trustedMs, ranMs }: { trustedMs: number; ranMs: number }, readSpan: () => Promise<StoredSpan>): Promise<Pick<RetentionState, 'requestsMs' | 'rollupsMs' | 'announced'>> {
    const { retention, delayMs, log } = this.#parts;
    const wanted = { requestsMs: retention.requestsMs, rollupsMs: retention.rollupsMs, announced: null };
    if (wanted.requestsMs >= last.requestsMs && wanted.rollupsMs >= last.rollupsMs) {
      this.#hasSaidRetention = false;
      return wanted;
    }
    const { announced } = last;
    const isAnnounced = announced?.requestsMs === wanted.requestsMs && announced.rollupsMs === wanted.rollupsMs;
    const waitedMs = isAnnounced ? announced.waitedMs + ranMs : 0;
    if (waitedMs >= delayMs) {
      log.warn(`The shorter retention is in force now (RETENTION_REQUESTS=${durationText(wanted.requestsMs)}, RETENTION_ROLLUPS=${durationText(wanted.rollupsMs)}). What is older is deleted.`);
      return wanted;
    }
    const { oldestRequestMs = Infinity, oldestRollupMs = Infinity } = await readSpan();
    const losses = ([
      ['RETENTION_REQUESTS', 'requests', oldestRequestMs, 'requestsMs'],
      ['RETENTION_ROLLUPS', 'rollups', oldestRollupMs, 'rollupsMs'],
    ] as const).filter(([, , oldestMs, kind]) => wanted[kind] < last[kind] && oldestMs < trustedMs - wanted[kind]);
    if (losses.length === 0) return wanted;
    const loss = losses.map(([setting, what, oldestMs, kind]) =>
      `${setting} is ${durationText(wanted[kind])} and was ${durationText(last[kind])}: ${what} from ${timeText(oldestMs)} to ${timeText(trustedMs - wanted[kind])} will be deleted`).join('; ');
    if (!this.#hasSaidRetention || waitedMs === 0) {
      log.warn(`${loss} when the program has run for ${durationText(delayMs - waitedMs)} with this setting. To keep them, set it as it was; to delete them at once, set RETENTION_DELAY=0s.`);
    }
    this.#hasSaidRetention = true;
    // One that is longer, or shortens nothing, is in force at once; the other stays.
    return {
      requestsMs: losses.some(([, , , kind]) => kind === 'requestsMs') ? last.requestsMs : wanted.requestsMs,
      rollupsMs: losses.some(([, , , kind]) => kind === 'rollupsMs') ? last.rollupsMs : wanted.rollupsMs,
      announced: { requestsMs: wanted.requestsMs, rollupsMs: wanted.rollupsMs, waitedMs },
    };
  }
}

/**
 * Where no look is remembered, what is stored stands in for it: the last time is that of the newest row, and rows have been kept for as long as
 * the oldest say.
 */
function firstState(retention: Retention, nowMs: number, { oldestRequestMs, oldestRollupMs, newestMs }: StoredSpan): RetentionState {
  const lastMs = Math.min(nowMs, newestMs ?? nowMs);
  const keptFor = (oldestMs = lastMs, settingMs: number): number => {
    const days = Math.ceil((lastMs - oldestMs) / dayMs) * dayMs;
    return days - settingMs > dayMs ? days : settingMs; // deletion is late by minutes, and windows begin a day before they end
  };
  return {
    lookedMs: lastMs, trustedMs: lastMs, clockWaitedMs: null, announced: null,
    requestsMs: keptFor(oldestRequestMs, retention.requestsMs), rollupsMs: keptFor(oldestRollupMs, retention.rollupsMs),
  };
}

function clockWarning({ nowMs, trustedMs, newestMs, waitMs, retention }: { nowMs: number; trustedMs: number; newestMs: number; waitMs: number; retention: Retention }): string {
  const differs = `The machine's clock shows ${timeText(nowMs)}, ${durationText(Math.abs(nowMs - trustedMs))} ${nowMs > trustedMs ? 'ahead of' : 'behind'} the time that deletion goes by, ${timeText(trustedMs)} (the newest data is of ${timeText(newestMs)})`;
  return nowMs > trustedMs
    ? `${differs}. By that clock, requests before ${timeText(nowMs - retention.requestsMs)} and rollups before ${timeText(nowMs - retention.rollupsMs)} are too old; they will be deleted when the program has run for ${durationText(waitMs)} with it. If it is wrong, set it right; if the program was off for that time, there is nothing to do; to delete at once, set RETENTION_DELAY=0s.`
    : `${differs}. Set it right if it is wrong; it is taken to be right when the program has run for ${durationText(waitMs)} with it.`;
}

/** To the second. */
function timeText(timeMs: number): string {
  return isoTime(Math.floor(timeMs / 1000) * 1000);
}

/** A duration as a setting has it, rounded to minutes from a minute on: `36h`. */
function durationText(ms: number): string {
  if (ms < 60_000) return `${Math.ceil(ms / 1000)}s`;
  const minutes = Math.round(ms / 60_000);
  if (minutes % 1440 === 0) return `${minutes / 1440}d`;
  if (minutes >= 4 * 1440) return `${Math.round(minutes / 144) / 10}d`;
  return minutes % 60 === 0 ? `${minutes / 60}h` : minutes > 600 ? `${Math.round(minutes / 6) / 10}h` : `${minutes}m`;
}

/** The time before which requests have been deleted, by what `save` was given, in milliseconds since 1970; `-Infinity` where that is not known. */
export function deletedBefore(state: unknown): number {
  const beforeMs = (state as Partial<RetentionState> | null | undefined)?.deletedBeforeMs;
  return typeof beforeMs === 'number' ? beforeMs : -Infinity;
}

/** What `save` was given, out of JSON; `undefined` when it is not that. */
function readState(value: unknown): RetentionState | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { lookedMs, trustedMs, clockWaitedMs, requestsMs, rollupsMs, announced, deletedBeforeMs } = value as Partial<RetentionState>;
  const areNumbers = (...values: unknown[]): boolean => values.every((each) => Number.isFinite(each));
  if (!areNumbers(lookedMs, trustedMs, requestsMs, rollupsMs, clockWaitedMs ?? 0)) return undefined;
  if (announced && !areNumbers(announced.requestsMs, announced.rollupsMs, announced.waitedMs)) return undefined;
  return { lookedMs: lookedMs!, trustedMs: trustedMs!, clockWaitedMs: clockWaitedMs ?? null, requestsMs: requestsMs!, rollupsMs: rollupsMs!, announced: announced ?? null, ...(typeof deletedBeforeMs === 'number' && { deletedBeforeMs }) };
}
