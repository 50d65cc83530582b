import { printableLine } from './printable.js';
import { choice, type SettingValues } from './settings/settings.js';

/** Levels by ascending severity. */
const levels = ['debug', 'info', 'warn', 'error'] as const;

/** Settings of the log, common to all commands. */
export const logSettings = {
  LOG_LEVEL: choice("The least severe messages to write to the program's own log.", levels, { default: 'info' }),
  LOG_FORMAT: choice(
    "The format of the program's own log: text for people, or json with an object in each line.",
    ['text', 'json'],
    { default: 'text' },
  ),
};

/** Values of the settings of the log. */
export type LogConfig = SettingValues<typeof logSettings>;

/** Writes one line per call, whatever its message and fields contain. Never throws. */
export interface Log {
  /** What an operator needs to find the cause of a problem, such as each connection. Off by default. */
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Values beside the message: ` name=value` in text, members of the object in JSON. */
export type LogFields = Readonly<Record<string, string | number | boolean>>;

let ofProcess: LogConfig = { LOG_LEVEL: 'info', LOG_FORMAT: 'text' };

/** Sets the level and the format of every log of this process that does not have its own. */
export function configureLogs(config: LogConfig): void {
  ofProcess = config;
}

/**
 * Log of one part of the program (`collector`, `web`). Writes to standard error by default, which is synchronous, so the
 * last line before a crash is written. `config`: default `configureLogs`.
 */
export function createLog(
  part: string,
  {
    write = writeToStderr,
    now = Date.now,
    config,
  }: { write?: (line: string) => void; now?: () => number; config?: LogConfig } = {},
): Log {
  const writer =
    (level: (typeof levels)[number]) =>
    (message: string, fields: LogFields = {}): void => {
      const { LOG_LEVEL, LOG_FORMAT } = config ?? ofProcess;
      if (levels.indexOf(level) < levels.indexOf(LOG_LEVEL)) return;
      const entry = { time: new Date(now()).toISOString(), level, part, message };
      // Peers control some of the text: it must not begin a line, or reach the terminal as a control character.
      write(`${printableLine(LOG_FORMAT === 'json' ? jsonLine(entry, fields) : textLine(entry, fields))}\n`);
    };
  return { debug: writer('debug'), info: writer('info'), warn: writer('warn'), error: writer('error') };
}

interface LogEntry {
  readonly time: string;
  readonly level: string;
  readonly part: string;
  readonly message: string;
}

function textLine({ time, level, part, message }: LogEntry, fields: LogFields): string {
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? JSON.stringify(value) : value}`,
  );
  return `${time} ${level} ${part}: ${message}${rest.join('')}`;
}

/** The entry's own members come first, and no field replaces them. */
function jsonLine(entry: LogEntry, fields: LogFields): string {
  return JSON.stringify({ ...entry, ...fields, ...entry });
}

/**
 * Logs the first message of each key immediately, then at most one per `intervalMs`, with the number of suppressed
 * ones: clients must not be able to flood the log. `monotonicMs` is a monotonic clock in milliseconds.
 */
export function rateLimitedWarn(
  warn: Log['warn'],
  { intervalMs = 60_000, keysMax = 100, monotonicMs = () => performance.now() } = {},
): (key: string, message: string, fields?: LogFields) => void {
  const seen = new Map<string, { nextMs: number; suppressed: number }>();
  return (key, message, fields) => {
    const timeMs = monotonicMs();
    let entry = seen.get(key);
    if (entry === undefined) {
      if (seen.size >= keysMax) seen.clear();
      entry = { nextMs: -Infinity, suppressed: 0 };
      seen.set(key, entry);
    }
    if (timeMs < entry.nextMs) {
      entry.suppressed += 1;
      return;
    }
    warn(message, entry.suppressed === 0 ? fields : { ...fields, alsoSinceLastReport: entry.suppressed });
    entry.nextMs = timeMs + intervalMs;
    entry.suppressed = 0;
  };
}

function writeToStderr(line: string): void {
  process.stderr.write(line);
}
