/**
 * Registers the sink with a running Caddy, through its admin API: one entry of `logging.logs` is added, and removed on
 * exit. Nothing else of the configuration is changed.
 *
 * - The entry has a name of its own, made from the sink's address, so that it is found again after a crash, and so that
 *   two sinks do not fight over one name.
 * - It takes each access line once: a host with two logger names (`log` twice in a site) has two lines for each
 *   request,
 *   so the entry leaves one of the names out.
 * - It gets lines only from servers that write access logs. Where one does not, the log says which, and what to add.
 * - A reload with the Caddyfile drops it. Caddy's metrics tell when the configuration was loaded last, and asking for
 *   them,
 *   other than asking for the configuration, leaves no line in Caddy's log. Where there are no such metrics, the
 *   configuration is asked for each time.
 * - Changes are conditional (`If-Match`), so one of somebody else's in between is never undone.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { messageOf, UsageError } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { isLoopback } from '../../shared/settings/settings.js';
import { adminUrlFrom, callAdmin, curlArguments, errorOf, isCutOff, type AdminCall } from './admin-client.js';
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

/** How it stands with the registration. */
export type RegistrationState =
  /** The first answer is still to come. */
  | 'trying'
  /** Caddy does not answer, or refuses; it is asked again. */
  | 'failing'
  /** Caddy serves no HTTP yet. */
  | 'waiting'
  /** Another logger of this Caddy writes to the sink, so a second one would double. */
  | 'not-needed'
  | 'registered'
  | 'stopped';

/** A registration that is kept up. */
export interface Registration {
  readonly status: () => RegistrationState;
  /** Removes the logger and stops. Never rejects, and takes 2 seconds at most. Call it before the collector stops. */
  stop(): Promise<void>;
}

/** What a registration is started with. */
export interface RegistrationOptions {
  /** Of Caddy's admin API: `http://127.0.0.1:2019` or `unix//run/caddy/admin.sock`. */
  readonly adminUrl: string;
  /** Where the collector listens; the first that is not UDP is registered. */
  readonly addresses: readonly ListenAddress[];
  /**
   * The collector's address as that Caddy reaches it, such as `tcp/collector:9514`; needed when Caddy is on another
   * machine.
   */
  readonly address?: string | undefined;
  readonly log: Log;
  /**
   * Called with the hosts of Caddy's sites whenever its configuration has been read. They are in the form that
   * `ConfiguredHosts` takes.
   */
  readonly onHosts?: (hosts: readonly string[]) => void;
  /** How often to look, in milliseconds; 3000 when not given. */
  readonly pollMs?: number;
}

/** What is to be done about a configuration. */
export type RegistrationPlan =
  | {
      readonly state: 'waiting' | 'not-needed' | 'registered';
      readonly method?: undefined;
      readonly say: string;
      readonly warnings: readonly string[];
    }
  | { readonly method: 'PUT' | 'PATCH'; readonly logger: JsonObject }
  | { readonly method: 'DELETE' };

const pollMsDefault = 3000;
/** A change that met another one is tried again at once, this often. */
const triesMax = 5;
/** On exit: for what is under way, and for all. */
const finishMsMax = 600;
const stopMsMax = 1800;

/**
 * Starts to register. Returns at once: a Caddy that is down is waited for. Throws a `UsageError` when the admin API's
 * address is none, or when Caddy is on another machine and the sink's address there is not known.
 */
export function startRegistration({
  adminUrl,
  addresses,
  address: given,
  log,
  onHosts,
  pollMs = pollMsDefault,
}: RegistrationOptions): Registration {
  const { admin, address } = registrationTarget({ adminUrl, addresses, address: given });
  const places = new Set([address, ...addresses.map(caddyAddress)].map((each) => netAddress(each).place));
  const name = `caddy-log-sink-${address.replace(/[^\w.-]+/g, '-')}`;
  const path = `/config/logging/logs/${name}`;
  let state: RegistrationState = 'trying';
  /** What `logging` was before the logger was added, to leave no empty parents behind. */
  let loggingBefore: unknown;
  let settledStamp: string | undefined;
  let lastSaid = '';
  const wake = new AbortController();
  const giveUp = new AbortController();
  const running = keepUp();

  return {
    status: () => state,
    async stop() {
      if (wake.signal.aborted) return running;
      const deadline = AbortSignal.timeout(stopMsMax);
      wake.abort();
      await Promise.race([running, sleep(finishMsMax, undefined, { ref: false })]); // a change under way must not come after the removal
      giveUp.abort();
      await running;
      await remove(deadline);
      state = 'stopped';
    },
  };

  async function keepUp(): Promise<void> {
    while (!wake.signal.aborted) {
      try {
        await look();
      } catch (error) {
        if (giveUp.signal.aborted) return;
        settledStamp = undefined;
        say('failing', 'warn', `Cannot register with Caddy yet: ${messageOf(error)}. Trying on.`);
      }
      await sleep(pollMs, undefined, { signal: wake.signal }).catch(() => undefined);
    }
  }

  /** Brings the configuration in order, if it was loaded anew since the last time. */
  async function look(): Promise<void> {
    const stamp = await reloadStamp();
    if (stamp !== undefined && stamp === settledStamp) return;
    for (let tries = 0; tries < triesMax && !wake.signal.aborted; tries += 1) {
      const { config, etag } = await readConfig(giveUp.signal);
      onHosts?.(siteHosts(config));
      const plan = planRegistration(config, { name, address, places });
      if (plan.method === undefined) {
        settledStamp = stamp;
        say(plan.state, plan.state === 'not-needed' ? 'warn' : 'info', plan.say);
        for (const warning of plan.warnings) log.warn(warning);
        return;
      }
      if (plan.method === 'PUT') loggingBefore = objectOf(config)['logging'];
      const change =
        plan.method === 'DELETE'
          ? { path: pathToRemove(config), call: { method: plan.method } }
          : { path, call: { method: plan.method, body: plan.logger } };
      await changeConfig(change.path, { ...change.call, ifMatch: etag, signal: giveUp.signal });
    }
  }

  /** When Caddy loaded its configuration last; `undefined` where it does not say. */
  async function reloadStamp(): Promise<string | undefined> {
    const { status, text } = await callAdmin(admin, '/metrics', { signal: giveUp.signal });
    return status === 200 ? /^caddy_config_last_reload_success_timestamp_seconds (\S+)$/m.exec(text)?.[1] : undefined;
  }

  async function readConfig(signal: AbortSignal): Promise<{ config: unknown; etag: string }> {
    const answer = await callAdmin(admin, '/config/', { signal });
    if (answer.status !== 200) throw new Error(`Caddy answered ${errorOf(answer)}`);
    return { config: JSON.parse(answer.text) as unknown, etag: answer.etag };
  }

  /**
   * Whether the change was made. If not, or if that is not known, the configuration is to be read again: another change
   * came in between.
   */
  async function changeConfig(where: string, call: AdminCall): Promise<boolean> {
    try {
      const answer = await callAdmin(admin, where, call);
      if (answer.status !== 200 && answer.status !== 412) throw new Error(`Caddy answered ${errorOf(answer)}`);
      return answer.status === 200;
    } catch (error) {
      if (isCutOff(error)) return false;
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
      if (state === 'trying' || state === 'failing') return; // said already
      log.warn(
        `Cannot remove the logger from Caddy: ${messageOf(error)}. A reload of Caddy removes it, and so does: curl -X DELETE ${curlArguments(admin, path)}`,
      );
    }
  }

  /** The logger, or the parents that were made for it and would be left empty. */
  function pathToRemove(config: unknown): string {
    const logging = objectOf(objectOf(config)['logging']);
    const before = objectOf(loggingBefore);
    if (Object.keys(logsOf(config)).length > 1 || 'logs' in before) return path;
    return Object.keys(logging).length > 1 || loggingBefore !== undefined ? '/config/logging/logs' : '/config/logging';
  }

  function say(next: RegistrationState, level: 'info' | 'warn', message: string): void {
    state = next;
    if (message === lastSaid) return;
    lastSaid = message;
    log[level](message);
  }
}

/**
 * Which admin API the sink registers with, and as what: to be asked before anything is opened. Throws a `UsageError` as
 * `startRegistration` does.
 */
export function registrationTarget({
  adminUrl,
  addresses,
  address: given,
}: Pick<RegistrationOptions, 'adminUrl' | 'addresses' | 'address'>): { admin: URL; address: string } {
  const admin = adminUrlFrom(adminUrl, '--register');
  if (given === undefined) return { admin, address: addressFor(admin, addresses) };
  const { network, port } = netAddress(given);
  if (!/^(tcp|udp|unix)/.test(network) || (port === '' && !network.startsWith('unix'))) {
    throw new UsageError(
      `--register-address is ${JSON.stringify(given)}: it must be the collector's address as Caddy has it, such as tcp/collector:9514 or unix//run/sink.sock.`,
    );
  }
  return { admin, address: given.replace('://', '/') };
}

/** Decides what to do about a configuration. Pure. */
export function planRegistration(
  config: unknown,
  { name, address, places }: { readonly name: string; readonly address: string; readonly places: ReadonlySet<string> },
): RegistrationPlan {
  const groups = requestGroups(config);
  const existing = logsOf(config)[name];
  if (groups.length === 0 && existing === undefined)
    return { state: 'waiting', say: 'Caddy serves no HTTP site yet: the logger is added when it does.', warnings: [] };

  const others = netLoggers(config).filter(
    (logger) =>
      logger.name !== name &&
      places.has(logger.address.place) &&
      groups.some(({ loggerNames }) => loggerNames.some(logger.takes)),
  );
  if (others.length > 0) {
    if (existing !== undefined) return { method: 'DELETE' };
    const names = others.map((logger) => `${logger.name} (${logger.address.text})`).join(', ');
    return {
      state: 'not-needed',
      say: `Caddy writes to this sink already, by its own logger ${names}: none is added, for it would send requests twice.`,
      warnings: [],
    };
  }

  const exclude = namesToLeaveOut(groups.map(({ loggerNames }) => loggerNames));
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
    say: `Registered with Caddy: its logger ${name} sends access logs to ${address}.`,
    warnings: [
      ...(silent.length === 0
        ? []
        : [
            `Caddy writes no access log for ${hostsOf(silent)}, so these requests do not come. Put the line \`log\` into that site of the Caddyfile, or "logs": {} into that server of the JSON.`,
          ]),
      ...(uneven.length === 0
        ? []
        : [
            `The access logs of ${hostsOf(uneven)} overlap with those of other sites so that no logger gets each request once. Give each site one \`log\`.`,
          ]),
    ],
  };
}

/** The logger names to exclude so that of each request's names one remains, wherever that can be. */
function namesToLeaveOut(groups: readonly (readonly string[])[]): string[] {
  const needed = new Set([accessLogger, ...groups.filter((names) => names.length === 1).flat()]);
  const out = new Set<string>();
  for (const names of groups) {
    const left = [...new Set(names)].filter((each) => !out.has(each));
    const kept = left.find((each) => needed.has(each)) ?? left[0];
    for (const each of left) if (each !== kept && !needed.has(each)) out.add(each);
    if (kept !== undefined) needed.add(kept);
  }
  return [...out].sort();
}

function addressFor(admin: URL, addresses: readonly ListenAddress[]): string {
  const address = addresses.find(({ kind }) => kind !== 'udp') ?? addresses[0]!;
  const text = caddyAddress(address);
  if (admin.protocol !== 'unix:' && !isLoopback(admin.hostname.replace(/^\[|\]$/g, '')) && netAddress(text).isLocal) {
    throw new UsageError(
      `--register is ${admin.href}, another machine, which does not reach this one as ${text}: give --register-address with the collector's address there, such as tcp/collector:9514.`,
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
