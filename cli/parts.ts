/** The parts that several commands start: stores, the collector, the web app and the registration with Caddy. */
import { hostname } from 'node:os';
import { ConfiguredHosts } from '../shared/record/configured-hosts.js';
import { UsageError } from '../shared/errors.js';
import { createLog } from '../shared/log.js';
import type { SettingValues } from '../shared/settings/settings.js';
import { openStore } from '../shared/store/open.js';
import { storeSettingsFrom, type storeSettings } from '../shared/settings/store-settings.js';
import type { RecorderOptions } from '../shared/record/recorder.js';
import type { RecordingPolicy } from '../shared/record/recording-policy.js';
import type { Store } from '../shared/store/store.js';
import type { CollectorConfig } from '../collector/config.js';
import type { ListenAddress } from '../collector/listen/address.js';
import type { WorkerChannel } from '../collector/supervisor/worker-channel.js';
import type { Collector } from '../collector/collector.js';
import { webConfigFrom, type webSettings } from '../web/config.js';
import type { CliOption } from './parse.js';
import type { OnStarted } from './lifecycle.js';

type StoreValues = SettingValues<typeof storeSettings>;

/** Options of the commands that run a collector. */
export interface CollectorOptions {
  readonly restartable?: true;
  /** URL of an admin API. */
  readonly register?: string;
  readonly registerAddress?: string;
}

/** See `CollectorOptions`. */
export const collectorOptions: readonly CliOption[] = [
  [
    '--restartable',
    'Holds the sockets in a small supervisor process, so that SIGHUP restarts the program without losing log lines.',
  ],
  [
    '--register <url>',
    'Adds the sink to the Caddy with this admin API, such as http://127.0.0.1:2019, until the program ends.',
  ],
  ['--register-address <address>', "The collector's address as that Caddy reaches it, such as tcp/collector:9514."],
];

/** Options of the commands that run the dashboard. */
export interface ReadOnlyOptions {
  readonly readOnly?: true;
}

/** See `ReadOnlyOptions`. */
export const readOnlyOption: CliOption = [
  '--read-only',
  'Runs the dashboard over the store without writing or deleting anything, for a copy. Accepts no log lines and no imports.',
];

/** Options shared by all recorders of this process. */
export interface Recording extends RecordingPolicy, Pick<RecorderOptions, 'memoryBytesMax' | 'flushMs'> {
  readonly configuredHosts: ConfiguredHosts;
}

/** Reads these options from the settings. Throws a `UsageError` if the GeoIP database cannot be read. */
export async function recordingFrom(values: StoreValues): Promise<Recording> {
  const {
    STORE,
    HOSTS_MAX: hostsMax,
    CLIENT_IP: clientIp,
    GEOIP_DATABASE,
    MEMORY_BYTES_MAX: memoryBytesMax,
    SAMPLE_RATIO: sampleRatio,
  } = values;
  // Loads the reader only if there is a database.
  const countryOf =
    GEOIP_DATABASE === undefined
      ? undefined
      : (await import('../shared/record/countries.js')).countriesFrom(values, createLog('countries'));
  // Appending to the spool is cheaper than a DuckDB transaction. Flushing twice as often limits the loss at SIGKILL
  // to 100 ms.
  return {
    hostsMax,
    configuredHosts: new ConfiguredHosts(),
    clientIp,
    countryOf,
    memoryBytesMax,
    sampleRatio,
    ...(STORE === 'influxdb' && { flushMs: 50 }),
  };
}

/**
 * Opens the store of one recorder. Each has a separate spool, so that the collector's ledger does not count the web
 * app's requests.
 */
export async function openStoreOf(
  values: StoreValues,
  spoolName: 'collector' | 'web',
  onStarted: OnStarted,
): Promise<Store> {
  const store = await openStore(storeSettingsFrom(values), {
    log: createLog('store'),
    spoolName,
    keepsHouse: spoolName === 'web',
  });
  onStarted('stores', () => store.close());
  return store;
}

/** Throws a `UsageError` for DuckDB, which only one process can use: a separate web app could not read it. */
export function refuseEmbedded(command: string, { STORE }: StoreValues): void {
  if (STORE === 'influxdb') return;
  throw new UsageError(
    `${command} alone needs STORE=influxdb, and STORE is ${JSON.stringify(STORE)}: only one process can use a DuckDB file. \`start\` runs both over it.`,
  );
}

/**
 * Waits until the previous worker has ended, if there is a supervisor. Loads the code first, so that the pause is
 * short.
 */
export async function waitForTurn(
  supervisor: WorkerChannel | undefined,
  config: CollectorConfig,
  loadMore?: () => Promise<unknown>,
): Promise<void> {
  if (supervisor === undefined) return;
  await Promise.all([import('../collector/collector.js'), loadMore?.()]);
  await supervisor.waitForTurn(config);
}

/** Starts the collector. */
export async function startCollectorOver(
  config: CollectorConfig,
  values: StoreValues,
  {
    recording,
    store,
    supervisor,
    onStarted,
  }: { recording: Recording; store: Store; supervisor?: WorkerChannel | undefined; onStarted: OnStarted },
): Promise<Pick<Collector, 'addresses' | 'httpUrl'>> {
  const { startCollector } = await import('../collector/collector.js');
  const collector = await startCollector(config, {
    store,
    log: createLog('collector'),
    ...recording,
    rollupRetentionMs: values.RETENTION_ROLLUPS,
    openStream: supervisor?.openStream,
    usedTimes: supervisor?.usedTimes(),
  });
  onStarted('workers', async () => {
    const lost = await collector.stop();
    supervisor?.saveUsedTimes(collector.usedTimes());
    return lost;
  });
  return collector;
}

/** Starts the web app with its recorder. */
export async function startWebOver(
  values: SettingValues<typeof webSettings> & StoreValues,
  hint: readonly string[],
  { recording, store, onStarted }: { recording: Recording; store: Store; onStarted: OnStarted },
): Promise<{ url: string }> {
  const { startWeb } = await import('../web/web.js');
  const { createRecorder } = await import('../shared/record/recorder.js');
  const log = createLog('web');
  const recorder = createRecorder({ store, log, name: hostname(), ...recording });
  const web = await startWeb(webConfigFrom(values, hint), { store, recorder, log }).catch(async (error: unknown) => {
    await recorder.close();
    throw error;
  });
  onStarted('workers', async () => {
    await web.stop();
    return await recorder.close();
  });
  return { url: values.DASHBOARD_URL ?? web.url };
}

/** Validates the options of the registration before anything is opened. Throws a `UsageError`. */
export async function refuseBadRegistration(
  { register: adminUrl, registerAddress: address }: CollectorOptions,
  addresses: readonly ListenAddress[],
): Promise<void> {
  if (adminUrl !== undefined) {
    const { registrationTarget } = await import('../collector/caddy/register.js');
    registrationTarget({ adminUrl, addresses, address });
  } else if (address !== undefined) {
    throw new UsageError('--register-address needs --register: add --register http://127.0.0.1:2019.');
  }
}

/** Registers with Caddy if `--register` was given. */
export async function register(
  { register: adminUrl, registerAddress: address }: CollectorOptions,
  addresses: readonly ListenAddress[],
  {
    recording: { configuredHosts },
    supervisor,
    onStarted,
  }: { recording: Recording; supervisor: WorkerChannel | undefined; onStarted: OnStarted },
): Promise<void> {
  if (adminUrl === undefined) return;
  const { startRegistration } = await import('../collector/caddy/register.js');
  const registration = startRegistration({
    adminUrl,
    addresses,
    address,
    log: createLog('register'),
    onHosts: (hosts) => {
      configuredHosts.set(hosts);
    },
  });
  onStarted('ingress', async () => {
    if (supervisor?.isHandingOver() !== true) await registration.stop();
  });
}
