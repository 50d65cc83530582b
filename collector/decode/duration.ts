import type { DurationFormat } from '../config.js';

/** Duration format of a logger, and whether it is a guess. */
export interface LearnedDuration {
  readonly format: DurationFormat;
  readonly guessed: boolean;
}

/** Reads the durations of one collector's loggers. */
export interface DurationReader {
  /**
   * Returns milliseconds; `undefined` if the value is not a duration of at least 0. `learn`: whether to learn the
   * logger's format from it.
   */
  read(value: unknown, logger: string, options: { learn: boolean }): number | undefined;
  /** The learned formats by logger name; `''` for lines without a name. */
  formats(): Readonly<Record<string, LearnedDuration>>;
}

/** Maximum number of loggers with separate state. Beyond it, loggers share the state of `_other`. */
const loggersMax = 200;
const otherLoggers = '_other';
const nameLengthMax = 200;

/** A smaller integer cannot be nanoseconds: no request is faster than a microsecond. */
const nanosecondsMin = 1000;
/** A larger integer is a vote for nanoseconds: requests of more than ten minutes are rare. */
const millisecondsUsualMax = 600_000;
/** Threshold without votes: Caddy's fastest responses take 7 µs, and few responses take more than 5 s. */
const millisecondsFirstMax = 5000;
/** Minimum number of votes for a format to count as certain. They must also outnumber the others ten to one. */
const votesMin = 10;
/**
 * Number of votes beyond which all votes are halved, so that a changed configuration is learned within as many lines.
 */
const votesMax = 200;

interface LoggerState {
  /** Format of the last duration that was learned from; `undefined` before the first. */
  format: DurationFormat | undefined;
  millisecondVotes: number;
  nanosecondVotes: number;
}

/**
 * Creates a reader for one collector. A duration is a string (`1m32.05s`), a decimal number of seconds, or an integer
 * of nanoseconds or milliseconds. Only integers are ambiguous: each logger's unit is learned from those that are
 * plausible in one unit only. A `format` other than `auto` applies to every number.
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
      if (value === 0) return 0; // aborted, or less than one unit: no evidence
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

/** Unit of an integer above 0. With `learn`, counts its vote first. */
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
 * Rounds to a nanosecond, to remove floating-point errors: 66.074 µs are 0.066074 ms, and not 0.06607400000000001.
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
 * Parses the output of Go's `time.Duration.String`, such as `1h0m0.5s`, `6.31ms`, `850µs` or `0s`. Returns
 * milliseconds; `undefined` for other text and for negative durations.
 */
export function parseGoDuration(text: string): number | undefined {
  if (text.length > 40 || !/^(?:\d+(?:\.\d+)?(?:h|ms|m|s|us|µs|μs|ns))+$/.test(text)) return undefined;
  let durationMs = 0;
  for (const [, amount, unit] of text.matchAll(/([\d.]+)([^\d.]+)/g)) durationMs += Number(amount) * unitsMs[unit!]!;
  return toNanosecond(durationMs);
}
