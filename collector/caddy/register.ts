/**
 * Registers the sink with a running Caddy, through its admin API: one entry of `logging.logs` is added, and removed
 * on exit. Nothing else of the configuration is changed.
 *
 * - The name of the entry is derived from the sink's address, so that it is found again after a crash, and so that
 *   two sinks do not share a name.
 * - It logs each request once: a host with two logger names (`log` twice in a site) writes two lines per request, so
 *   the entry excludes one of the names.
 * - It gets lines only from servers that write access logs. For the others, a warning says what to add.
 * - A reload of the Caddyfile removes it. Reloads are detected by a timestamp in Caddy's metrics, since reading those
 *   leaves no line in Caddy's log, unlike reading the configuration, which is the fallback.
 * - Changes are conditional (`If-Match`), so concurrent changes are never overwritten.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { messageOf, UsageError } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { isLoopback } from '../../shared/settings/settings.js';
import { adminUrlFrom, callAdmin, curlArguments, errorOf, isConnectionReset, type AdminCall } from './admin-client.js';
import {
  accessLogger,
  filterOf,
  netAddress,
  netLoggers,
  objectOf,
  requestGroups,
  type JsonObject,
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
      readonly method?: undefined;
      readonly message: string;
      readonly warnings: readonly string[];
    }
  | { readonly method: 'PUT' | 'PATCH'; readonly logger: JsonObject }
  | { readonly method: 'DELETE' };

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
  const name = `caddy-log-sink-${address.replace(/[^\w.-]+/g, '-')}`;
  const path = `/config/logging/logs/${name}`;
  let state: RegistrationState = 'trying';
  /** The `logging` object before the logger was added, to remove parents that would be empty afterwards. */
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

  /** Adds or corrects the logger if Caddy has loaded its configuration since the last call. */
  async function update(): Promise<void> {
    const reload = await lastReload();
    if (reload !== undefined && reload === settledReload) return;
    for (let tries = 0; tries < triesMax && !stopping.signal.aborted; tries += 1) {
      const { config, etag } = await readConfig(callAbort.signal);
      log.debug("Read Caddy's configuration.", { reload: reload ?? 'unknown' });
      onHosts?.(siteHosts(config));
      const plan = planRegistration(config, { name, address, places });
      if (plan.method === undefined) {
        settledReload = reload;
        report(plan.state, plan.state === 'not-needed' ? 'warn' : 'info', plan.message);
        for (const warning of plan.warnings) log.warn(warning);
        return;
      }
      if (plan.method === 'PUT') loggingBefore = objectOf(config)['logging'];
      const change =
        plan.method === 'DELETE'
          ? { path: pathToRemove(config), call: { method: plan.method } }
          : { path, call: { method: plan.method, body: plan.logger } };
      log.debug("Changing Caddy's configuration.", { method: change.call.method, path: change.path });
      await changeConfig(change.path, { ...change.call, ifMatch: etag, signal: callAbort.signal });
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
        if (!Object.hasOwn(logsOf(config), name)) return;
        const isRemoved = await changeConfig(pathToRemove(config), { method: 'DELETE', ifMatch: etag, signal });
        if (isRemoved) {
          log.info('Removed the logger from Caddy.', { logger: name });
          return;
        }
      }
    } catch (error) {
      if (state === 'trying' || state === 'failing') return; // logged already
      log.warn(
        `Cannot remove the logger from Caddy: ${messageOf(error)}. Reload Caddy to remove it, or run: curl -X DELETE ${curlArguments(admin, path)}`,
      );
    }
  }

  /** Path of the logger, or of the parents that were created for it and would be empty. */
  function pathToRemove(config: unknown): string {
    const logging = objectOf(objectOf(config)['logging']);
    const before = objectOf(loggingBefore);
    if (Object.keys(logsOf(config)).length > 1 || 'logs' in before) return path;
    return Object.keys(logging).length > 1 || loggingBefore !== undefined ? '/config/logging/logs' : '/config/logging';
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

function logsOf(config: unknown): JsonObject {
  return objectOf(objectOf(objectOf(config)['logging'])['logs']);
}

function hostsOf(groups: readonly { readonly server: string; readonly host: string }[]): string {
  return [...new Set(groups.map(({ server, host }) => host || `any host of the server ${server}`))].join(', ');
}
