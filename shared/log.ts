/** Writes one line per call; never throws. Fields are appended as `name=value`. */
export interface Log {
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  error(message: string, fields?: LogFields): void;
}

/** Values that go behind the message. */
export type LogFields = Readonly<Record<string, string | number | boolean>>;

/** A log of one part of the program (`collector`, `web`), on standard error by default. */
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
 * Lets the first message of each key through at once and then one per interval, which says how many it stands for: what
 * strangers cause must not fill the log. `monotonicMs` is a clock in milliseconds that never steps.
 */
export function rateLimitedWarn(
  warn: Log['warn'],
  { intervalMs = 60_000, keysMax = 100, monotonicMs = () => performance.now() } = {},
): (key: string, message: string, fields?: LogFields) => void {
  const seen = new Map<string, { nextMs: number; held: number }>();
  return (key, message, fields) => {
    const timeMs = monotonicMs();
    let entry = seen.get(key);
    if (entry === undefined) {
      if (seen.size >= keysMax) seen.clear();
      entry = { nextMs: -Infinity, held: 0 };
      seen.set(key, entry);
    }
    if (timeMs < entry.nextMs) {
      entry.held += 1;
      return;
    }
    warn(message, entry.held === 0 ? fields : { ...fields, alsoSinceLastReport: entry.held });
    entry.nextMs = timeMs + intervalMs;
    entry.held = 0;
  };
}

function writeToStderr(line: string): void {
  process.stderr.write(line);
}
