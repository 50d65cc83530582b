/**
 * Registers the sink with a running Caddy, through its admin API: entries of `logging.logs` are added, one for access
 * lines and one or two for Caddy's events, and removed on exit. Nothing else of the configuration is changed.
 *
 * - The names of the entries are derived from the sink's address, so that they are found again after a crash, and so
 *   that two sinks do not share a name.
 * - All entries are added in one change, and removed in one, since Caddy reloads for each change.
 * - They log each request once: a host with two logger names (`log` twice in a site) writes two lines per request, so
 *   the entries exclude one of the names.
 * - Only servers that write access logs send access lines. For the others, a warning says what to add.
 * - A reload of the Caddyfile removes them. Reloads are detected by a timestamp in Caddy's metrics, since reading those
 *   leaves no line in Caddy's log, unlike reading the configuration, which is the fallback.
 * - Changes are conditional (`If-Match`), so concurrent changes are never overwritten.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { messageOf, UsageError } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { isLoopback } from '../../shared/settings/settings.js';
import { adminUrlFrom, callAdmin, curlArguments, errorOf, isConnectionReset, type AdminCall } from './admin-client.js';
import { eventLoggers, handlesErrors, netWriter } from './event-log.js';
import {
  accessLogger,
  errorLogger,
  filterOf,
  netAddress,
  netLoggers,
  objectOf,
  requestGroups,
  type JsonObject,
  type NetLogger,
} from './check/log-routing.js';
import { caddyAddress, type ListenAddress } from '../listen/address.js';
import { siteHosts } from './site-hosts.js';

/** State of a registration. */
export type RegistrationState =
  /** No response yet. */
  | 'trying'
  /** Caddy does not answer, or refuses. It is retried. */
  | 'failing'
  /** Caddy serves no HTTP yet. */
  | 'waiting'
  /** Another logger of this Caddy already writes to the sink: a second one would duplicate requests. */
  | 'not-needed'
  | 'registered'
  | 'stopped';

/** A running registration, which is renewed after reloads. */
export interface Registration {
  readonly status: () => RegistrationState;
  /** Removes the logger and stops, within 2 seconds. Never rejects. Call it before the collector stops. */
  stop(): Promise<void>;
}

/** Options of a registration. */
export interface RegistrationOptions {
  /** Address of Caddy's admin API: `http://127.0.0.1:2019` or `unix//run/caddy/admin.sock`. */
  readonly adminUrl: string;
  /** The collector's listen addresses. The first that is not UDP is registered. */
  readonly addresses: readonly ListenAddress[];
  /**
   * The collector's address as that Caddy reaches it, such as `tcp/collector:9514`. Required if Caddy runs on another
   * machine.
   */
  readonly address?: string | undefined;
  readonly log: Log;
  /**
   * Called with the hosts of Caddy's sites, in the form that `ConfiguredHosts` accepts, whenever its configuration has
   * been read.
   */
  readonly onHosts?: (hosts: readonly string[]) => void;
  /** Polling interval in milliseconds. Default: 3000. */
  readonly pollMs?: number;
}

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

const pollMsDefault = 3000;
/** Maximum number of attempts of a change that conflicts with other changes. */
const triesMax = 5;
/** Maximum time for a change in progress when the registration stops, in milliseconds. */
const finishMsMax = 600;
/** Maximum time for stopping, in milliseconds. */
const stopMsMax = 1800;

/**
 * Starts a registration. Returns immediately, and retries while Caddy is down. Throws a `UsageError` if the address of
 * the admin API is invalid, or if Caddy runs on another machine and `address` is missing.
 */
export function startRegistration({
  adminUrl,
  addresses,
  address: configuredAddress,
  log,
  onHosts,
  pollMs = pollMsDefault,
}: RegistrationOptions): Registration {
  const { admin, address } = registrationTarget({ adminUrl, addresses, address: configuredAddress });
  const places = new Set([address, ...addresses.map(caddyAddress)].map((each) => netAddress(each).place));
  const names = Object.values(entryNames(address));
  let state: RegistrationState = 'trying';
  /** The `logging` object before the entries were added, to remove parents that would be empty afterwards. */
  let loggingBefore: unknown;
  let settledReload: string | undefined;
  let lastMessage = '';
  const stopping = new AbortController();
  const callAbort = new AbortController();
  const running = poll();

  return {
    status: () => state,
    async stop() {
      if (stopping.signal.aborted) return running;
      const deadline = AbortSignal.timeout(stopMsMax);
      stopping.abort();
      // A change in progress must not follow the removal.
      await Promise.race([running, sleep(finishMsMax, undefined, { ref: false })]);
      callAbort.abort();
      await running;
      await remove(deadline);
      state = 'stopped';
    },
  };

  async function poll(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        await update();
      } catch (error) {
        if (callAbort.signal.aborted) return;
        settledReload = undefined;
        report('failing', 'warn', `Cannot register with Caddy yet: ${messageOf(error)}. Retrying.`);
      }
      await sleep(pollMs, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  /** Adds or corrects the entries if Caddy has loaded its configuration since the last call. */
  async function update(): Promise<void> {
    const reload = await lastReload();
    if (reload !== undefined && reload === settledReload) return;
    for (let tries = 0; tries < triesMax && !stopping.signal.aborted; tries += 1) {
      const { config, etag } = await readConfig(callAbort.signal);
      onHosts?.(siteHosts(config));
      const plan = planRegistration(config, { address, places });
      if (plan.entries === undefined) {
        settledReload = reload;
        report(plan.state, plan.state === 'not-needed' ? 'warn' : 'info', plan.message);
        for (const warning of plan.warnings) log.warn(warning);
        return;
      }
      if (ownEntries(config, names).length === 0) loggingBefore = objectOf(config)['logging'];
      const { path, ...call } = changeOf(config, plan.entries);
      await changeConfig(path, { ...call, ifMatch: etag, signal: callAbort.signal });
    }
  }

  /** Timestamp of Caddy's last reload; `undefined` if its metrics do not have it. */
  async function lastReload(): Promise<string | undefined> {
    const { status, text } = await callAdmin(admin, '/metrics', { signal: callAbort.signal });
    return status === 200 ? /^caddy_config_last_reload_success_timestamp_seconds (\S+)$/m.exec(text)?.[1] : undefined;
  }

  async function readConfig(signal: AbortSignal): Promise<{ config: unknown; etag: string }> {
    const answer = await callAdmin(admin, '/config/', { signal });
    if (answer.status !== 200) throw new Error(`Caddy answered ${errorOf(answer)}`);
    return { config: JSON.parse(answer.text) as unknown, etag: answer.etag };
  }

  /**
   * Changes the configuration. Resolves to `false` on a conflict, or if the outcome is unknown: read the configuration
   * again then.
   */
  async function changeConfig(configPath: string, call: AdminCall): Promise<boolean> {
    try {
      const answer = await callAdmin(admin, configPath, call);
      if (answer.status !== 200 && answer.status !== 412) throw new Error(`Caddy answered ${errorOf(answer)}`);
      return answer.status === 200;
    } catch (error) {
      if (isConnectionReset(error)) return false;
      throw error;
    }
  }

  async function remove(signal: AbortSignal): Promise<void> {
    try {
      for (let tries = 0; tries < triesMax; tries += 1) {
        const { config, etag } = await readConfig(signal);
        const entries = ownEntries(config, names).map(([name]) => name);
        if (entries.length === 0) return;
        const { path, ...call } = changeOf(config, {});
        if (await changeConfig(path, { ...call, ifMatch: etag, signal })) {
          log.info('Removed the loggers from Caddy.', { loggers: entries.join(',') });
          return;
        }
      }
    } catch (error) {
      if (state === 'trying' || state === 'failing') return; // logged already
      const urls = names.map((name) => curlArguments(admin, `/config/logging/logs/${name}`));
      log.warn(
        `Cannot remove the loggers from Caddy: ${messageOf(error)}. Reload Caddy to remove them, or run: curl -X DELETE ${urls.join(' ')}`,
      );
    }
  }

  /** The call that makes these the sink's only entries. Removes parents that were created for them. */
  function changeOf(config: unknown, entries: JsonObject): AdminCall & { readonly path: string } {
    const logging = objectOf(objectOf(config)['logging']);
    const others = Object.entries(logsOf(config)).filter(([name]) => !names.includes(name));
    const logs = { ...Object.fromEntries(others), ...entries };
    if (Object.keys(logs).length > 0 || 'logs' in objectOf(loggingBefore))
      return { path: '/config/logging/logs', method: 'logs' in logging ? 'PATCH' : 'PUT', body: logs };
    const hasParent = Object.keys(logging).length > 1 || loggingBefore !== undefined;
    return { path: hasParent ? '/config/logging/logs' : '/config/logging', method: 'DELETE' };
  }

  function report(next: RegistrationState, level: 'info' | 'warn', message: string): void {
    state = next;
    if (message === lastMessage) return;
    lastMessage = message;
    log[level](message);
  }
}

/**
 * Resolves the admin API and the sink's address, for validation before anything is opened. Throws a `UsageError` like
 * `startRegistration`.
 */
export function registrationTarget({
  adminUrl,
  addresses,
  address: configuredAddress,
}: Pick<RegistrationOptions, 'adminUrl' | 'addresses' | 'address'>): { admin: URL; address: string } {
  const admin = adminUrlFrom(adminUrl, '--register');
  if (configuredAddress === undefined) return { admin, address: addressFor(admin, addresses) };
  const { network, port } = netAddress(configuredAddress);
  if (!/^(tcp|udp|unix)/.test(network) || (port === '' && !network.startsWith('unix'))) {
    throw new UsageError(
      `--register-address is ${JSON.stringify(configuredAddress)}: it must be the collector's address in Caddy's syntax, such as tcp/collector:9514 or unix//run/sink.sock.`,
    );
  }
  return { admin, address: configuredAddress.replace('://', '/') };
}

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

function addressFor(admin: URL, addresses: readonly ListenAddress[]): string {
  const address = addresses.find(({ kind }) => kind !== 'udp') ?? addresses[0]!;
  const text = caddyAddress(address);
  if (admin.protocol !== 'unix:' && !isLoopback(admin.hostname.replace(/^\[|\]$/g, '')) && netAddress(text).isLocal) {
    throw new UsageError(
      `--register is ${admin.href}, another machine, which cannot reach the collector at ${text}: give --register-address with an address that it can reach, such as tcp/collector:9514.`,
    );
  }
  return text;
}

/** Names of the sink's entries of `logging.logs`. */
function entryNames(address: string): { readonly access: string; readonly events: string; readonly errors: string } {
  const id = address.replace(/[^\w.-]+/g, '-');
  return {
    access: `caddy-log-sink-${id}`,
    events: `caddy-log-sink-events-${id}`,
    errors: `caddy-log-sink-errors-${id}`,
  };
}

function ownEntries(config: unknown, names: readonly string[]): [string, unknown][] {
  return Object.entries(logsOf(config)).filter(([name]) => names.includes(name));
}

function listOf(loggers: readonly NetLogger[]): string {
  return loggers.map(({ name, address }) => `${name} (${address.text})`).join(', ');
}

function logsOf(config: unknown): JsonObject {
  return objectOf(objectOf(objectOf(config)['logging'])['logs']);
}

function hostsOf(groups: readonly { readonly server: string; readonly host: string }[]): string {
  return [...new Set(groups.map(({ server, host }) => host || `any host of the server ${server}`))].join(', ');
}
