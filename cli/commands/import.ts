import { UsageError } from '../../shared/errors.js';
import { readSettings } from '../../shared/settings/settings.js';
import { importSettings } from '../../collector/import/settings.js';
import { stopSignals } from '../lifecycle.js';
import type { CliCommand } from '../parse.js';

interface ImportOptions {
  readonly dryRun?: true;
  readonly list?: true;
  /** The name of an import, as `--list` prints it. */
  readonly undo?: string;
  readonly force?: true;
}

/** Adds log files to the store. */
export const importCommand: CliCommand<ImportOptions> = {
  name: 'import',
  summary:
    'Adds the requests of access logs to the store: from files (also .gz, and .zst where Node supports it) or, as -, from standard input. Importing a file twice adds nothing.',
  settings: importSettings,
  positionals: 'FILE… | -',
  options: [
    ['--dry-run', 'Reads everything and reports what would be added, but writes nothing.'],
    ['--list', 'Lists the imports that the store remembers, with their ids.'],
    ['--undo <id>', 'Undoes an import: removes its requests, also from rollups and top lists.'],
    ['--force', 'Adds possible duplicates instead of skipping them.'],
  ],
  async run({ args, options, environment }) {
    const values = readSettings(importSettings, environment);
    const { list, undo } = options;
    if (list !== undefined || undo !== undefined) {
      if (args.length > 0 || Object.keys(options).length > 1)
        throw new UsageError('--list and --undo take no files and no other option.');
      const { parseImportName, pastImports } = await import('../../collector/import/past-imports.js');
      process.stdout.write(
        await pastImports(
          values,
          undo !== undefined ? { kind: 'undo', importId: parseImportName(undo) } : { kind: 'list' },
        ),
      );
      return 0;
    }
    const { runImport } = await import('../../collector/import/import.js');
    const stopping = new AbortController();
    // The first signal stops gracefully, the second immediately.
    for (const signal of stopSignals)
      process.once(signal, () => {
        stopping.abort();
      });
    const status = await runImport(values, {
      paths: args,
      dryRun: options.dryRun === true,
      force: options.force === true,
      signal: stopping.signal,
      explicitSettings: new Set(Object.keys(environment)),
    });
    if (stopping.signal.aborted) process.exit(status); // an unresponsive store must not keep the process alive
    return status;
  },
};
