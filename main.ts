#!/usr/bin/env -S node --
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { ListenAddress } from './collector/listen/address.js';
import { messageOf, StoreError, UsageError } from './shared/errors.js';
import { createLog } from './shared/log.js';
import { readSettings, refuseUnknown, withEnvFiles, type Environment, type SettingTable, type SettingValues } from './shared/settings.js';
import { openStore } from './shared/store/open.js';
import { storeSettings, storeSettingsFrom } from './shared/store/settings.js';
import { collectorConfigFrom, collectorSettings } from './collector/config.js';
import { caddyAddress } from './collector/listen/address.js';
import { webConfigFrom, webSettings } from './web/config.js';

/** One sub-command of `caddy-log-sink`. */
interface Command {
  readonly does: string;
  readonly settings: SettingTable;
  /** Starts it; resolves to what stops it. */
  readonly run: (environment: Environment) => Promise<() => Promise<void>>;
}

const allSettings = { ...collectorSettings, ...webSettings, ...storeSettings };

const commands: Readonly<Record<string, Command>> = {
  start: {
    does: 'Runs the collector and the dashboard in one process, over the embedded store unless STORE says otherwise.',
    settings: allSettings,
    run: start,
  },
  collector: {
    does: 'Runs the collector alone, over InfluxDB.',
    settings: { ...collectorSettings, ...storeSettings },
    run: startCollectorAlone,
  },
  web: {
    does: 'Runs the dashboard alone, over InfluxDB.',
    settings: { ...webSettings, ...storeSettings },
    run: startWebAlone,
  },
};

await main(process.argv.slice(2));

async function main(args: readonly string[]): Promise<void> {
  try {
    const { command, help, envFiles } = readArguments(args);
    if (help) {
      process.stdout.write(helpText(command));
      return;
    }
    if (command === undefined) throw new UsageError('Name a command: start, collector or web. --help says what they do.');
    refuseUnknown(Object.keys(allSettings), process.env, envFiles);
    stopOnSignals(await command.run(withEnvFiles(process.env, envFiles)));
  } catch (error) {
    if (!(error instanceof UsageError) && !(error instanceof StoreError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}

function readArguments(args: readonly string[]): { command: Command | undefined; help: boolean; envFiles: readonly string[] } {
  const options = {
    args: [...args],
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      'env-file': { type: 'string', multiple: true, default: [] },
    },
  } satisfies ParseArgsConfig;
  let parsed;
  try {
    parsed = parseArgs(options);
  } catch (error) {
    throw new UsageError(messageOf(error), { cause: error });
  }
  const [name, ...rest] = parsed.positionals;
  const command = name === undefined || !Object.hasOwn(commands, name) ? undefined : commands[name];
  if (name !== undefined && command === undefined) {
    throw new UsageError(`There is no command ${JSON.stringify(name)}: it must be one of ${Object.keys(commands).join(', ')}.`);
  }
  if (rest.length > 0) throw new UsageError(`${name} takes no arguments, and was given ${JSON.stringify(rest.join(' '))}.`);
  return { command, help: parsed.values.help, envFiles: parsed.values['env-file'] };
}

function helpText(command: Command | undefined): string {
  const names = Object.entries(commands);
  const lines = command === undefined
    ? ['Usage: caddy-log-sink COMMAND [--env-file FILE]', '', ...names.map(([name, { does }]) => `  ${name.padEnd(10)} ${does}`)]
    : [`Usage: caddy-log-sink ${names.find(([, each]) => each === command)![0]} [--env-file FILE]`, '', command.does];
  const settings = Object.entries((command ?? { settings: allSettings }).settings).flatMap(([name, setting]) => [
    `  ${name}${setting.default === undefined ? '' : `=${setting.default}`}`,
    `      ${setting.help}`,
  ]);
  return [...lines, '', 'Settings, from the environment or from lines of NAME=value in the files given with --env-file:', '', ...settings, ''].join('\n');
}

async function start(environment: Environment): Promise<() => Promise<void>> {
  const values = readSettings(allSettings, environment);
  const collectorConfig = collectorConfigFrom(values);
  webConfigFrom(values, []); // its mistakes are said before anything is opened
  const store = await openStoreOf(values);
  const { startCollector } = await import('./collector/main.js');
  const collector = await startCollector(collectorConfig, { store, log: createLog('collector'), ...recorderOptions(values) })
    .catch(closing(store));
  const hint = caddyfileLines(collector.addresses);
  const web = await startWebOver(values, store, hint).catch(async (error: unknown) => {
    await collector.stop();
    return closing(store)(error);
  });
  process.stdout.write(welcome({ dashboard: web.url, addresses: collector.addresses, store: store.description, hint }));
  return async () => {
    await Promise.all([collector.stop(), web.stop()]);
    await store.close();
  };
}

async function startCollectorAlone(environment: Environment): Promise<() => Promise<void>> {
  const values = readSettings({ ...collectorSettings, ...storeSettings }, environment);
  const config = collectorConfigFrom(values);
  const store = await openStoreOf(values);
  const { startCollector } = await import('./collector/main.js');
  const collector = await startCollector(config, { store, log: createLog('collector'), ...recorderOptions(values) }).catch(closing(store));
  return async () => {
    await collector.stop();
    await store.close();
  };
}

async function startWebAlone(environment: Environment): Promise<() => Promise<void>> {
  const values = readSettings({ ...webSettings, ...storeSettings }, environment);
  webConfigFrom(values, []);
  const store = await openStoreOf(values);
  const hint = caddyfileLines([{ kind: 'tcp', family: 4, host: 'collector', port: 9514 }]);
  const web = await startWebOver(values, store, hint).catch(closing(store));
  return async () => {
    await web.stop();
    await store.close();
  };
}

async function startWebOver(
  values: SettingValues<typeof webSettings & typeof storeSettings>, store: Awaited<ReturnType<typeof openStore>>, hint: readonly string[],
): Promise<{ url: string; stop(): Promise<void> }> {
  const { startWeb } = await import('./web/main.js');
  const { createRecorder } = await import('./shared/recorder.js');
  const log = createLog('web');
  const recorder = createRecorder({ store, log, name: hostname(), ...recorderOptions(values) });
  const web = await startWeb(webConfigFrom(values, hint), { store, recorder, log }).catch(async (error: unknown) => {
    await recorder.close();
    throw error;
  });
  return {
    url: web.url,
    async stop() {
      await web.stop();
      await recorder.close();
    },
  };
}

function openStoreOf(values: SettingValues<typeof storeSettings>): ReturnType<typeof openStore> {
  return openStore(storeSettingsFrom(values), { log: createLog('store') });
}

function recorderOptions({ HOSTS_MAX: hostsMax, CLIENT_IP: clientIp }: SettingValues<typeof storeSettings>) {
  return { hostsMax, clientIp };
}

function closing(store: { close(): Promise<void> }): (error: unknown) => Promise<never> {
  return async (error) => {
    await store.close();
    throw error;
  };
}

/** The lines for a Caddyfile's site, for the first stream listener. */
function caddyfileLines(addresses: readonly ListenAddress[]): readonly string[] {
  const address = addresses.find(({ kind }) => kind !== 'udp') ?? addresses[0]!;
  return ['log {', `    output net ${caddyAddress(address)} {`, '        dial_timeout 1s', '        soft_start', '    }', '}'];
}

function welcome({ dashboard, addresses, store, hint }: { dashboard: string; addresses: readonly ListenAddress[]; store: string; hint: readonly string[] }): string {
  return [
    '',
    `Caddy Log Sink ${version()}`,
    `  Dashboard  ${dashboard}`,
    `  Collector  ${addresses.map(caddyAddress).join('  ')}`,
    `  Store      ${store}`,
    '',
    'Put these lines into each site of your Caddyfile and reload Caddy:',
    '',
    ...hint.map((line) => `    ${line}`),
    '', '',
  ].join('\n');
}

function version(): string {
  const file = readFileSync(new URL('../package.json', import.meta.url), 'utf8');
  return (JSON.parse(file) as { version: string }).version;
}

/** The first signal stops gracefully, the second at once. */
function stopOnSignals(stop: () => Promise<void>): void {
  let stopping = false;
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (stopping) process.exit(1);
      stopping = true;
      stop().then(() => process.exit(0), (error: unknown) => {
        process.stderr.write(`Could not stop cleanly: ${messageOf(error)}\n`);
        process.exit(1);
      });
    });
  }
}
