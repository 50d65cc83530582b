/** Finds problems of the loggers that send Caddy's events to the sink: the lines that say why requests fail. */
import { groupBy } from '../../../shared/group-by.js';
import { entryLines, eventLoggers, handlesErrors, hasErrorRoutes, type NetLogEntry } from '../event-log.js';
import { excludeLines, hostNames, jsonChange, sitesOf } from './change.js';
import type { CheckOptions, Copies, Finding } from './finding.js';
import {
  accessLogger,
  errorLogger,
  handlers,
  objectOf,
  textOf,
  textsOf,
  type NetLogger,
  type RequestGroup,
} from './log-routing.js';

/** The lines that requests cause. */
export interface SentLines {
  readonly access: Copies;
  /** Error lines, by the names of loggers alone, regardless of level. */
  readonly errors: Copies;
  /** The loggers without which a sink would not get the access lines of some requests. */
  readonly sole: ReadonlySet<NetLogger>;
}

const proxyModule = 'http.handlers.reverse_proxy';

/** Finds problems of events for each sink that gets access lines. */
export function eventFindings(
  loggers: readonly NetLogger[],
  sent: SentLines,
  config: unknown,
  options: CheckOptions,
): Finding[] {
  const sinkOf = ({ address }: NetLogger): string | undefined => options.sinkAt(address);
  const sinks = new Set([...sent.access.values()].flatMap((copies) => copies.map(({ logger }) => sinkOf(logger))));
  const common = {
    sole: sent.sole,
    proxied: [...new Set(proxiedHosts(config))],
    handlesErrors: handlesErrors(config),
    syntax: options.syntax,
  };
  return [...groupBy(loggers, sinkOf)]
    .filter(([sink]) => sinks.has(sink))
    .flatMap(([, ofSink]) => {
      const parts = { ...common, loggers: ofSink, errors: errorLinesTo(new Set(ofSink), sent.errors, config) };
      return [...missingFindings(parts), ...levelFindings(parts), ...debugFindings(parts), ...duplicateFindings(parts)];
    });
}

/** The configuration, as far as it concerns one sink. */
interface SinkParts {
  /** At least one. */
  readonly loggers: readonly NetLogger[];
  readonly sole: SentLines['sole'];
  readonly errors: readonly ErrorLines[];
  /** Hosts with a `reverse_proxy`. */
  readonly proxied: readonly string[];
  readonly handlesErrors: boolean;
  readonly syntax: CheckOptions['syntax'];
}

/** The error line of a group's requests. */
interface ErrorLines {
  readonly group: RequestGroup;
  /** The level at which Caddy writes it for a status of 500 or more. */
  readonly level: 'DEBUG' | 'ERROR';
  /** The loggers that accept it, once for each name under which Caddy writes it. */
  readonly copies: readonly { readonly logger: NetLogger; readonly loggerName: string }[];
}

function errorLinesTo(loggers: ReadonlySet<NetLogger>, errors: Copies, config: unknown): ErrorLines[] {
  const servers = objectOf(objectOf(objectOf(objectOf(config)['apps'])['http'])['servers']);
  return [...errors].map(([group, copies]) => ({
    group,
    level: hasErrorRoutes(servers[group.server]) ? 'DEBUG' : 'ERROR',
    copies: copies.filter(({ logger }) => loggers.has(logger)),
  }));
}

function missingFindings(parts: SinkParts): Finding[] {
  const { loggers, errors, proxied } = parts;
  const isSent = (moduleId: string, loggerName: string): boolean =>
    loggers.some((logger) => logger.acceptsModule(moduleId) && logger.accepts(loggerName) && takes(logger, 'WARN'));
  const missing = [
    ...(errors.some(({ copies }) => copies.length > 0) ? [] : ['error lines']),
    ...(proxied.length === 0 || isSent(proxyModule, proxyModule) ? [] : ['lines of reverse_proxy']),
    ...(isSent('tls', 'tls.obtain') ? [] : ['lines about certificates']),
  ];
  if (missing.length === 0) return [];
  return [
    {
      severity: 'hint',
      code: 'events-not-sent',
      logger: undefined,
      path: '/logging/logs',
      sites: [],
      what: `Caddy’s ${missing.join(', ')} are not sent`,
      why: 'They say why requests fail: an upstream that refuses connections, a timeout, a certificate that could not be obtained.',
      change: eventLogChange(parts),
    },
  ];
}

/** The change that sends all events: to a logger that sends some of them because of its `include`, or new loggers. */
function eventLogChange({ loggers, sole, errors, handlesErrors, syntax }: SinkParts): string[] {
  const partial = loggers.find(({ accepts, config }) => accepts('http.log') && textsOf(config['include']).length > 0);
  if (partial !== undefined) {
    const exclude = textsOf(partial.config['exclude']);
    const isComplete = sole.has(partial) || exclude.includes(accessLogger);
    return excludeLines(partial, isComplete ? exclude : [...exclude, accessLogger], syntax, { dropInclude: true });
  }
  const hasErrorLog = errors.some(({ copies }) => copies.length > 0);
  const added = eventLoggers({ address: loggers[0]!.address.text, handlesErrors: handlesErrors || hasErrorLog });
  return entriesChange({ caddy_events: added.events, ...(!hasErrorLog && { caddy_errors: added.errors }) }, syntax);
}

/** With `handle_errors`, Caddy writes error lines at DEBUG, whatever the status. */
function levelFindings({ errors, syntax }: SinkParts): Finding[] {
  const lost = errors.filter(
    ({ copies, level }) => copies.length > 0 && !copies.some(({ logger }) => takes(logger, level)),
  );
  return [...groupBy(lost, ({ copies }) => copies[0]!.logger)].map(([logger, lines]): Finding => {
    const isAtDebug = lines.every(({ level }) => level === 'DEBUG');
    return {
      severity: 'hint',
      code: 'errors-below-level',
      logger: logger.name,
      path: `${logger.path}/level`,
      sites: sitesOf(lines.map(({ group }) => group)),
      what: isAtDebug ? 'handle_errors turns error lines into DEBUG' : 'Error lines are below the level',
      why: `${isAtDebug ? 'A server of which any site has handle_errors writes all its error lines at DEBUG' : 'Error lines are written at ERROR'}, and this logger takes ${levelOf(logger)} and above: it gets none of them.`,
      change: isNarrow(logger) ? levelChange(logger, 'DEBUG', syntax) : splitChange(logger, syntax),
    };
  });
}

function debugFindings({ loggers, errors, proxied, syntax }: SinkParts): Finding[] {
  return loggers
    .filter(
      (logger) =>
        proxied.length > 0 &&
        levelOf(logger) === 'DEBUG' &&
        logger.acceptsModule(proxyModule) &&
        logger.accepts(proxyModule),
    )
    .map((logger) => ({
      severity: 'hint',
      code: 'debug-lines',
      logger: logger.name,
      path: `${logger.path}/level`,
      sites: hostNames(proxied),
      what: 'Every step of reverse_proxy is sent',
      why: 'At DEBUG, Caddy writes at least two more lines for each proxied request. Only error lines may need this level.',
      change: errors.some(({ copies, level }) => level === 'DEBUG' && copies.some((copy) => copy.logger === logger))
        ? splitChange(logger, syntax, 'INFO')
        : levelChange(logger, 'INFO', syntax),
    }));
}

function duplicateFindings({ errors, syntax }: SinkParts): Finding[] {
  const doubled = errors
    .map(({ copies, level, group }) => ({ copies: copies.filter(({ logger }) => takes(logger, level)), group }))
    .filter(({ copies }) => copies.length > 1);
  const keyed = groupBy(doubled, ({ copies }) => {
    const names = new Set(copies.map(({ logger }) => logger.name));
    return JSON.stringify(
      names.size > 1 ? [...names] : copies.map(({ logger, loggerName }) => [logger.name, loggerName]),
    );
  });
  return [...keyed.values()].map((lines): Finding => {
    const { copies } = lines[0]!;
    const [retained, ...surplus] = [...new Set(copies.map(({ logger }) => logger))].sort(
      (a, b) => Number(isNarrow(b)) - Number(isNarrow(a)),
    ) as [NetLogger, ...NetLogger[]];
    const { name, path, config } = surplus[0] ?? retained;
    return {
      severity: 'doubles',
      code: 'errors-sent-twice',
      logger: name,
      path: `${path}/exclude`,
      sites: sitesOf(lines.map(({ group }) => group)),
      what:
        surplus.length === 0
          ? `${name} sends each error line more than once`
          : `Each error line is sent more than once, by ${[retained, ...surplus].map((logger) => logger.name).join(' and ')}`,
      why: 'Each copy is counted as a separate error.',
      change:
        surplus.length === 0
          ? excludeLines(
              retained,
              [...textsOf(config['exclude']), ...copies.slice(1).map(({ loggerName }) => loggerName)],
              syntax,
            )
          : surplus.flatMap((logger) => withoutErrors(logger, retained, syntax)),
    };
  });
}

/** The change to a logger whose error lines another one sends. If that one sends all other events too, it is redundant. */
function withoutErrors(logger: NetLogger, retained: NetLogger, syntax: CheckOptions['syntax']): string[] {
  if (!isNarrow(logger) && isNarrow(retained))
    return excludeLines(logger, [...textsOf(logger.config['exclude']), errorLogger], syntax);
  return [
    syntax === 'json'
      ? `${logger.path}: remove it, or give it another writer`
      : `# remove the log ${logger.name}, or its \`output net ${logger.address.text}\``,
  ];
}

/** The change that moves error lines from a logger to one of their own, at DEBUG. */
function splitChange(logger: NetLogger, syntax: CheckOptions['syntax'], level?: 'INFO'): string[] {
  const { errors } = eventLoggers({ address: logger.address.text, handlesErrors: true });
  return [
    ...excludeLines(logger, [...textsOf(logger.config['exclude']), errorLogger], syntax, { level }),
    ...entriesChange({ caddy_errors: errors }, syntax),
  ];
}

function levelChange({ name, path }: NetLogger, level: 'DEBUG' | 'INFO', syntax: CheckOptions['syntax']): string[] {
  return syntax === 'json' ? [jsonChange(`${path}/level`, level)] : [`log ${name} {`, `    level ${level}`, '}'];
}

function entriesChange(
  entries: Readonly<Record<string, NetLogEntry | undefined>>,
  syntax: CheckOptions['syntax'],
): string[] {
  const defined = Object.entries(entries).flatMap(([name, entry]) => (entry === undefined ? [] : [{ name, entry }]));
  if (syntax === 'json') return defined.map(({ name, entry }) => jsonChange(`/logging/logs/${name}`, entry));
  return [
    '# once, in the global options at the top of the Caddyfile',
    '{',
    ...defined.flatMap(({ name, entry }) => entryLines(name, entry)).map((line) => `    ${line}`),
    '}',
  ];
}

/** Whether it takes nothing but error lines. */
function isNarrow({ config }: NetLogger): boolean {
  const include = textsOf(config['include']);
  return include.length > 0 && include.every((name) => `${name}.`.startsWith(`${errorLogger}.`));
}

const levels = ['DEBUG', 'INFO', 'WARN', 'ERROR', 'PANIC', 'FATAL'];

function levelOf({ config }: NetLogger): string {
  return textOf(config['level']).toUpperCase() || 'INFO';
}

function takes(logger: NetLogger, level: string): boolean {
  return levels.indexOf(levelOf(logger)) <= levels.indexOf(level);
}

function proxiedHosts(config: unknown): string[] {
  return handlers(config).flatMap(({ hosts, config: handler }) =>
    handler['handler'] === 'reverse_proxy' ? hosts : [],
  );
}
