import { UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { readSettings } from '../../shared/settings/settings.js';
import { setUpStore } from '../../shared/store/open.js';
import { setupOptionsFrom, setupSettings } from '../../shared/settings/store-settings.js';
import type { CliCommand } from '../parse.js';

interface SetupOptions {
  readonly tokens?: string;
  readonly newTokens?: true;
}

/** Prepares InfluxDB. */
export const setup: CliCommand<SetupOptions> = {
  name: 'setup',
  summary:
    'Creates the bucket in InfluxDB, and a token each for the collector and the web app. Sets up a fresh InfluxDB first. Does not change existing ones.',
  settings: setupSettings,
  options: [
    [
      '--tokens <folder>',
      'Writes the tokens to FOLDER/collector/token and FOLDER/web/token, readable by this user only, instead of printing them.',
    ],
    ['--new-tokens', 'Creates new tokens for both, and deletes the old ones.'],
  ],
  async run({ options: { tokens, newTokens }, environment }) {
    const options = setupOptionsFrom(readSettings(setupSettings, environment));
    if (tokens === '') throw new UsageError('--tokens is empty: it must be a folder.');
    const report = await setUpStore({
      ...options,
      tokensDir: tokens,
      newTokens: newTokens === true,
      log: createLog('setup'),
    });
    process.stdout.write(`${report.join('\n')}\n`);
    return 0;
  },
};
