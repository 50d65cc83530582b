/** Decides what to change in Caddy's configuration so that it logs each request to the sink once. */
import { isDeepStrictEqual } from 'node:util';
import { accessLogger, filterOf, netLoggers, objectOf, requestGroups, type JsonObject } from './check/log-routing.js';

/** The change to make to a configuration, or the resulting state if there is none. */
export type RegistrationPlan =
  | {
      readonly state: 'waiting' | 'not-needed' | 'registered';
      readonly method?: undefined;
      readonly message: string;
      readonly warnings: readonly string[];
    }
  | { readonly method: 'PUT' | 'PATCH'; readonly logger: JsonObject }
  | { readonly method: 'DELETE' };

/** Computes the change to make to a configuration. Pure. */
export function planRegistration(
  config: unknown,
  { name, address, places }: { readonly name: string; readonly address: string; readonly places: ReadonlySet<string> },
): RegistrationPlan {
  const groups = requestGroups(config);
  const existing = logsOf(config)[name];
  if (groups.length === 0 && existing === undefined)
    return {
      state: 'waiting',
      message: 'Caddy has no HTTP sites yet. The logger is added as soon as it has.',
      warnings: [],
    };

  const others = netLoggers(config).filter(
    (logger) =>
      logger.name !== name &&
      places.has(logger.address.place) &&
      groups.some(({ loggerNames }) => loggerNames.some(logger.accepts)),
  );
  if (others.length > 0) {
    if (existing !== undefined) return { method: 'DELETE' };
    const names = others.map((logger) => `${logger.name} (${logger.address.text})`).join(', ');
    return {
      state: 'not-needed',
      message: `Caddy already writes to this sink through its logger ${names}. No logger is added: it would duplicate requests.`,
      warnings: [],
    };
  }

  const exclude = namesToExclude(groups.map(({ loggerNames }) => loggerNames));
  const logger: JsonObject = {
    writer: { output: 'net', address, dial_timeout: 1_000_000_000, soft_start: true },
    include: [accessLogger],
    ...(exclude.length > 0 && { exclude }),
  };
  if (existing === undefined) return { method: 'PUT', logger };
  if (!isDeepStrictEqual(existing, logger)) return { method: 'PATCH', logger };

  const takes = filterOf([accessLogger], exclude);
  const silent = groups.filter(({ loggerNames }) => loggerNames.length === 0);
  const uneven = groups.filter(({ loggerNames }) => loggerNames.length > 0 && loggerNames.filter(takes).length !== 1);
  return {
    state: 'registered',
    message: `Registered with Caddy: its logger ${name} sends access logs to ${address}.`,
    warnings: [
      ...(silent.length === 0
        ? []
        : [
            `Caddy writes no access log for ${hostsOf(silent)}, so these requests are missing. Put the line \`log\` into that site of the Caddyfile, or "logs": {} into that server of the JSON.`,
          ]),
      ...(uneven.length === 0
        ? []
        : [
            `The access logs of ${hostsOf(uneven)} overlap with those of other sites: some of their requests are duplicated or missing. Give each site exactly one \`log\`.`,
          ]),
    ],
  };
}

/** The logger names to exclude so that one name per request remains, where possible. */
function namesToExclude(groups: readonly (readonly string[])[]): string[] {
  const needed = new Set([accessLogger, ...groups.filter((names) => names.length === 1).flat()]);
  const excluded = new Set<string>();
  for (const names of groups) {
    const left = [...new Set(names)].filter((each) => !excluded.has(each));
    const retained = left.find((each) => needed.has(each)) ?? left[0];
    for (const each of left) if (each !== retained && !needed.has(each)) excluded.add(each);
    if (retained !== undefined) needed.add(retained);
  }
  return [...excluded].sort();
}

/** The loggers of a configuration, by name. */
export function logsOf(config: unknown): JsonObject {
  return objectOf(objectOf(objectOf(config)['logging'])['logs']);
}

function hostsOf(groups: readonly { readonly server: string; readonly host: string }[]): string {
  return [...new Set(groups.map(({ server, host }) => host || `any host of the server ${server}`))].join(', ');
}
