import type { DurationFormat } from '../config.js';

/** How a logger writes durations, and whether that is a guess. */
export interface LearnedDuration {
  readonly format: DurationFormat;
  readonly guessed: boolean;
}

/** Reads the durations of one collector's loggers. */
export interface DurationReader {
  /**
   * Milliseconds; `undefined` when the value is not a duration of at least 0. `learn` says whether it is typical of its
   * logger.
   */
  read(value: unknown, logger: string, options: { learn: boolean }): number | undefined;
  /** What is known of each logger, by its name; `''` stands for lines that do not name theirs. */
  formats(): Readonly<Record<string, LearnedDuration>>;
}

/** Names come from Caddy's configuration, so a few are usual; further ones share what is learned under `_other`. */
const loggersMax = 200;
const otherLoggers = '_other';
const nameLengthMax = 200;

/** No request takes less than a microsecond: a smaller integer is not in nanoseconds. */
const nanosecondsMin = 1000;
/** A request of more than ten minutes is rare: a larger integer speaks for nanoseconds. */
const millisecondsUsualMax = 600_000;
/** Before anything is learned: Caddy takes some 7 µs at its fastest, and few responses take more than 5 s. */
const millisecondsFirstMax = 5000;
/** So many numbers have to speak for a format, and ten times as many as against it, before it is no longer a guess. */
const votesMin = 10;
/** Older votes lose weight beyond these, so that a changed configuration is learned within as many lines. */
const votesMax = 200;

interface LoggerState {
  /** What its last typical duration was in; `undefined` before the first. */
  format: DurationFormat | undefined;
  millisecondVotes: number;
  nanosecondVotes: number;
}

/**
 * A duration is text (`1m32.05s`), seconds with a fraction, or an integer of nanoseconds or of milliseconds. Only the
 * integers are ambiguous. Each logger's format is learned from those that can hardly be the other one, since one
 * collector hears loggers with different encoders. A `format` other than `auto` is taken for every number instead.
 */
export function createDurationReader(format: DurationFormat | 'auto'): DurationReader {
  const states = new Map<string, LoggerState>();
  return {
    read(value, logger, { learn }) {
      if (typeof value === 'string') {
        const durationMs = parseGoDuration(value);
        if (learn && durationMs !== undefined) stateOf(logger).format = 'string';
        return durationMs;
      }
      if (typeof value !== 'number' || !(value >= 0) || value > Number.MAX_SAFE_INTEGER) return undefined;
      if (value === 0) return 0; // aborted, or less than one unit: it says nothing
      const state = stateOf(logger);
      const unit = format !== 'auto' ? format : Number.isInteger(value) ? unitOfInteger(value, state, learn) : 's';
      if (learn) state.format = unit;
      return toMs(value, unit);
    },
    formats() {
      const known = [...states].filter(([, { format: current }]) => current !== undefined);
      return Object.fromEntries(
        known.map(([name, state]) => [name, { format: state.format!, guessed: format === 'auto' && isGuess(state) }]),
      );
    },
  };

  function stateOf(logger: string): LoggerState {
    const known = states.get(logger);
    if (known !== undefined) return known;
    const name = states.size < loggersMax && logger.length <= nameLengthMax ? logger : otherLoggers;
    let state = states.get(name);
    if (state === undefined) {
      state = { format: undefined, millisecondVotes: 0, nanosecondVotes: 0 };
      states.set(name, state);
    }
    return state;
  }
}

function isGuess({ format, millisecondVotes, nanosecondVotes }: LoggerState): boolean {
  if (format !== 'ms' && format !== 'ns') return false;
  const [votes, against] = format === 'ms' ? [millisecondVotes, nanosecondVotes] : [nanosecondVotes, millisecondVotes];
  return votes < votesMin || votes < against * 10;
}

/** What an integer above 0 is in. When it `learn`s, it counts what the integer speaks for first. */
function unitOfInteger(value: number, state: LoggerState, learn: boolean): 'ms' | 'ns' {
  if (learn && value < nanosecondsMin) state.millisecondVotes += 1;
  else if (learn && value > millisecondsUsualMax) state.nanosecondVotes += 1;
  if (state.millisecondVotes + state.nanosecondVotes > votesMax) {
    state.millisecondVotes /= 2;
    state.nanosecondVotes /= 2;
  }
  const { millisecondVotes, nanosecondVotes } = state;
  if (value < nanosecondsMin) return 'ms';
  if (value > millisecondsUsualMax) return millisecondVotes > nanosecondVotes * 10 ? 'ms' : 'ns';
  if (millisecondVotes === nanosecondVotes) return value <= millisecondsFirstMax ? 'ms' : 'ns';
  return millisecondVotes > nanosecondVotes ? 'ms' : 'ns';
}

function toMs(value: number, format: DurationFormat): number | undefined {
  switch (format) {
    case 's':
      return toNanosecond(value * 1000);
    case 'ms':
      return value;
    case 'ns':
      return value / 1e6;
    case 'string':
      return undefined;
  }
}

/**
 * Takes out what the arithmetic of doubles added below a nanosecond: 66.074 µs are 0.066074 ms, and not
 * 0.06607400000000001.
 */
function toNanosecond(durationMs: number): number {
  return durationMs < 1e9 ? Math.round(durationMs * 1e6) / 1e6 : durationMs;
}

const unitsMs: Readonly<Record<string, number>> = {
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ns: 1e-6,
};

/**
 * Milliseconds of what Go's `time.Duration.String` writes: `1h0m0.5s`, `6.31ms`, `850µs`, `0s`. `undefined` when the
 * text is not one, or is negative.
 */
export function parseGoDuration(text: string): number | undefined {
  if (text.length > 40 || !/^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|μs|ns))+$/.test(text)) return undefined;
  let durationMs = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)([^\d.]+)/g)) durationMs += Number(amount) * unitsMs[unit!]!;
  return toNanosecond(durationMs);
}
