/** Parses the command line. */
import { Command, CommanderError } from 'commander';
import { messageOf, UsageError } from '../shared/errors.js';
import type { Environment, SettingTable } from '../shared/settings/settings.js';
import type { WorkerChannel } from '../collector/supervisor/worker-channel.js';
import type { Stop } from './lifecycle.js';
import { version } from './version.js';

/** One sub-command of `caddy-log-sink`. `Options` are the options that it declares, by their names in `commander`. */
export interface CliCommand<Options extends object = object> {
  readonly name: string;
  /** One or two sentences for `--help`. */
  readonly summary: string;
  /** Its settings, for `--help`. */
  readonly settings: SettingTable;
  /** Its positional arguments, for `--help`. Default: none; arguments are refused. */
  readonly positionals?: string;
  readonly options?: readonly CliOption[];
  /** Whether it runs until a signal stops it. A signal during the start takes effect once it has started. */
  readonly serves?: true;
  /** Runs it. Resolves to its stop function, or to the exit status if it has finished. */
  readonly run: (invocation: Invocation<Options>) => Promise<Stop | number>;
}

/** An option of a command: the flags in the syntax of `commander`, such as `--seed <number>`, and what they do. */
export type CliOption = readonly [flags: string, help: string];

/** Arguments of a command. */
export interface Invocation<Options extends object = object> {
  readonly args: readonly string[];
  readonly options: Readonly<Options>;
  /** The environment, including values from settings files. */
  readonly environment: Environment;
  /** With `--restartable`: the process that owns the sockets. */
  readonly supervisor?: WorkerChannel | undefined;
}

/** The parsed command line. */
export interface ParsedArgs {
  readonly command: CliCommand;
  readonly args: readonly string[];
  readonly options: object;
  readonly envFiles: readonly string[];
}

/**
 * Parses the command line. Returns `undefined` after printing a help text or the version. Throws a `UsageError` for
 * unknown commands, options and arguments. `settings`: the settings of all commands, for the general help.
 */
export async function parseArgs(
  args: readonly string[],
  commands: readonly CliCommand[],
  settings: SettingTable,
): Promise<ParsedArgs | undefined> {
  let parsed: Omit<ParsedArgs, 'envFiles'> | undefined;
  const names = commands.map(({ name }) => name).join(', ');
  const program = withHelp(new Command('caddy-log-sink'), settings)
    .usage('COMMAND [OPTIONS]')
    .version(version(), '--version', 'Prints the version.')
    .option(
      '--env-file <file>',
      'Reads settings from a file of NAME=value lines. Can be repeated.',
      (file: string, files: readonly string[] | undefined) => [...(files ?? []), file],
    )
    .argument('[command]')
    .action((name: string | undefined) => {
      if (name === undefined) throw new UsageError(`Name a command: ${names}. --help describes them.`);
      throw new UsageError(`There is no command ${JSON.stringify(name)}: it must be one of ${names}.`);
    });
  for (const command of commands) {
    const { name, summary, positionals, options = [] } = command;
    const added = withHelp(program.command(name), command.settings)
      .description(summary)
      .usage([positionals, '[OPTIONS] [--env-file FILE]'].filter(Boolean).join(' '))
      .argument('[args...]')
      .action((rest: string[]) => {
        if (rest.length > 0 && positionals === undefined)
          throw new UsageError(`${name} takes no arguments, but got ${JSON.stringify(rest.join(' '))}.`);
        parsed = { command, args: rest, options: added.opts() };
      });
    for (const [flags, help] of options) added.option(flags, help);
  }
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    throw new UsageError(`${sentence(messageOf(error))} --help lists all options.`, { cause: error });
  }
  return parsed && { ...parsed, envFiles: program.opts<{ envFile?: string[] }>().envFile ?? [] };
}

function withHelp(command: Command, settings: SettingTable): Command {
  const lines = Object.entries(settings).flatMap(([name, setting]) => [
    `  ${name}${setting.default === undefined ? '' : `=${setting.default}`}`,
    `      ${setting.help}`,
  ]);
  return command
    .exitOverride()
    .helpCommand(false)
    .configureHelp({ subcommandTerm: (subcommand) => subcommand.name() })
    .helpOption('-h, --help', 'Prints this text.')
    .configureOutput({ writeErr: () => undefined })
    .addHelpText(
      'after',
      ['', 'Settings, from the environment or from the files given with --env-file:', '', ...lines].join('\n'),
    );
}

/** `error: unknown option '--x'\n(Did you mean --y?)` as sentences on one line. */
function sentence(message: string): string {
  const [text, ...hints] = message.replace(/^error: /, '').split('\n');
  return [`${text!.charAt(0).toUpperCase()}${text!.slice(1)}.`, ...hints].join(' ');
}
