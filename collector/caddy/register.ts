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
import { messageOf, UsageError } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { isLoopback } from '../../shared/settings/settings.js';
import { adminUrlFrom, callAdmin, curlArguments, errorOf, isConnectionReset, type AdminCall } from './admin-client.js';
import { netAddress, objectOf, type JsonObject } from './check/log-routing.js';
import { caddyAddress, type ListenAddress } from '../listen/address.js';
import { entryNames, logsOf, ownEntries, planRegistration } from './registration-plan.js';
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
  status(): RegistrationState;
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
export function startRegistration(options: RegistrationOptions): Registration {
  return new CaddyRegistration(options);
}

class CaddyRegistration implements Registration {
  readonly #admin: URL;
  /** The sink's address in Caddy's configuration, and all addresses that reach the sink. */
  readonly #address: string;
  readonly #places: ReadonlySet<string>;
  /** The names of the sink's entries. */
  readonly #names: readonly string[];
  readonly #log: Log;
  readonly #onHosts: RegistrationOptions['onHosts'];
  readonly #pollMs: number;
  readonly #stopping = new AbortController();
  readonly #callAbort = new AbortController();
  readonly #running: Promise<void>;
  #state: RegistrationState = 'trying';
  /** The `logging` object before the entries were added, to remove parents that would be empty afterwards. */
  #loggingBefore: unknown;
  #settledReload: string | undefined;
  #lastMessage = '';

  constructor(options: RegistrationOptions) {
    const { admin, address } = registrationTarget(options);
    const addresses = [address, ...options.addresses.map(caddyAddress)];
    this.#admin = admin;
    this.#address = address;
    this.#places = new Set(addresses.map((each) => netAddress(each).place));
    this.#names = Object.values(entryNames(address));
    this.#log = options.log;
    this.#onHosts = options.onHosts;
    this.#pollMs = options.pollMs ?? pollMsDefault;
    this.#running = this.#poll();
  }

  status(): RegistrationState {
    return this.#state;
  }

  async stop(): Promise<void> {
    if (this.#stopping.signal.aborted) {
      await this.#running;
      return;
    }
    const deadline = AbortSignal.timeout(stopMsMax);
    this.#stopping.abort();
    // A change in progress must not follow the removal.
    await Promise.race([this.#running, sleep(finishMsMax, undefined, { ref: false })]);
    this.#callAbort.abort();
    await this.#running;
    await this.#remove(deadline);
    this.#state = 'stopped';
  }

  async #poll(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      try {
        await this.#update();
      } catch (error) {
        if (this.#callAbort.signal.aborted) return;
        this.#settledReload = undefined;
        this.#report('failing', 'warn', `Cannot register with Caddy yet: ${messageOf(error)}. Retrying.`);
      }
      await sleep(this.#pollMs, undefined, { signal: this.#stopping.signal }).catch(() => undefined);
    }
  }

  /** Adds or corrects the entries if Caddy has loaded its configuration since the last call. */
  async #update(): Promise<void> {
    const reload = await this.#lastReload();
    if (reload !== undefined && reload === this.#settledReload) return;
    for (let tries = 0; tries < triesMax && !this.#stopping.signal.aborted; tries += 1) {
      const { config, etag } = await this.#readConfig(this.#callAbort.signal);
      this.#log.debug("Read Caddy's configuration.", { reload: reload ?? 'unknown' });
      this.#onHosts?.(siteHosts(config));
      const plan = planRegistration(config, { address: this.#address, places: this.#places });
      if (plan.entries === undefined) {
        this.#settledReload = reload;
        this.#report(plan.state, plan.state === 'not-needed' ? 'warn' : 'info', plan.message);
        for (const warning of plan.warnings) this.#log.warn(warning);
        return;
      }
      if (ownEntries(config, this.#names).length === 0) this.#loggingBefore = objectOf(config)['logging'];
      const { path, ...call } = this.#changeOf(config, plan.entries);
      this.#log.debug("Changing Caddy's configuration.", { path });
      await this.#changeConfig(path, { ...call, ifMatch: etag, signal: this.#callAbort.signal });
    }
  }

  /** Timestamp of Caddy's last reload; `undefined` if its metrics do not have it. */
  async #lastReload(): Promise<string | undefined> {
    const { status, text } = await callAdmin(this.#admin, '/metrics', { signal: this.#callAbort.signal });
    return status === 200 ? /^caddy_config_last_reload_success_timestamp_seconds (\S+)$/m.exec(text)?.[1] : undefined;
  }

  async #readConfig(signal: AbortSignal): Promise<{ config: unknown; etag: string }> {
    const answer = await callAdmin(this.#admin, '/config/', { signal });
    if (answer.status !== 200) throw new Error(`Caddy answered ${errorOf(answer)}`);
    return { config: JSON.parse(answer.text) as unknown, etag: answer.etag };
  }

  /**
   * Changes the configuration. Resolves to `false` on a conflict, or if the outcome is unknown: read the configuration
   * again then.
   */
  async #changeConfig(configPath: string, call: AdminCall): Promise<boolean> {
    try {
      const answer = await callAdmin(this.#admin, configPath, call);
      if (answer.status !== 200 && answer.status !== 412) throw new Error(`Caddy answered ${errorOf(answer)}`);
      return answer.status === 200;
    } catch (error) {
      if (isConnectionReset(error)) return false;
      throw error;
    }
  }

  async #remove(signal: AbortSignal): Promise<void> {
    try {
      for (let tries = 0; tries < triesMax; tries += 1) {
        const { config, etag } = await this.#readConfig(signal);
        const entries = ownEntries(config, this.#names).map(([name]) => name);
        if (entries.length === 0) return;
        const { path, ...call } = this.#changeOf(config, {});
        if (await this.#changeConfig(path, { ...call, ifMatch: etag, signal })) {
          this.#log.info('Removed the loggers from Caddy.', { loggers: entries.join(',') });
          return;
        }
      }
    } catch (error) {
      if (this.#state === 'trying' || this.#state === 'failing') return; // logged already
      const urls = this.#names.map((name) => curlArguments(this.#admin, `/config/logging/logs/${name}`));
      this.#log.warn(
        `Cannot remove the loggers from Caddy: ${messageOf(error)}. Reload Caddy to remove them, or run: curl -X DELETE ${urls.join(' ')}`,
      );
    }
  }

  /** The call that makes these the sink's only entries. Removes parents that were created for them. */
  #changeOf(config: unknown, entries: JsonObject): AdminCall & { readonly path: string } {
    const logging = objectOf(objectOf(config)['logging']);
    const others = Object.entries(logsOf(config)).filter(([name]) => !this.#names.includes(name));
    const logs = { ...Object.fromEntries(others), ...entries };
    if (Object.keys(logs).length > 0 || 'logs' in objectOf(this.#loggingBefore))
      return { path: '/config/logging/logs', method: 'logs' in logging ? 'PATCH' : 'PUT', body: logs };
    const hasParent = Object.keys(logging).length > 1 || this.#loggingBefore !== undefined;
    return { path: hasParent ? '/config/logging/logs' : '/config/logging', method: 'DELETE' };
  }

  #report(next: RegistrationState, level: 'info' | 'warn', message: string): void {
    this.#state = next;
    if (message === this.#lastMessage) return;
    this.#lastMessage = message;
    this.#log[level](message);
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
