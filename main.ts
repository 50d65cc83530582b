#!/usr/bin/env -S node --max-semi-space-size=8 --
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { ConfiguredHosts } from './shared/configured-hosts.js';
import { detailedMessageOf, messageOf, StoreError, UsageError } from './shared/errors.js';
import { createLog } from './shared/log.js';
import { checkNames, readSettings, withEnvFiles, type Environment, type SettingTable, type SettingValues } from './shared/settings.js';
import { startWatchdog } from './shared/watchdog.js';
import { openStore, setUpStore } from './shared/store/open.js';
import { setupOptionsFrom, setupSettings, storeSettings, storeSettingsFrom } from './shared/store/settings.js';
import type { Store } from './shared/store/store.js';
import { collectorConfigFrom, collectorSettings, type CollectorConfig } from './collector/config.js';
import { importSettings } from './collector/import/settings.js';
import { caddyAddress, type ListenAddress } from './collector/listen/address.js';
import type { Collector } from './collector/main.js';
import { keepSockets } from './collector/listen/keeper.js';
import { meetKeeper, type Keeper } from './collector/listen/kept.js';
import { webConfigFrom, webSettings } from './web/config.js';

/** Stops what a command started; resolves to how many accepted requests were lost. */
type Stop = () => Promise<number>;

/** One sub-command of `caddy-log-sink`. */
interface Command {
  readonly does: string;
  readonly settings: SettingTable;
  /** What follows its name, for `--help`; `undefined` when it takes no arguments. */
  readonly takes?: string;
  readonly options?: Readonly<Record<string, CommandOption>>;
  /** It serves until a signal stops it: one that comes while it starts takes effect when it has started. */
  readonly serves?: true;
  /** Starts it; resolves to what stops it, or, of a command that has done its work, to the exit status. */
  readonly run: (environment: Environment, given: Given) => Promise<Stop | number>;
}

/** An option of a sub-command. */
interface CommandOption {
  readonly type: 'string' | 'boolean';
  /** Its value, for `--help`. */
  readonly value?: string;
  readonly help: string;
}

/** What was given on the command line. */
interface Given {
  readonly args: readonly string[];
  readonly options: Readonly<Record<string, string | boolean | undefined>>;
  /** The process that has this one's sockets, with `--restartable`. */
  readonly keeper?: Keeper | undefined;
}

const allSettings = { ...collectorSettings, ...webSettings, ...storeSettings };

/** The web app alone does not listen for Caddy: it tells people where the collector does. */
const webAloneSettings = { COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN };

/** The demo has a store of its own, whatever the settings say. */
const demoSettings = { ...webSettings, COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN };

const collectorOptions = {
  restartable: { type: 'boolean', help: 'Keeps the sockets in a small process of its own, so that SIGHUP restarts the program without losing a line.' },
  register: { type: 'string', value: 'URL', help: "Adds the sink to the Caddy with this admin API, such as http://127.0.0.1:2019, until the program ends." },
  'register-address': { type: 'string', value: 'ADDRESS', help: "The collector's address as that Caddy reaches it, such as tcp/collector:9514." },
} as const;

const readOnlyOption = { 'read-only': { type: 'boolean', help: 'Shows the dashboard over the store, and writes and deletes nothing: for a copy. Takes no log lines and no imports.' } } as const;

const commands: Readonly<Record<string, Command>> = {
  start: {
    does: 'Runs the collector and the dashboard in one process, over the embedded store unless STORE says otherwise.',
    settings: allSettings,
    options: { ...collectorOptions, ...readOnlyOption },
    serves: true,
    run: start,
  },
  collector: {
    does: 'Runs the collector alone, over InfluxDB.',
    settings: { ...collectorSettings, ...storeSettings },
    options: collectorOptions,
    serves: true,
    run: startCollectorAlone,
  },
  web: {
    does: 'Runs the dashboard alone, over InfluxDB.',
    settings: { ...webSettings, ...webAloneSettings, ...storeSettings },
    options: readOnlyOption,
    serves: true,
    run: startWebAlone,
  },
  demo: {
    does: 'Shows the dashboard over a made-up day of traffic, and requests that keep coming in. Needs no Caddy; leaves nothing behind. Where a port is in use and not set, it takes a free one.',
    settings: demoSettings,
    options: {
      seed: { type: 'string', value: 'NUMBER', help: 'Another seed gives another day; the same one the same day. 1 when it is not given.' },
      requests: { type: 'string', value: 'COUNT', help: 'Requests to Caddy in a day, about: from 1000 to 1000000, 100000 when it is not given.' },
      dir: { type: 'string', value: 'FOLDER', help: 'Keeps the store in this new or empty folder, instead of one that is removed at the end.' },
    },
    run: demo,
  },
  import: {
    does: 'Adds the requests of access logs to the store: of files (also .gz, and .zst where Node has it) or, as -, of standard input. Importing a file twice adds nothing.',
    settings: importSettings,
    takes: 'FILE… | -',
    options: {
      'dry-run': { type: 'boolean', help: 'Reads everything, says what would be added, and writes nothing.' },
      list: { type: 'boolean', help: 'Lists the imports that the store remembers, with their ids.' },
      undo: { type: 'string', value: 'ID', help: 'Takes an import back: its requests, and what they added to totals and lists.' },
      force: { type: 'boolean', help: 'Adds requests that may be counted already, instead of skipping them.' },
    },
    run: importFiles,
  },
  check: {
    does: 'Says what in a configuration of Caddy loses, doubles or blurs log lines. Ends with status 1 when something would be lost.',
    settings: { COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN, WEB_LISTEN: webSettings.WEB_LISTEN },
    takes: 'CADDYFILE | CONFIG.json | http://127.0.0.1:2019',
    options: {
      address: { type: 'string', value: 'ADDRESS', help: 'Looks only at loggers that write to this address, such as tcp/127.0.0.1:9514. Without it at those that write to COLLECTOR_LISTEN, where that is set, or else at every `output net`.' },
      json: { type: 'boolean', help: 'Prints JSON.' },
    },
    run: checkCaddy,
  },
  setup: {
    does: 'Makes the bucket in InfluxDB, and a token each for the collector and the web app; sets a fresh InfluxDB up first. What is there already stays.',
    settings: setupSettings,
    options: {
      tokens: { type: 'string', value: 'FOLDER', help: 'Writes the tokens to FOLDER/collector/token and FOLDER/web/token, which only this user can read, instead of printing them.' },
      'new-tokens': { type: 'boolean', help: 'Makes new tokens for both, and deletes those that were made before.' },
    },
    run: setUp,
  },
};

/** The signals that stop the program. SIGHUP, without `--restartable`, says that the terminal was closed. */
const stopSignals = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/**
 * How far the heap grows before all of it is looked through, in percent of what was alive the last time. V8 lets it quadruple while much is made and
 * thrown away, as here with every line: see docs/decisions, "What is held in memory". The option in the first line of this file is for the same,
 * and has to be there when Node starts.
 */
const heapGrowingPercent = 75;

setFlagsFromString(`--heap-growing-percent=${heapGrowingPercent}`);

// `… | head` has read enough, and whoever took the log is gone: neither ends what is under way.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<void> {
  let keeper: Keeper | undefined;
  try {
    const { command, help, wantsVersion, envFiles, given } = readArguments(args);
    if (wantsVersion) {
      process.stdout.write(`${version()}\n`);
      return;
    }
    if (help) {
      process.stdout.write(helpText(command));
      return;
    }
    if (command === undefined) throw new UsageError(`Name a command: ${Object.keys(commands).join(', ')}. --help says what they do.`);
    keeper = given.options['restartable'] === true && given.options['read-only'] !== true ? meetKeeper() : undefined;
    if (keeper === undefined) startWatchdog(process.env, { log: createLog('watchdog') });
    if (given.options['restartable'] === true && given.options['read-only'] !== true && keeper === undefined) {
      process.exit(await keepSockets({ program: process.argv[1]!, args, log: createLog('keeper') }));
    }
    for (const warning of checkNames(Object.keys(allSettings), process.env, envFiles)) createLog('settings').warn(warning);
    const stopWhenSignalled = keeper === undefined && command.serves === true ? catchSignals() : undefined;
    const started = await command.run(withEnvFiles(process.env, envFiles), { ...given, keeper });
    if (typeof started === 'number') process.exitCode = started;
    else if (keeper !== undefined) keeper.stopWith(() => stopWithStatus(started));
    else (stopWhenSignalled ?? catchSignals())(() => stopWithStatus(started));
  } catch (error) {
    keeper?.leave();
    if (!(error instanceof UsageError) && !(error instanceof StoreError)) throw error;
    process.stderr.write(`${detailedMessageOf(error)}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}

function readArguments(args: readonly string[]): { command: Command | undefined; help: boolean; wantsVersion: boolean; envFiles: readonly string[]; given: Given } {
  const options = {
    args: [...args],
    allowPositionals: true,
    options: {
      ...Object.assign({}, ...Object.values(commands).map((command) => command.options ?? {})) as Readonly<Record<string, CommandOption>>,
      help: { type: 'boolean', short: 'h', default: false },
      version: { type: 'boolean', default: false },
      'env-file': { type: 'string', multiple: true, default: [] },
    },
  } satisfies ParseArgsConfig;
  let parsed;
  try {
    parsed = parseArgs(options);
  } catch (error) {
    throw new UsageError(`${messageOf(error).split('. ', 1)[0]!}. --help lists all options.`, { cause: error });
  }
  const [name, ...rest] = parsed.positionals;
  const command = name === undefined || !Object.hasOwn(commands, name) ? undefined : commands[name];
  if (name !== undefined && command === undefined) {
    throw new UsageError(`There is no command ${JSON.stringify(name)}: it must be one of ${Object.keys(commands).join(', ')}.`);
  }
  const { help, version: wantsVersion, 'env-file': envFiles, ...given } = parsed.values as typeof parsed.values & Given['options'];
  if (rest.length > 0 && command?.takes === undefined) throw new UsageError(`${name} takes no arguments, and was given ${JSON.stringify(rest.join(' '))}.`);
  const foreign = command === undefined ? undefined : Object.keys(given).find((option) => !Object.hasOwn(command.options ?? {}, option));
  if (foreign !== undefined) throw new UsageError(`${name} has no option --${foreign}. \`${name} --help\` lists those that it has.`);
  return { command, help, wantsVersion, envFiles, given: { args: rest, options: given } };
}

function helpText(command: Command | undefined): string {
  const names = Object.entries(commands);
  const lines = command === undefined
    ? ['Usage: caddy-log-sink COMMAND [--env-file FILE]', '', ...names.map(([name, { does }]) => `  ${name.padEnd(10)} ${does}`)]
    : [
      `Usage: caddy-log-sink ${[names.find(([, each]) => each === command)![0], command.takes].filter(Boolean).join(' ')} [--env-file FILE]${command.options === undefined ? '' : ' [OPTIONS]'}`,
      '', command.does,
      ...Object.entries(command.options ?? {}).flatMap(([name, { value, help }]) => ['', `  --${name}${value === undefined ? '' : ` ${value}`}`, `      ${help}`]),
    ];
  const settings = Object.entries((command ?? { settings: allSettings }).settings).flatMap(([name, setting]) => [
    `  ${name}${setting.default === undefined ? '' : `=${setting.default}`}`,
    `      ${setting.help}`,
  ]);
  return [...lines, '', 'Settings, from the environment or from lines of NAME=value in the files given with --env-file:', '', ...settings, ''].join('\n');
}

async function start(environment: Environment, given: Given): Promise<Stop> {
  if (given.options['read-only'] === true) return await startReadOnly(environment, given);
  const values = readSettings(allSettings, environment);
  const collectorConfig = collectorConfigFrom(values);
  webConfigFrom(values, []); // its mistakes are said before anything is opened
  await refuseBadRegistration(given, values.COLLECTOR_LISTEN);
  const recording = await recorderOptions(values);
  await waitForTurn(given, collectorConfig, () => import('./web/main.js'));
  return await startParts(async (started) => {
    const store = await openStoreOf(values, 'collector', started);
    const webStore = values.STORE === 'influxdb' ? await openStoreOf(values, 'web', started) : store;
    const collector = await startCollectorOver(collectorConfig, values, recording, store, given, started);
    const hint = caddyfileLines(collector.addresses);
    const web = await startWebOver(values, recording, webStore, hint, started);
    await register(given, collector.addresses, recording, started);
    process.stdout.write(welcome({ dashboard: web.url, addresses: collector.addresses, ledger: collector.httpUrl, store: store.description, registersAt: adminUrlOf(given), hint }));
  });
}

/** Shows what a store holds, such as a copy, and leaves it as it is. */
async function startReadOnly(environment: Environment, { options }: Given): Promise<Stop> {
  const stray = Object.keys(options).find((option) => option !== 'read-only');
  if (stray !== undefined) throw new UsageError(`--${stray} cannot be used with --read-only, which takes no log lines.`);
  const values = readSettings({ ...webSettings, ...storeSettings }, environment);
  const config = webConfigFrom(values, []);
  return await startParts(async (started) => {
    const store = await openStore(storeSettingsFrom(values), { log: createLog('store'), isReadOnly: true });
    started('last', () => store.close());
    const { startWeb } = await import('./web/main.js');
    // Of a copy, nobody wants alerts; and the page's own requests are not recorded.
    const web = await startWeb({ ...config, alertWebhook: undefined }, { store, recorder: { record: () => true }, log: createLog('web') });
    started('next', () => web.stop());
    process.stdout.write(welcome({ dashboard: web.url, store: store.description }));
  });
}

async function startCollectorAlone(environment: Environment, given: Given): Promise<Stop> {
  const values = readSettings({ ...collectorSettings, ...storeSettings }, environment);
  refuseEmbedded('collector', values);
  const config = collectorConfigFrom(values);
  await refuseBadRegistration(given, values.COLLECTOR_LISTEN);
  const recording = await recorderOptions(values);
  await waitForTurn(given, config);
  return await startParts(async (started) => {
    const store = await openStoreOf(values, 'collector', started);
    const { addresses, httpUrl } = await startCollectorOver(config, values, recording, store, given, started);
    await register(given, addresses, recording, started);
    process.stdout.write(welcome({ addresses, ledger: httpUrl, store: store.description, registersAt: adminUrlOf(given), hint: caddyfileLines(addresses) }));
  });
}

async function startWebAlone(environment: Environment, given: Given): Promise<Stop> {
  const values = readSettings({ ...webSettings, ...webAloneSettings, ...storeSettings }, environment);
  if (given.options['read-only'] === true) return await startReadOnly(environment, given);
  refuseEmbedded('web', values);
  webConfigFrom(values, []);
  const recording = await recorderOptions(values);
  return await startParts(async (started) => {
    const store = await openStoreOf(values, 'web', started);
    const web = await startWebOver(values, recording, store, caddyfileLines(values.COLLECTOR_LISTEN), started);
    process.stdout.write(welcome({ dashboard: web.url, store: store.description }));
  });
}

async function demo(environment: Environment, given: Given): Promise<Stop | number> {
  const { demoOptionsFrom, makeFolder, orFreePort, storeFile } = await import('./demo/options.js');
  const { seed, requestsPerDay, dir } = demoOptionsFrom(given.options);
  const settings = readSettings(demoSettings, environment);
  webConfigFrom(settings, []);
  const tcp = settings.COLLECTOR_LISTEN.find(isTcp);
  if (tcp === undefined) throw new UsageError(`COLLECTOR_LISTEN is ${JSON.stringify(environment['COLLECTOR_LISTEN'])}: the demo needs a tcp:// address in it.`);
  const listen = environment['COLLECTOR_LISTEN'] ? settings.COLLECTOR_LISTEN : [{ ...tcp, ...await orFreePort(tcp) }];
  const webListen = environment['WEB_LISTEN'] ? settings.WEB_LISTEN : await orFreePort(settings.WEB_LISTEN);
  const path = join(makeFolder(dir), storeFile);
  const values = { ...readSettings(storeSettings, { STORE: `duckdb:${path}` }), ...settings, WEB_LISTEN: webListen };

  const recording = await recorderOptions(values);

  const stopping = new AbortController();
  const interrupt = (): void => {
    if (stopping.signal.aborted) process.exit(1);
    stopping.abort();
  };
  for (const signal of stopSignals) process.on(signal, interrupt);
  try {
    return await startParts(async (started) => {
      const [{ appSource, createTraffic }, { seedDay }, { startLive }, { createRecorder }, { startWeb }] = await Promise.all([
        import('./demo/traffic.js'), import('./demo/seed.js'), import('./demo/live.js'), import('./shared/recorder.js'), import('./web/main.js'),
      ]);
      const log = createLog('demo');
      const store = await openStoreOf(values, 'collector', started);
      const recorder = createRecorder({ store, log, name: appSource, ...recording });
      started('next', () => recorder.close());
      const [startMs, startedMs] = [Date.now(), performance.now()];
      const traffic = createTraffic({ seed, requestsPerDay, startMs });
      process.stdout.write('Making up a day of traffic:');
      const requests = await seedDay(traffic, recorder, { signal: stopping.signal, onPercent: (percent) => process.stdout.write(` ${percent} %`) });
      process.stdout.write(`, ${requests.toLocaleString('en')} requests in ${((performance.now() - startedMs) / 1000).toFixed(1)} s.\n`);

      const config = collectorConfigFrom({ ...readSettings(collectorSettings, { COLLECTOR_HTTP: 'off' }), COLLECTOR_LISTEN: listen, COLLECTOR_ID: 'demo' });
      const { addresses } = await startCollectorOver(config, values, recording, store, given, started);
      // The page does not count itself: the two sites and their app are the picture.
      const web = await startWeb(webConfigFrom(values, caddyfileLines(addresses)), { store, recorder: { record: () => true }, log: createLog('web') });
      started('next', () => web.stop());
      const collector = addresses.find(isTcp)!;
      const live = await startLive({ traffic, startMs, collector, appRecorder: recorder, log });
      started('first', () => live.stop());
      stopping.signal.throwIfAborted();
      process.stdout.write(welcome({ dashboard: web.url, addresses, store: store.description }));
      process.stdout.write(`The app was in trouble some three hours ago: ${web.url}/?from=now-6h\nCtrl+C ends the demo${dir === undefined ? ' and removes its folder' : ''}.\n`);
    });
  } catch (error) {
    if (stopping.signal.aborted) return 0;
    throw error;
  } finally {
    for (const signal of stopSignals) process.off(signal, interrupt);
  }
}

function isTcp(address: ListenAddress): address is Extract<ListenAddress, { kind: 'tcp' | 'udp' }> {
  return address.kind === 'tcp';
}

/** Told of each part that was started: how to stop it, and in which turn. */
type Started = (turn: 'first' | 'next' | 'last', stop: () => Promise<unknown>) => void;

/**
 * Starts the parts of a command. Resolves to what stops them, those of one turn together: first what brings work, then what does it, last the
 * stores. When a part fails to start, those before it are stopped, and its error is thrown.
 */
async function startParts(begin: (started: Started) => Promise<void>): Promise<Stop> {
  const turns = { first: [], next: [], last: [] } as Record<Parameters<Started>[0], (() => Promise<unknown>)[]>;
  const stop = async (): Promise<number> => {
    let lost = 0;
    for (const turn of Object.values(turns)) {
      const results = await Promise.all(turn.map((stopPart) => stopPart()));
      for (const result of results) if (typeof result === 'number') lost += result;
    }
    return lost;
  };
  try {
    await begin((turn, stopPart) => { turns[turn].push(stopPart); });
  } catch (error) {
    await stop();
    throw error;
  }
  return stop;
}

/** DuckDB lets one process use a file, so a collector without the web app would be a collector whose data nobody can see. */
function refuseEmbedded(command: string, { STORE }: SettingValues<typeof storeSettings>): void {
  if (STORE === 'influxdb') return;
  throw new UsageError(`${command} alone needs STORE=influxdb, and STORE is ${JSON.stringify(STORE)}: only one process can use a DuckDB file. \`start\` runs both over it.`);
}

/** Says what is wrong with `--register` before anything is opened. */
async function refuseBadRegistration({ options }: Given, addresses: readonly ListenAddress[]): Promise<void> {
  const { register: adminUrl, 'register-address': address } = options;
  if (typeof adminUrl === 'string') {
    const { registrationTarget } = await import('./collector/register.js');
    registrationTarget({ adminUrl, addresses, address: typeof address === 'string' ? address : undefined });
  } else if (address !== undefined) {
    throw new UsageError('--register-address is of use only with --register. Give --register http://127.0.0.1:2019 too.');
  }
}

/** With a keeper: the worker before this one ends when this one's settings are good and what it runs, beside the collector, is loaded. */
async function waitForTurn({ keeper }: Given, config: CollectorConfig, loadMore?: () => Promise<unknown>): Promise<void> {
  if (keeper === undefined) return;
  await Promise.all([import('./collector/main.js'), loadMore?.()]);
  await keeper.turn(config);
}

/** Registers with Caddy when that was asked for. */
async function register({ options, keeper }: Given, addresses: readonly ListenAddress[], { configuredHosts }: Recording, started: Started): Promise<void> {
  const { register: adminUrl, 'register-address': address } = options;
  if (typeof adminUrl !== 'string') return;
  const { startRegistration } = await import('./collector/register.js');
  const registration = startRegistration({ adminUrl, addresses, address: typeof address === 'string' ? address : undefined, log: createLog('register'), onHosts: (hosts) => { configuredHosts.set(hosts); } });
  started('first', async () => { if (keeper?.isHandingOver() !== true) await registration.stop(); });
}

async function importFiles(environment: Environment, { args, options }: Given): Promise<number> {
  const values = readSettings(importSettings, environment);
  if (options['list'] === true || options['undo'] !== undefined) {
    if (args.length > 0 || Object.keys(options).length > 1) throw new UsageError('--list and --undo take no files and no other option.');
    const { parseImportName, pastImports } = await import('./collector/import/past-imports.js');
    process.stdout.write(await pastImports(values, typeof options['undo'] === 'string' ? { kind: 'undo', importId: parseImportName(options['undo']) } : { kind: 'list' }));
    return 0;
  }
  const { runImport } = await import('./collector/import/import.js');
  const stopping = new AbortController();
  // The first signal stops gracefully, the second at once.
  for (const signal of stopSignals) process.once(signal, () => { stopping.abort(); });
  const status = await runImport(values, { paths: args, dryRun: options['dry-run'] === true, force: options['force'] === true, signal: stopping.signal, given: new Set(Object.keys(environment)) });
  if (stopping.signal.aborted) process.exit(status); // a store that does not answer must not keep the process
  return status;
}

async function checkCaddy(environment: Environment, { args: [source, ...more], options: { address, json } }: Given): Promise<number> {
  if (source === undefined || more.length > 0) throw new UsageError('check takes one argument: a Caddyfile, a file of JSON, or the address of an admin API such as http://127.0.0.1:2019.');
  const values = readSettings({ COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN, WEB_LISTEN: webSettings.WEB_LISTEN }, environment);
  const { check } = await import('./collector/check/main.js');
  const { text, exitStatus } = await check({
    source, address: typeof address === 'string' ? address : undefined, json: json === true, dashboard: values.WEB_LISTEN,
    listen: environment['COLLECTOR_LISTEN'] ? values.COLLECTOR_LISTEN : undefined,
  });
  process.stdout.write(text);
  return exitStatus;
}

async function setUp(environment: Environment, { options: { tokens, 'new-tokens': newTokens } }: Given): Promise<number> {
  const options = setupOptionsFrom(readSettings(setupSettings, environment));
  if (tokens === '') throw new UsageError('--tokens is empty: give it a folder.');
  const report = await setUpStore({ ...options, tokensDir: typeof tokens === 'string' ? tokens : undefined, newTokens: newTokens === true, log: createLog('setup') });
  process.stdout.write(`${report.join('\n')}\n`);
  return 0;
}

/** Starts the web app with its recorder. */
async function startWebOver(
  values: SettingValues<typeof webSettings & typeof storeSettings>, recording: Recording, store: Store, hint: readonly string[], started: Started,
): Promise<{ url: string }> {
  const { startWeb } = await import('./web/main.js');
  const { createRecorder } = await import('./shared/recorder.js');
  const log = createLog('web');
  const recorder = createRecorder({ store, log, name: hostname(), ...recording });
  const web = await startWeb(webConfigFrom(values, hint), { store, recorder, log }).catch(async (error: unknown) => {
    await recorder.close();
    throw error;
  });
  started('next', async () => {
    await web.stop();
    return await recorder.close();
  });
  return { url: values.DASHBOARD_URL ?? web.url };
}

async function startCollectorOver(
  config: CollectorConfig, values: SettingValues<typeof storeSettings>, recording: Recording, store: Store, { keeper }: Given, started: Started,
): Promise<Pick<Collector, 'addresses' | 'httpUrl'>> {
  const { startCollector } = await import('./collector/main.js');
  const collector = await startCollector(config, { store, log: createLog('collector'), ...recording, rollupRetentionMs: values.RETENTION_ROLLUPS, openStream: keeper?.openStream, usedTimes: keeper?.usedTimes() });
  started('next', async () => {
    const lost = await collector.stop();
    keeper?.leaveTimes(collector.usedTimes());
    return lost;
  });
  return collector;
}

/** Each recorder has a store, and a spool, of its own: the ledger of the collector is not to count the web app's requests. */
async function openStoreOf(values: SettingValues<typeof storeSettings>, spoolName: 'collector' | 'web', started: Started): Promise<Store> {
  const store = await openStore(storeSettingsFrom(values), { log: createLog('store'), spoolName, keepsHouse: spoolName === 'web' });
  started('last', () => store.close());
  return store;
}

/** What all recorders of this process have in common. */
type Recording = Awaited<ReturnType<typeof recorderOptions>>;

async function recorderOptions(values: SettingValues<typeof storeSettings>) {
  const { STORE, HOSTS_MAX: hostsMax, CLIENT_IP: clientIp, GEOIP_DATABASE, MEMORY_BYTES_MAX: memoryBytesMax, SAMPLE_RATIO: sampleRatio } = values;
  // Loaded where there is a database alone.
  const countryOf = GEOIP_DATABASE === undefined ? undefined : (await import('./shared/countries.js')).countriesFrom(values, createLog('countries'));
  // Appending to the spool costs less than a transaction of DuckDB: twice as often, so that SIGKILL costs 100 ms with all that comes on top.
  return { hostsMax, configuredHosts: new ConfiguredHosts(), clientIp, countryOf, memoryBytesMax, sampleRatio, ...(STORE === 'influxdb' && { flushMs: 50 }) };
}

/** The lines for a Caddyfile's site, for the first stream listener. */
function caddyfileLines(addresses: readonly ListenAddress[]): readonly string[] {
  const address = addresses.find(({ kind }) => kind !== 'udp') ?? addresses[0]!;
  return ['log {', `    output net ${caddyAddress(address)} {`, '        dial_timeout 1s', '        soft_start', '    }', '}'];
}

/** The admin API of the Caddy that the sink adds itself to; `undefined` when people put the lines into their Caddyfile. */
function adminUrlOf({ options: { register: adminUrl } }: Given): string | undefined {
  return typeof adminUrl === 'string' ? adminUrl : undefined;
}

/** What the start prints: where things are, and how lines get here. */
interface Welcome {
  readonly dashboard?: string;
  readonly addresses?: readonly ListenAddress[];
  readonly ledger?: string | undefined;
  readonly store: string;
  readonly registersAt?: string | undefined;
  readonly hint?: readonly string[];
}

function welcome({ dashboard, addresses, ledger, store, registersAt, hint }: Welcome): string {
  const next = registersAt !== undefined
    ? [`The sink adds itself to the Caddy at ${registersAt}: put nothing about it into the Caddyfile. Each site`, 'needs `log` in it, or Caddy writes no access lines; the log says which have none.', '']
    : hint === undefined ? [] : ['Put these lines into each site of your Caddyfile and reload Caddy:', '', ...hint.map((line) => `    ${line}`), ''];
  return [
    '',
    `Caddy Log Sink ${version()}`,
    ...(dashboard === undefined ? [] : [`  Dashboard  ${dashboard}`]),
    ...(addresses === undefined ? [] : [`  Collector  ${addresses.map(caddyAddress).join('  ')}`]),
    ...(ledger === undefined ? [] : [`  Ledger     ${ledger.replace(/\/$/, '')}/ledger`]),
    `  Store      ${store}`,
    '',
    ...next,
    '',
  ].join('\n');
}

function version(): string {
  const file = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(file) as { version: string }).version;
}

/** Stops what a command started; resolves to the exit status, which is 1 when accepted requests were lost, and never rejects. */
async function stopWithStatus(stop: Stop): Promise<number> {
  try {
    return await stop() === 0 ? 0 : 1;
  } catch (error) {
    process.stderr.write(`Could not stop cleanly: ${messageOf(error)}\n`);
    return 1;
  }
}

/**
 * Catches the signals that stop the program; the second one ends it at once. Call the result with what stops it as soon as it has started.
 */
function catchSignals(): (stop: () => Promise<number>) => void {
  let signals = 0;
  let stop: (() => Promise<number>) | undefined;
  const stopOnce = (): void => void stop?.().then((status) => process.exit(status));
  for (const signal of stopSignals) {
    process.on(signal, () => {
      signals += 1;
      if (signals > 1) process.exit(1);
      stopOnce();
    });
  }
  return (stopStarted) => {
    stop = stopStarted;
    if (signals > 0) stopOnce();
  };
}
