import { setFlagsFromString } from 'node:v8';
import { detailedMessageOf, StoreError, UsageError } from '../shared/errors.js';
import { configureLogs, createLog, logSettings } from '../shared/log.js';
import { checkNames, readSettings, withEnvFiles, type Environment } from '../shared/settings/settings.js';
import { startWatchdog } from '../shared/watchdog.js';
import { runSupervisor } from '../collector/supervisor/supervisor.js';
import { connectToSupervisor, type WorkerChannel } from '../collector/supervisor/worker-channel.js';
import { check } from './commands/check.js';
import { collector } from './commands/collector.js';
import { demo } from './commands/demo.js';
import { importCommand } from './commands/import.js';
import { setup } from './commands/setup.js';
import { start } from './commands/start.js';
import { web } from './commands/web.js';
import { catchSignals, stopWithStatus } from './lifecycle.js';
import { parseArgs, type CliCommand, type ParsedArgs } from './parse.js';
import type { CollectorOptions, ReadOnlyOptions } from './parts.js';

const commands = ([start, collector, web, demo, importCommand, check, setup] as readonly CliCommand[]).map(
  (command) => ({ ...command, settings: { ...command.settings, ...logSettings } }),
);
const allSettings = { ...start.settings, ...logSettings };

/**
 * Heap growth before a full garbage collection, in percent of the live heap after the last one. V8's default lets it
 * quadruple when every line allocates: decision 16. The other option, `--max-semi-space-size`, works only when
 * Node starts: see `bin/`.
 */
const heapGrowingPercent = 75;

/**
 * Runs the program with its entry file `program`. Sets the exit status. Resolves when the command has started or
 * finished.
 */
export async function main(program: string, args: readonly string[]): Promise<void> {
  setFlagsFromString(`--heap-growing-percent=${heapGrowingPercent}`);
  // A closed pipe, as in `… | head`, must not end the program.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  try {
    const parsed = await parseArgs(args, commands, allSettings);
    if (parsed === undefined) return;
    const environment = withEnvFiles(process.env, parsed.envFiles);
    configureLogs(readSettings(logSettings, environment));
    const isRestartable = isRestartableWith(parsed.options);
    const supervisor = isRestartable ? connectToSupervisor() : undefined;
    if (supervisor === undefined) startWatchdog(process.env, { log: createLog('watchdog') });
    if (isRestartable && supervisor === undefined)
      process.exit(await runSupervisor({ program, args, log: createLog('supervisor') }));
    await run(parsed, environment, supervisor);
  } catch (error) {
    if (!(error instanceof UsageError) && !(error instanceof StoreError)) throw error;
    process.stderr.write(`${detailedMessageOf(error)}\n`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  }
}

function isRestartableWith({ restartable, readOnly }: CollectorOptions & ReadOnlyOptions): boolean {
  return restartable === true && readOnly !== true;
}

async function run(
  { command, args, options, envFiles }: ParsedArgs,
  environment: Environment,
  supervisor: WorkerChannel | undefined,
): Promise<void> {
  try {
    for (const warning of checkNames(Object.keys(allSettings), process.env, envFiles))
      createLog('settings').warn(warning);
    const stopWhenSignalled = supervisor === undefined && command.serves === true ? catchSignals() : undefined;
    const started = await command.run({ args, options, environment, supervisor });
    if (typeof started === 'number') process.exitCode = started;
    else if (supervisor !== undefined) supervisor.onStop(() => stopWithStatus(started));
    else (stopWhenSignalled ?? catchSignals())(() => stopWithStatus(started));
  } catch (error) {
    supervisor?.disconnect();
    throw error;
  }
}
