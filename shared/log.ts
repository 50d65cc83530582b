/** Writes one line per call. Fields are appended as `name=value`. Never throws. */
export interface Log {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Values appended to the message. */
export type LogFields = Readonly<Record<string, string | number | boolean>>;

/** Log of one part of the program (`collector`, `web`). Writes to standard error by default. */
export function createLog(
  part: string,
  { write = writeToStderr, now = Date.now }: { write?: (line: string) => void; now?: () => number } = {},
): Log {
  const line =
    (level: string) =>
    (message: string, fields: LogFields = {}): void => {
      const rest = Object.entries(fields).map(
        ([name, value]) => ` ${name}=${typeof value === 'string' ? JSON.stringify(value) : value}`,
      );
      write(`${new Date(now()).toISOString()} ${level} ${part}: ${message}${rest.join('')}\n`);
    };
  return { info: line('info'), warn: line('warn'), error: line('error') };
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
