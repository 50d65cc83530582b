import { excludeLines, hostNames, jsonChange, sitesOf } from './change.js';
import type { CheckOptions, Copies, Copy, Finding, LoggerProblem, Severity } from './finding.js';
import { groupBy } from '../../../shared/group-by.js';
import { netWriter } from '../event-log.js';
import { encoderProblems } from './encoder-problems.js';
import { eventFindings } from './event-findings.js';
import {
  accessLogger,
  errorLogger,
  errorNamesOf,
  filterOf,
  handlers,
  namespacesOf,
  netAddress,
  netLoggers,
  objectOf,
  refusedName,
  requestGroups,
  textOf,
  textsOf,
  type JsonObject,
  type NetLogger,
  type RequestGroup,
} from './log-routing.js';

const severities: readonly Severity[] = ['loses', 'doubles', 'blurs', 'hint'];

/** Finds problems in Caddy's JSON configuration that lose, duplicate or blur log lines. Sorted by severity. */
export function findProblems(config: unknown, options: CheckOptions): Finding[] {
  const groups = requestGroups(config);
  const loggers = netLoggers(config).filter(({ address }) => options.sinkAt(address) !== undefined);
  const copies = copiesOf(loggers, groups);
  const errors = copiesOf(loggers, groups, errorNamesOf);
  const sole = soleSenders(copies, options.sinkAt);
  const taken = groupsByLogger(copies);
  return [
    ...loggers.flatMap((logger) => loggerFindings(logger, taken.get(logger) ?? [], config, options)),
    ...duplicateFindings(copies, sole, options),
    ...missingFindings(loggers, copies, options),
    ...eventFindings(loggers, { access: copies, errors, sole }, config, options),
    ...handlerFindings(copies, config, options),
  ].sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity));
}

/** Indexes loggers by the names that they include, since a configuration may have thousands of loggers and hosts. */
function copiesOf(
  loggers: readonly NetLogger[],
  groups: readonly RequestGroup[],
  namesOf: (group: RequestGroup) => readonly string[] = ({ loggerNames }) => loggerNames,
): Copies {
  const includes = loggers.flatMap((logger) =>
    [...new Set(textsOf(logger.config['include']))].map((name) => ({ logger, name })),
  );
  const including = groupBy(includes, ({ name }) => name);
  const acceptingAll = loggers.filter(({ config }) => textsOf(config['include']).length === 0);
  const order = new Map(loggers.map((logger, at) => [logger, at]));
  const loggersFor = (loggerName: string): NetLogger[] =>
    [
      ...new Set([
        ...acceptingAll,
        ...namespacesOf(loggerName).flatMap((name) => including.get(name)?.map(({ logger }) => logger) ?? []),
      ]),
    ]
      .filter((logger) => logger.accepts(loggerName))
      .sort((a, b) => order.get(a)! - order.get(b)!);
  return new Map(
    groups.map((group) => [
      group,
      namesOf(group).flatMap((loggerName) => loggersFor(loggerName).map((logger) => ({ logger, loggerName }))),
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
    ...filterProblems(logger),
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

function filterProblems({ config }: NetLogger): LoggerProblem[] {
  const [include, exclude] = [textsOf(config['include']), textsOf(config['exclude'])];
  const refused = refusedName(include, exclude);
  if (refused === undefined) return [];
  // An exception within `include` keeps lines away, so it stays. Without one, `exclude` has no effect.
  const hasException = exclude.some((name) => !include.includes(name) && filterOf(include, [])(name));
  const lists = { include: `include ${include.join(' ')}`, exclude: `exclude ${exclude.join(' ')}` };
  return [
    {
      severity: 'loses',
      code: 'filter-refused',
      what: `Caddy refuses ${lists.include} with ${lists.exclude}`,
      path: hasException ? '/include' : '/exclude',
      why: `${
        exclude.includes(refused)
          ? `${refused} is in both lists`
          : `No excluded name is above or below ${refused}, as Caddy requires for each included one`
      }, so Caddy neither starts nor reloads.`,
      caddyfile: hasException
        ? [`# remove: ${lists.include}`, lists.exclude]
        : [`# remove: ${lists.exclude}`, lists.include],
      json: undefined,
    },
  ];
}

function connectionProblems({ address, config }: NetLogger): LoggerProblem[] {
  const writer = objectOf(config['writer']);
  const block = (line: string): string[] => [`output net ${address.text} {`, `    ${line}`, '}'];
  const problems: LoggerProblem[] = [];
  if (!/^(?:tcp|udp)[46]?$|^unix$/.test(address.network)) {
    const suggested = address.network.startsWith('unix') ? address.place : 'tcp/127.0.0.1:9514';
    problems.push({
      severity: 'loses',
      code: 'network',
      what: `Network ${address.network}`,
      path: '/writer/address',
      why: 'The collector listens on TCP, UDP and unix stream sockets only: Caddy cannot connect to it, and every line is lost.',
      caddyfile: [`output net ${suggested} {`, '    dial_timeout 1s', '    soft_start', '}'],
      json: suggested,
    });
  }
  if (writer['soft_start'] !== true && !address.network.startsWith('udp')) {
    problems.push({
      severity: 'loses',
      code: 'no-soft-start',
      what: 'No soft_start',
      path: '/writer/soft_start',
      why: 'Caddy refuses to start or to reload while the sink is down, so all requests fail until someone notices.',
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
        ? 'Caddy has no default timeout for connecting. On the same machine a connection is accepted or refused immediately, so this matters only if the sink moves to another one.'
        : 'Caddy has no default timeout for connecting: while the sink’s machine does not answer, requests wait for the lock of the log until the operating system gives up, after two minutes on Linux.',
      caddyfile: block('dial_timeout 1s'),
      json: 1_000_000_000,
    });
  }
  return problems;
}

/**
 * Maximum `max_header_bytes` for which a line always fits into a datagram of 65,507 bytes: JSON escapes a byte as up to
 * six, and Go allows 4 KiB on top of its limit.
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
        ? 'Datagrams that arrive while the kernel’s receive buffer is full are lost without notice.'
        : 'A line of more than 65,507 bytes does not fit into a datagram and is lost without the sink noticing. Requests with large headers cause such lines, and Caddy allows headers of 1 MiB.',
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
      why: 'Caddy drops lines without marking them, so all counts are too low.',
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
          ? 'Only requests with a status of 500 or more are logged at level ERROR. All others are logged at INFO and are not sent.'
          : 'No request is logged at this level.',
      caddyfile: ['level INFO'],
      json: 'INFO',
    });
  }
  return problems;
}

/** Returns one finding for each combination of loggers that sends a request's line more than once. */
function duplicateFindings(copies: Copies, sole: ReadonlySet<NetLogger>, { sinkAt, syntax }: CheckOptions): Finding[] {
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
    const [retained, ...surplus] = [...copies].sort((a, b) => specificity(b) - specificity(a)) as [Copy, ...Copy[]];
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
      why: 'Each copy is counted as a separate request.',
      change: [...new Set(surplus.map((copy) => excludeCopy(copy, retained, sole, syntax).join('\n')))].flatMap(
        (lines) => lines.split('\n'),
      ),
    };
  });
}

/** The loggers without which a sink would not get some requests. */
function soleSenders(copies: Copies, sinkAt: CheckOptions['sinkAt']): ReadonlySet<NetLogger> {
  return new Set(
    [...copies.values()].flatMap((sent) =>
      [...groupBy(sent, ({ logger }) => sinkAt(logger.address)).values()].flatMap((ofSink) =>
        ofSink.every(({ logger }) => logger === ofSink[0]!.logger) ? [ofSink[0]!.logger] : [],
      ),
    ),
  );
}

/**
 * Specificity of the logger's `include` for the name: the most specific logger stays, and the others exclude the
 * name.
 */
function specificity({ logger, loggerName }: Copy): number {
  return Math.max(
    0,
    ...textsOf(logger.config['include'])
      .filter((name) => `${loggerName}.`.startsWith(`${name}.`))
      .map((name) => name.length),
  );
}

function excludeCopy(
  { logger, loggerName }: Copy,
  retained: Copy,
  sole: ReadonlySet<NetLogger>,
  syntax: CheckOptions['syntax'],
): string[] {
  const include = textsOf(logger.config['include']);
  // Without its access lines, a logger of events still has lines to send.
  const name = logger.accepts(errorLogger) && !sole.has(logger) ? accessLogger : loggerName;
  const exclude = [...textsOf(logger.config['exclude']), name];
  const canExclude =
    !include.includes(loggerName) &&
    !filterOf(include, exclude)(loggerName) &&
    !(logger === retained.logger && loggerName === accessLogger);
  if (canExclude) return excludeLines(logger, exclude, syntax);
  return syntax === 'json'
    ? [`${logger.path}: remove it, or give it another writer`]
    : [`# remove \`output net ${logger.address.text}\` from the log ${logger.name}, or the whole log`];
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
              : 'The loggers that write to it accept none of the names of the access logs.',
        change:
          syntax === 'caddyfile'
            ? output
            : [
                ...(loggers.length > 0
                  ? []
                  : [
                      jsonChange('/logging/logs/caddy-log-sink', {
                        writer: netWriter(address),
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
      what: 'Requests of some sites are not sent',
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
    const where = { path: `/apps/http/servers/${server}/routes`, sites: hostNames(hosts) };
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
          why: 'Opening the page causes requests, and an open page polls for updates: your own traffic is part of the counts.',
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
          what: 'Some requests are excluded by log_skip',
          why: 'They are not logged, so the sink cannot count them.',
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

function times(count: number): string {
  return count === 2 ? 'twice' : `${count} times`;
}
