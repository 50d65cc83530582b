/** Decides what to change in Caddy's configuration so that it logs each request to the sink once. */
import { isDeepStrictEqual } from 'node:util';
import {
  accessLogger,
  errorLogger,
  filterOf,
  netLoggers,
  objectOf,
  requestGroups,
  type JsonObject,
  type NetLogger,
} from './check/log-routing.js';
import { eventLoggers, handlesErrors, netWriter } from './event-log.js';

/** The change to make to a configuration, or the resulting state if there is none. */
export type RegistrationPlan =
  | {
      readonly state: 'waiting' | 'not-needed' | 'registered';
      readonly entries?: undefined;
      readonly message: string;
      readonly warnings: readonly string[];
    }
  /** The sink's entries of `logging.logs`; empty to remove those that are there. */
  | { readonly entries: JsonObject };

/** Loggers of events. A logger that takes one of them is the user's own event log. */
const eventNames = [errorLogger, 'http.handlers.reverse_proxy', 'tls.obtain'];

/** Computes the change to make to a configuration. Pure. */
export function planRegistration(
  config: unknown,
  { address, places }: { readonly address: string; readonly places: ReadonlySet<string> },
): RegistrationPlan {
  const names = entryNames(address);
  const groups = requestGroups(config);
  const existing = ownEntries(config, Object.values(names));
  if (groups.length === 0 && existing.length === 0)
    return {
      state: 'waiting',
      message: 'Caddy has no HTTP sites yet. The loggers are added as soon as it has.',
      warnings: [],
    };

  const others = netLoggers(config).filter(
    (logger) => !Object.values(names).includes(logger.name) && places.has(logger.address.place),
  );
  const sendAccess = others.filter(({ accepts }) => groups.some(({ loggerNames }) => loggerNames.some(accepts)));
  if (sendAccess.length > 0) {
    if (existing.length > 0) return { entries: {} };
    return {
      state: 'not-needed',
      message: `Caddy already writes to this sink through its logger ${listOf(sendAccess)}. No logger is added: it would duplicate requests.`,
      warnings: [],
    };
  }

  const exclude = namesToExclude(groups.map(({ loggerNames }) => loggerNames));
  const sendEvents = others.filter(({ accepts }) => eventNames.some(accepts));
  const { events, errors } = eventLoggers({
    address,
    handlesErrors: handlesErrors(config),
    repeated: exclude.map((name) => `${errorLogger}${name.slice(accessLogger.length)}`),
  });
  const entries: JsonObject = {
    [names.access]: {
      writer: netWriter(address),
      include: [accessLogger],
      ...(exclude.length > 0 && { exclude }),
    },
    ...(sendEvents.length === 0 && { [names.events]: events, ...(errors && { [names.errors]: errors }) }),
  };
  if (!isDeepStrictEqual(Object.fromEntries(existing), entries)) return { entries };

  const takes = filterOf([accessLogger], exclude);
  const silent = groups.filter(({ loggerNames }) => loggerNames.length === 0);
  const uneven = groups.filter(({ loggerNames }) => loggerNames.length > 0 && loggerNames.filter(takes).length !== 1);
  return {
    state: 'registered',
    message: `Registered with Caddy: its logger ${names.access} sends access logs to ${address}. Its events come from ${sendEvents.length === 0 ? names.events : listOf(sendEvents)}.`,
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

/** Names of the sink's entries of `logging.logs`. */
export function entryNames(address: string): {
  readonly access: string;
  readonly events: string;
  readonly errors: string;
} {
  const id = address.replace(/[^\w.-]+/g, '-');
  return {
    access: `caddy-log-sink-${id}`,
    events: `caddy-log-sink-events-${id}`,
    errors: `caddy-log-sink-errors-${id}`,
  };
}

/** The entries of a configuration that have these names. */
export function ownEntries(config: unknown, names: readonly string[]): [string, unknown][] {
  return Object.entries(logsOf(config)).filter(([name]) => names.includes(name));
}

function listOf(loggers: readonly NetLogger[]): string {
  return loggers.map(({ name, address }) => `${name} (${address.text})`).join(', ');
}

/** The loggers of a configuration, by name. */
export function logsOf(config: unknown): JsonObject {
  return objectOf(objectOf(objectOf(config)['logging'])['logs']);
}

function hostsOf(groups: readonly { readonly server: string; readonly host: string }[]): string {
  return [...new Set(groups.map(({ server, host }) => host || `any host of the server ${server}`))].join(', ');
}
