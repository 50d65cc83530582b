/**
 * The loggers that send Caddy's events, which are all lines except access lines, to the sink.
 *
 * - The logger has no `include`: Caddy matches `include` against ids of modules too, so `include http` leaves out the
 *   lines of `http.handlers.reverse_proxy` (`loggerAllowed` in Caddy's logging.go).
 * - A server with `handle_errors` writes all error lines at DEBUG. They get a logger of their own then: at DEBUG,
 *   `reverse_proxy` would add two lines per request, and `tls` one per handshake.
 */
import { accessLogger, errorLogger, objectOf } from './check/log-routing.js';

/** An entry of `logging.logs`. */
export interface NetLogEntry {
  /** `dial_timeout` is in nanoseconds. */
  readonly writer: {
    readonly output: 'net';
    readonly address: string;
    readonly dial_timeout: number;
    readonly soft_start: true;
  };
  readonly level?: 'DEBUG';
  readonly include?: readonly string[];
  readonly exclude?: readonly string[];
}

/** Options of `eventLoggers`. */
export interface EventLoggerOptions {
  /** The sink's address in Caddy's syntax. */
  readonly address: string;
  /** Whether a server has `handle_errors`. */
  readonly handlesErrors: boolean;
  /** Names such as `http.log.error.other` that only repeat the lines of another name. Default: none. */
  readonly repeated?: readonly string[];
}

/** Returns the logger of events and, where it cannot send them, the one of error lines. */
export function eventLoggers({ address, handlesErrors, repeated = [] }: EventLoggerOptions): {
  readonly events: NetLogEntry;
  readonly errors?: NetLogEntry;
} {
  const writer = netWriter(address);
  if (!handlesErrors) return { events: { writer, exclude: [accessLogger, ...repeated] } };
  return {
    events: { writer, exclude: [accessLogger, errorLogger] },
    errors: {
      writer,
      level: 'DEBUG',
      include: [errorLogger],
      ...(repeated.length > 0 && { exclude: repeated }),
    },
  };
}

/** The writer of an entry that sends lines to an address in Caddy's syntax. */
export function netWriter(address: string): NetLogEntry['writer'] {
  return { output: 'net', address, dial_timeout: 1_000_000_000, soft_start: true };
}

/** An entry as the lines of a Caddyfile's global options. */
export function entryLines(name: string, { writer, level, include, exclude }: NetLogEntry): string[] {
  return [
    `log ${name} {`,
    `    output net ${writer.address} {`,
    '        dial_timeout 1s',
    '        soft_start',
    '    }',
    ...(level === undefined ? [] : [`    level ${level}`]),
    ...(include === undefined ? [] : [`    include ${include.join(' ')}`]),
    ...(exclude === undefined ? [] : [`    exclude ${exclude.join(' ')}`]),
    '}',
  ];
}

/** Whether a server of the configuration has `handle_errors`. */
export function handlesErrors(config: unknown): boolean {
  const servers = objectOf(objectOf(objectOf(objectOf(config)['apps'])['http'])['servers']);
  return Object.values(servers).some(hasErrorRoutes);
}

/** Whether a server has `handle_errors`, so that Caddy writes its error lines at DEBUG (`ServeHTTP` in server.go). */
export function hasErrorRoutes(server: unknown): boolean {
  const routes = objectOf(objectOf(server)['errors'])['routes'];
  return Array.isArray(routes) && routes.length > 0;
}
