/**
 * Determines which logger gets the line of which request, from Caddy's JSON configuration and by Caddy's rules:
 *
 * - A server without `logs` writes no access lines.
 * - With it, a request's host selects access logger names (`logger_names`, then `default_logger_name`), or none
 *   (`skip_hosts`, `skip_unmapped_hosts`). The request is logged **once for each name**, as `http.log.access.NAME`.
 * - Each entry of `logging.logs` accepts what its `include` and `exclude` allow; the longer namespace wins.
 *
 * Sources: Caddy 2.11.4, `logging.go` (loggerAllowed), `modules/caddyhttp/logging.go` (getLoggerHosts) and `server.go`
 * (shouldLogRequest).
 */

/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** An entry of `logging.logs` that writes to a socket. */
export interface NetLogger {
  readonly name: string;
  /** JSON path: `/logging/logs/NAME`. */
  readonly path: string;
  readonly address: NetAddress;
  readonly config: JsonObject;
  /** Whether it accepts lines of this logger, regardless of level. */
  readonly accepts: (loggerName: string) => boolean;
  /** Whether it accepts lines of this module at all, such as `http.handlers.reverse_proxy`. */
  readonly acceptsModule: (moduleId: string) => boolean;
}

/** The address of an `output net`. */
export interface NetAddress {
  /** As configured. */
  readonly text: string;
  /** `tcp`, `udp`, `unix` and variants. */
  readonly network: string;
  /** Empty for a unix socket. */
  readonly host: string;
  /** Empty for a unix socket. */
  readonly port: string;
  /** Normalised: without the network, and with one name for this machine. */
  readonly place: string;
  /** Whether it is on this machine, where a connection is refused immediately. */
  readonly isLocal: boolean;
}

/** Requests that get the same access logger names. */
export interface RequestGroup {
  readonly server: string;
  /** The host of a site, or `''` for every other host. */
  readonly host: string;
  /** `http.log.access` or `http.log.access.NAME`; empty when Caddy writes no line. */
  readonly loggerNames: readonly string[];
}

/** A part of a route that does something with the request. */
export interface Handler {
  readonly server: string;
  readonly hosts: readonly string[];
  readonly config: JsonObject;
}

/** The logger of access lines without a logger name. */
export const accessLogger = 'http.log.access';

/** The logger of error lines without a logger name. */
export const errorLogger = 'http.log.error';

/** Returns the loggers that write to a socket. */
export function netLoggers(config: unknown): NetLogger[] {
  return Object.entries(at(config, 'logging', 'logs')).flatMap(([name, value]) => {
    const logger = objectOf(value);
    const writer = objectOf(logger['writer']);
    if (writer['output'] !== 'net') return [];
    return [
      {
        name,
        path: `/logging/logs/${name}`,
        address: netAddress(textOf(writer['address'])),
        config: logger,
        accepts: filterOf(textsOf(logger['include']), textsOf(logger['exclude'])),
        acceptsModule: moduleFilterOf(textsOf(logger['include']), textsOf(logger['exclude'])),
      },
    ];
  });
}

/** Returns the requests of all HTTP servers, grouped by server and host. */
export function requestGroups(config: unknown): RequestGroup[] {
  return Object.entries(at(config, 'apps', 'http', 'servers')).flatMap(([server, value]) =>
    groupsOf(server, objectOf(value)),
  );
}

/** Returns all handlers, including nested ones. */
export function handlers(config: unknown): Handler[] {
  return Object.entries(at(config, 'apps', 'http', 'servers')).flatMap(([server, value]) =>
    arrayOf(objectOf(value)['routes']).flatMap((route) => {
      const hosts = hostsOf(route);
      return handlersIn(route).map((handler) => ({ server, hosts, config: handler }));
    }),
  );
}

/** Returns a predicate for logger names, by Caddy's rule for `include` and `exclude`. */
export function filterOf(include: readonly string[], exclude: readonly string[]): (loggerName: string) => boolean {
  const [included, excluded] = [new Set(include), new Set(exclude)];
  return (loggerName) => {
    if (excluded.has('*')) return false;
    const names = namespacesOf(loggerName);
    const longest = (of: ReadonlySet<string>): number => names.find((name) => of.has(name))?.length ?? 0;
    const [accept, reject] = [longest(included), longest(excluded)];
    return included.size === 0 ? reject === 0 : accept > reject;
  };
}

/**
 * Returns a predicate for ids of modules. A module gets only loggers whose `include` names it or a namespace below it:
 * `include http` takes no line of `http.handlers.reverse_proxy`.
 */
function moduleFilterOf(include: readonly string[], exclude: readonly string[]): (moduleId: string) => boolean {
  const longest = (names: readonly string[]): number => names.reduce((max, { length }) => Math.max(max, length), 0);
  return (moduleId) => {
    if (include.length === 0) return filterOf([], exclude)(moduleId);
    const accept = longest(include.filter((name) => isWithin(name, moduleId)));
    const reject = longest(exclude.filter((name) => isWithin(moduleId, name)));
    return !exclude.includes('*') && accept > reject;
  };
}

/**
 * Returns the first included name for which Caddy refuses the configuration, if any: with both lists, each included
 * name must have a name above or below it, but not itself, among the excluded ones (`CustomLog.provision`).
 */
export function refusedName(include: readonly string[], exclude: readonly string[]): string | undefined {
  if (exclude.length === 0) return undefined;
  return include.find(
    (name) => exclude.includes(name) || !exclude.some((other) => isWithin(name, other) || isWithin(other, name)),
  );
}

function isWithin(name: string, namespace: string): boolean {
  return `${name}.`.startsWith(`${namespace}.`);
}

/** The names of a request's error lines: those of its access lines. Caddy writes them without an access log too. */
export function errorNamesOf({ loggerNames }: RequestGroup): string[] {
  return loggerNames.length === 0
    ? [errorLogger]
    : loggerNames.map((name) => `${errorLogger}${name.slice(accessLogger.length)}`);
}

/** The name of a logger and of its parent namespaces, longest first: `a.b.c`, `a.b`, `a`. */
export function namespacesOf(loggerName: string): string[] {
  const labels = loggerName.split('.');
  return labels.map((_, at) => labels.slice(0, labels.length - at).join('.'));
}

/** Parses addresses such as `127.0.0.1:9514`, `udp/[::1]:9514`, `unix//run/sink.sock` and `tcp://…`. Never throws. */
export function netAddress(text: string): NetAddress {
  const plain = text.replace('://', '/');
  const slash = plain.indexOf('/');
  const network = slash < 0 ? 'tcp' : plain.slice(0, slash).trim().toLowerCase();
  const rest = plain.slice(slash + 1);
  if (network.startsWith('unix')) {
    const path = rest.replace(/\|[0-7]*$/, '');
    return { text, network, host: '', port: '', place: `unix/${path}`, isLocal: true };
  }
  const [, bracketed, bare, port = ''] = /^(?:\[([^\]]*)\]|(.*?))(?::(\d+))?$/.exec(rest) ?? [];
  const host = (bracketed ?? bare ?? '').toLowerCase();
  const isLocal =
    host === 'localhost' || host === '::1' || /^127(\.\d+){3}$/.test(host) || ['', '0.0.0.0', '::'].includes(host);
  return { text, network, host, port, place: `${isLocal ? 'localhost' : host}:${port}`, isLocal };
}

/** Returns an object unchanged, and an empty one for anything else. */
export function objectOf(value: unknown): JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : {};
}

/** Returns a string unchanged, and an empty one for anything else. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function groupsOf(server: string, config: JsonObject): RequestGroup[] {
  const routes = arrayOf(config['routes']);
  const siteHosts = new Set(routes.flatMap(hostsOf));
  const logs = objectOf(config['logs']);
  // A site for any host that only logs has no route, only a default name. Caddy also logs requests that match no route.
  const acceptsAnyHost = siteHosts.delete('') || routes.length === 0 || textOf(logs['default_logger_name']) !== '';
  const loggerNames = objectOf(logs['logger_names']);
  const namesByHost = new Map(
    Object.entries(loggerNames).map(([pattern, names]) => [pattern.toLowerCase(), textsOf(names)]),
  );
  const skipped = new Set(textsOf(logs['skip_hosts']).map((pattern) => pattern.toLowerCase()));
  const hosts = new Set([...Object.keys(loggerNames), ...siteHosts, ...(acceptsAnyHost ? [''] : [])]);
  const named = routes.flatMap((route) => {
    const names = handlersIn(route).flatMap((handler) =>
      handler['handler'] === 'vars' ? textsOf(handler['access_logger_names']) : [],
    );
    return names.length === 0 ? [] : hostsOf(route).map((host) => ({ host, names }));
  });
  // `log_name` without a matcher replaces the names of the host for every request of its site.
  const renamed = new Set(routes.filter(isAlwaysNamed).flatMap(hostsOf));
  const isLogged = 'logs' in config && config['logs'] !== null;
  return [
    ...[...hosts].filter((host) => !isLogged || !renamed.has(host)).map((host) => ({ host, names: namesOf(host) })),
    ...(isLogged ? named : []),
  ].map(({ host, names }) => ({
    server,
    host,
    loggerNames: names.map((name) => (name === '' ? accessLogger : `${accessLogger}.${name}`)),
  }));

  function namesOf(host: string): readonly string[] {
    if (!isLogged) return [];
    const patterns = patternsFor(host);
    const own = patterns.find((pattern) => namesByHost.has(pattern));
    if (own !== undefined) return namesByHost.get(own)!;
    if (logs['skip_unmapped_hosts'] === true || patterns.some((pattern) => skipped.has(pattern))) return [];
    return [textOf(logs['default_logger_name'])];
  }
}

/** Whether a route assigns other access logger names to every request. */
function isAlwaysNamed(route: unknown): boolean {
  const left = [route];
  while (left.length > 0) {
    for (const handler of arrayOf(objectOf(left.pop())['handle']).map(objectOf)) {
      if (handler['handler'] === 'vars' && textsOf(handler['access_logger_names']).length > 0) return true;
      if (handler['handler'] === 'subroute')
        left.push(...arrayOf(handler['routes']).filter((nested) => arrayOf(objectOf(nested)['match']).length === 0));
    }
  }
  return false;
}

/** The hosts that a route matches; `''` for any host. */
function hostsOf(route: unknown): string[] {
  const sets = arrayOf(objectOf(route)['match']).map((matchers) => textsOf(objectOf(matchers)['host']));
  return sets.length === 0 || sets.some((hosts) => hosts.length === 0) ? ['', ...sets.flat()] : sets.flat();
}

/**
 * The patterns that match a host or pattern, closest first: the host itself, then with one more label replaced by `*`
 * each time, from the left. Caddy supports no others, such as `a.*.example`.
 */
function patternsFor(host: string): string[] {
  const labels = host.toLowerCase().split('.');
  return [
    labels.join('.'),
    ...labels.flatMap((label, at) => {
      if (label === '') return [];
      labels[at] = '*';
      return [labels.join('.')];
    }),
  ];
}

/** From the outside in, in the order of the configuration. Iterative, since nesting may be deep. */
function handlersIn(value: unknown): JsonObject[] {
  const found: JsonObject[] = [];
  const left = [value];
  while (left.length > 0) {
    const next = left.pop();
    if (typeof next !== 'object' || next === null) continue;
    if ('handler' in next) found.push(objectOf(next));
    for (const nested of Object.values(next).reverse()) left.push(nested);
  }
  return found;
}

function at(value: unknown, ...keys: readonly string[]): JsonObject {
  return keys.reduce<JsonObject>((object, key) => objectOf(object[key]), objectOf(value));
}

function arrayOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** The strings of an array. A single string counts as an array of one, as in Caddy's `logger_names`. */
export function textsOf(value: unknown): string[] {
  return (typeof value === 'string' ? [value] : arrayOf(value)).filter((each) => typeof each === 'string');
}
