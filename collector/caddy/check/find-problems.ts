import { groupBy } from '../../../shared/group-by.js';
import { encoderProblems } from './encoder-problems.js';
import {
  accessLogger,
  filterOf,
  handlers,
  namespacesOf,
  netAddress,
  netLoggers,
  objectOf,
  requestGroups,
  textOf,
  textsOf,
  type JsonObject,
  type NetAddress,
  type NetLogger,
  type RequestGroup,
} from './log-routing.js';

/**
 * What a problem does: log lines or requests are lost; a figure is less exact or missing; a request is counted more
 * than once; nothing of these, but worth knowing.
 */
export type Severity = 'loses' | 'doubles' | 'blurs' | 'hint';

/** One problem of a configuration. */
export interface Finding {
  readonly severity: Severity;
  /** A name for programs, such as `no-soft-start`. */
  readonly code: string;
  /** What it is, without a full stop. */
  readonly what: string;
  /** The entry of `logging.logs`; `undefined` where it is about a site. */
  readonly logger: string | undefined;
  /** Where it is in Caddy's JSON configuration. */
  readonly path: string;
  /** The hosts whose requests it concerns; `any host` stands for those without a site of their own. */
  readonly sites: readonly string[];
  /** Why it matters, in a sentence. */
  readonly why: string;
  /** The lines to write: of a Caddyfile, or JSON paths with their values, as was asked for. */
  readonly change: readonly string[];
}

/** What is looked for. */
export interface CheckOptions {
  /** Which sink is at this address: a name that is the same for all its addresses; `undefined` for none. */
  readonly sinkAt: (address: NetAddress) => string | undefined;
  /** The sink's address for the lines to write, as Caddy has it: `tcp/127.0.0.1:9514`. */
  readonly address: string;
  /** Where the sink's own dashboard listens, as `host:port`. */
  readonly dashboard: string;
  /** What the lines to change are written in. */
  readonly syntax: 'caddyfile' | 'json';
}

/** A problem of one logger, before it is known where that logger is. */
export interface LoggerProblem extends Pick<Finding, 'severity' | 'code' | 'what' | 'why'> {
  /** Below the logger's own path, such as `/writer/soft_start`. */
  readonly path: string;
  /** The lines inside the Caddyfile's `log` block. */
  readonly caddyfile: readonly string[];
  /** The JSON that belongs at the path; `undefined` where it is to be removed. */
  readonly json: unknown;
}

const severities: readonly Severity[] = ['loses', 'doubles', 'blurs', 'hint'];

/**
 * Finds what in Caddy's JSON configuration loses, doubles or blurs log lines on their way to the sink; the worst first.
 */
export function findProblems(config: unknown, options: CheckOptions): Finding[] {
  const groups = requestGroups(config);
  const loggers = netLoggers(config).filter(({ address }) => options.sinkAt(address) !== undefined);
  const copies = copiesOf(loggers, groups);
  const taken = groupsByLogger(copies);
  return [
    ...loggers.flatMap((logger) => loggerFindings(logger, taken.get(logger) ?? [], config, options)),
    ...doubleFindings(copies, options),
    ...missingFindings(loggers, copies, options),
    ...handlerFindings(copies, config, options),
  ].sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity));
}

/** A line that a logger of the sink takes for a request. */
interface Copy {
  readonly logger: NetLogger;
  readonly loggerName: string;
}

/** The lines that are written for each request of a group: none where it is not sent. */
type Copies = ReadonlyMap<RequestGroup, readonly Copy[]>;

/** A configuration may have thousands of loggers and hosts: a logger is found by the names that it includes. */
function copiesOf(loggers: readonly NetLogger[], groups: readonly RequestGroup[]): Copies {
  const includes = loggers.flatMap((logger) =>
    [...new Set(textsOf(logger.config['include']))].map((name) => ({ logger, name })),
  );
  const including = groupBy(includes, ({ name }) => name);
  const takingAll = loggers.filter(({ config }) => textsOf(config['include']).length === 0);
  const order = new Map(loggers.map((logger, at) => [logger, at]));
  const takersOf = (loggerName: string): NetLogger[] =>
    [
      ...new Set([
        ...takingAll,
        ...namespacesOf(loggerName).flatMap((name) => including.get(name)?.map(({ logger }) => logger) ?? []),
      ]),
    ]
      .filter((logger) => logger.takes(loggerName))
      .sort((a, b) => order.get(a)! - order.get(b)!);
  return new Map(
    groups.map((group) => [
      group,
      group.loggerNames.flatMap((loggerName) => takersOf(loggerName).map((logger) => ({ logger, loggerName }))),
    ]),
  );
}

function groupsByLogger(copies: Copies): Map<NetLogger, RequestGroup[]> {
  const pairs = [...copies].flatMap(([group, sent]) =>
    [...new Set(sent.map(({ logger }) => logger))].map((logger) => ({ group, logger })),
  );
  return new Map(
    [...groupBy(pairs, ({ logger }) => logger)].map(([logger, taken]) => [logger, taken.map(({ group }) => group)]),
  );
}

function loggerFindings(
  logger: NetLogger,
  taken: readonly RequestGroup[],
  config: unknown,
  { syntax }: CheckOptions,
): Finding[] {
  const problems = [
    ...connectionProblems(logger),
    ...(taken.length === 0
      ? []
      : [
          ...datagramProblems(logger, taken, config),
          ...volumeProblems(logger),
          ...encoderProblems(logger.config['encoder']),
        ]),
  ];
  return problems.map(({ caddyfile, json, path, ...problem }) => ({
    ...problem,
    logger: logger.name,
    path: `${logger.path}${path}`,
    sites: sitesOf(taken),
    change: syntax === 'caddyfile' ? caddyfile : [jsonChange(`${logger.path}${path}`, json)],
  }));
}

function connectionProblems({ address, config }: NetLogger): LoggerProblem[] {
  const writer = objectOf(config['writer']);
  const block = (line: string): string[] => [`output net ${address.text} {`, `    ${line}`, '}'];
  const problems: LoggerProblem[] = [];
  if (!/^(?:tcp|udp)[46]?$|^unix$/.test(address.network)) {
    const mended = address.network.startsWith('unix') ? address.place : 'tcp/127.0.0.1:9514';
    problems.push({
      severity: 'loses',
      code: 'network',
      what: `Network ${address.network}`,
      path: '/writer/address',
      why: 'The collector listens on TCP, UDP and unix stream sockets: Caddy cannot connect to it in this way, and no line comes.',
      caddyfile: [`output net ${mended} {`, '    dial_timeout 1s', '    soft_start', '}'],
      json: mended,
    });
  }
  if (writer['soft_start'] !== true && !address.network.startsWith('udp')) {
    problems.push({
      severity: 'loses',
      code: 'no-soft-start',
      what: 'No soft_start',
      path: '/writer/soft_start',
      why: 'Caddy refuses to start, or to reload, while the sink is down, and every request is lost until someone notices.',
      caddyfile: block('soft_start'),
      json: true,
    });
  }
  const timeout = writer['dial_timeout'];
  if ((timeout === undefined || timeout === 0) && !address.network.startsWith('udp')) {
    problems.push({
      severity: address.isLocal ? 'hint' : 'loses',
      code: 'no-dial-timeout',
      what: 'No dial_timeout',
      path: '/writer/dial_timeout',
      why: address.isLocal
        ? 'Caddy has no limit of its own for connecting; on one machine the answer comes at once, so this matters only when the sink moves.'
        : 'Caddy has no limit of its own for connecting: when the sink’s machine does not answer, requests wait behind the lock of the log for as long as the operating system tries, two minutes on Linux.',
      caddyfile: block('dial_timeout 1s'),
      json: 1_000_000_000,
    });
  }
  return problems;
}

/**
 * A datagram of IPv4 holds 65,507 bytes. A byte of a header is six in JSON at worst, and Go allows 4 KiB on top of its
 * limit.
 */
const headerBytesMaxForUdp = 6144;

function datagramProblems({ address }: NetLogger, taken: readonly RequestGroup[], config: unknown): LoggerProblem[] {
  if (!address.network.startsWith('udp')) return [];
  const servers = objectOf(objectOf(objectOf(objectOf(config)['apps'])['http'])['servers']);
  const fits = taken.every(({ server }) => {
    const max = objectOf(servers[server])['max_header_bytes'];
    return typeof max === 'number' && max > 0 && max <= headerBytesMaxForUdp;
  });
  const tcp = `tcp/${address.text.slice(address.text.indexOf('/') + 1)}`;
  return [
    {
      severity: fits ? 'hint' : 'loses',
      code: 'udp',
      path: '/writer/address',
      what: fits ? 'UDP' : 'UDP, and headers may be large',
      why: fits
        ? 'Datagrams that come while the kernel’s buffer is full are lost, and Caddy does not know.'
        : 'A line of more than 65,507 bytes does not fit a datagram and is lost, unknown to the sink; a request with large headers makes one, and Caddy allows 1 MiB of them.',
      caddyfile: [`output net ${tcp} {`, '    dial_timeout 1s', '    soft_start', '}'],
      json: tcp,
    },
  ];
}

function volumeProblems({ config }: NetLogger): LoggerProblem[] {
  const problems: LoggerProblem[] = [];
  if (config['sampling'] !== undefined && config['sampling'] !== null) {
    problems.push({
      severity: 'loses',
      code: 'sampling',
      what: 'Sampling',
      path: '/sampling',
      why: 'Caddy drops lines and does not say which: all counts come out too low.',
      caddyfile: ['# remove: sampling { … }'],
      json: undefined,
    });
  }
  const level = textOf(config['level']).toUpperCase();
  if (['WARN', 'ERROR', 'PANIC', 'FATAL'].includes(level)) {
    problems.push({
      severity: 'loses',
      code: 'level',
      what: `Level ${level}`,
      path: '/level',
      why:
        level === 'WARN' || level === 'ERROR'
          ? 'Only requests that end with a status of 500 or more are logged at level ERROR, all others at INFO, so these are not sent.'
          : 'No request is logged at this level.',
      caddyfile: ['level INFO'],
      json: 'INFO',
    });
  }
  return problems;
}

/** Every way in which a sink gets a request's line more than once, one finding for each. */
function doubleFindings(copies: Copies, { sinkAt, syntax }: CheckOptions): Finding[] {
  const found = new Map<string, { copies: readonly Copy[]; groups: RequestGroup[] }>();
  for (const [group, all] of copies) {
    for (const ofSink of groupBy(all, ({ logger }) => sinkAt(logger.address)).values()) {
      if (ofSink.length < 2) continue;
      const key = ofSink.map(({ logger, loggerName }) => `${logger.name}\n${loggerName}`).join('\n');
      const known = found.get(key);
      if (known === undefined) found.set(key, { copies: ofSink, groups: [group] });
      else known.groups.push(group);
    }
  }
  return [...found.values()].map(({ copies, groups }) => {
    const [kept, ...surplus] = [...copies].sort((a, b) => narrowness(b) - narrowness(a)) as [Copy, ...Copy[]];
    const { logger } = surplus[0]!;
    const names = [...new Set(copies.map((copy) => copy.logger.name))];
    return {
      severity: 'doubles',
      code: 'sent-twice',
      logger: logger.name,
      path: logger.path,
      sites: sitesOf(groups),
      what:
        names.length === 1
          ? `${logger.name} sends each request ${times(copies.length)}`
          : `Each request is sent ${times(copies.length)}, by ${names.join(' and ')}`,
      why: 'Each copy is counted as a request of its own.',
      change: surplus.flatMap((copy) => leaveOut(copy, kept, syntax)),
    };
  });
}

/** A logger that takes the one name alone stays as it is, and the wider one leaves that name out. */
function narrowness({ logger, loggerName }: Copy): number {
  return Math.max(
    0,
    ...textsOf(logger.config['include'])
      .filter((name) => `${loggerName}.`.startsWith(`${name}.`))
      .map((name) => name.length),
  );
}

function leaveOut({ logger, loggerName }: Copy, kept: Copy, syntax: CheckOptions['syntax']): string[] {
  const include = textsOf(logger.config['include']);
  const exclude = [...textsOf(logger.config['exclude']), loggerName];
  const canExclude =
    !include.includes(loggerName) &&
    !filterOf(include, exclude)(loggerName) &&
    !(logger === kept.logger && loggerName === accessLogger);
  if (syntax === 'json')
    return [
      canExclude
        ? jsonChange(`${logger.path}/exclude`, exclude)
        : `${logger.path}: remove it, or give it another writer`,
    ];
  if (!canExclude)
    return [`# remove \`output net ${logger.address.text}\` from the log ${logger.name}, or the whole log`];
  return [`log ${logger.name} {`, `    exclude ${exclude.join(' ')}`, '}'];
}

function missingFindings(loggers: readonly NetLogger[], copies: Copies, { syntax, address }: CheckOptions): Finding[] {
  const groups = [...copies.keys()];
  const isSent = (group: RequestGroup): boolean => copies.get(group)!.length > 0;
  const output = [
    'log {',
    `    output net ${address} {`,
    '        dial_timeout 1s',
    '        soft_start',
    '    }',
    '}',
  ];
  if (!groups.some(isSent)) {
    const enabled = groups.filter(({ loggerNames }) => loggerNames.length > 0);
    return [
      {
        severity: 'loses',
        code: 'nothing-sent',
        logger: undefined,
        sites: sitesOf(groups),
        path: loggers.length === 0 ? '/logging/logs' : '/apps/http/servers',
        what: 'No request is sent to the sink',
        why:
          loggers.length === 0
            ? 'No logger writes to it.'
            : enabled.length === 0
              ? 'No server writes access logs.'
              : 'The loggers that write to it take none of the names that access lines have here.',
        change:
          syntax === 'caddyfile'
            ? output
            : [
                ...(loggers.length > 0
                  ? []
                  : [
                      jsonChange('/logging/logs/caddy-log-sink', {
                        writer: { output: 'net', address, dial_timeout: 1_000_000_000, soft_start: true },
                        include: [accessLogger],
                      }),
                    ]),
                ...[
                  ...new Set(groups.filter(({ loggerNames }) => loggerNames.length === 0).map(({ server }) => server)),
                ].map((server) => jsonChange(`/apps/http/servers/${server}/logs`, {})),
              ],
      },
    ];
  }
  return [
    ...groupBy(
      groups.filter((group) => !isSent(group)),
      ({ server }) => server,
    ),
  ].map(([server, missing]): Finding => {
    const silent = missing.every(({ loggerNames }) => loggerNames.length === 0);
    return {
      severity: 'hint',
      code: 'site-not-sent',
      logger: undefined,
      path: `/apps/http/servers/${server}/logs`,
      sites: sitesOf(missing),
      what: 'Sites whose requests are not sent',
      why: silent ? 'They write no access log.' : 'Their access log does not go to the sink.',
      change:
        syntax === 'caddyfile'
          ? output
          : [`/apps/http/servers/${server}/logs: see logger_names, skip_hosts and skip_unmapped_hosts`],
    };
  });
}

function handlerFindings(copies: Copies, config: unknown, options: CheckOptions): Finding[] {
  const { place: dashboard } = netAddress(options.dashboard);
  const caddyfile = options.syntax === 'caddyfile';
  const keyOf = (server: string, host: string): string => `${server}\n${host}`;
  const sentHosts = new Set(
    [...copies].filter(([, sent]) => sent.length > 0).map(([{ server, host }]) => keyOf(server, host)),
  );
  const sent = handlers(config).filter(({ server, hosts }) => hosts.some((host) => sentHosts.has(keyOf(server, host))));
  const common = { severity: 'hint', logger: undefined } as const;
  const findings = sent.flatMap(({ server, hosts, config: handler }): Finding[] => {
    const where = { path: `/apps/http/servers/${server}/routes`, sites: named(hosts) };
    if (
      handler['handler'] === 'reverse_proxy' &&
      upstreamsOf(handler).some((dial) => netAddress(dial).place === dashboard)
    ) {
      return [
        {
          ...common,
          ...where,
          code: 'own-dashboard',
          what: 'The sink’s own dashboard is among the sites',
          why: 'Each look at the page is a request of its own, and an open page asks for news all the time: your own traffic is in the counts.',
          change: [caddyfile ? 'log_skip' : '{"handler": "vars", "log_skip": true} in front of the reverse_proxy'],
        },
      ];
    }
    if (handler['handler'] === 'vars' && handler['log_skip'] === true) {
      return [
        {
          ...common,
          ...where,
          code: 'log-skip',
          what: 'Some requests are left out by log_skip',
          why: 'They are in no log, so the sink cannot count them.',
          change: [
            caddyfile
              ? '# remove log_skip, if these requests should count'
              : '"log_skip": remove it, if these requests should count',
          ],
        },
      ];
    }
    return [];
  });
  return [...new Map(findings.map((finding) => [JSON.stringify(finding), finding])).values()];
}

function upstreamsOf(handler: JsonObject): string[] {
  const upstreams = handler['upstreams'];
  return Array.isArray(upstreams) ? upstreams.map((upstream) => textOf(objectOf(upstream)['dial'])) : [];
}

function sitesOf(groups: readonly RequestGroup[]): string[] {
  return named([...new Set(groups.map(({ host }) => host))]);
}

function named(hosts: readonly string[]): string[] {
  return hosts.map((host) => host || 'any host').sort();
}

function times(count: number): string {
  return count === 2 ? 'twice' : `${count} times`;
}

function jsonChange(path: string, value: unknown): string {
  return value === undefined ? `${path}: remove it` : `${path}: ${JSON.stringify(value)}`;
}
