import { UsageError } from '../../shared/errors.js';
import { readSettings } from '../../shared/settings/settings.js';
import { collectorSettings } from '../../collector/config.js';
import { webSettings } from '../../web/config.js';
import type { CliCommand } from '../parse.js';

interface CheckOptions {
  readonly address?: string;
  readonly json?: true;
}

const settings = { COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN, WEB_LISTEN: webSettings.WEB_LISTEN };

/** Finds problems in a configuration of Caddy. */
export const check: CliCommand<CheckOptions> = {
  name: 'check',
  summary:
    'Reports problems in a configuration of Caddy that lose, duplicate or blur log lines. Exits with 1 if lines would be lost.',
  settings,
  positionals: 'CADDYFILE | CONFIG.json | http://127.0.0.1:2019',
  options: [
    [
      '--address <address>',
      'Checks only loggers that write to this address, such as tcp/127.0.0.1:9514. Default: COLLECTOR_LISTEN if set, otherwise every `output net`.',
    ],
    ['--json', 'Prints JSON.'],
  ],
  async run({ args: [source, ...more], options: { address, json }, environment }) {
    if (source === undefined || more.length > 0)
      throw new UsageError(
        'check takes one argument: a Caddyfile, a JSON configuration, or the address of an admin API such as http://127.0.0.1:2019.',
      );
    const values = readSettings(settings, environment);
    const { check: checkCaddy } = await import('../../collector/caddy/check/check.js');
    const { text, exitStatus } = await checkCaddy({
      source,
      address,
      json: json === true,
      dashboard: values.WEB_LISTEN,
      listen: environment['COLLECTOR_LISTEN'] ? values.COLLECTOR_LISTEN : undefined,
    });
    process.stdout.write(text);
    return exitStatus;
  },
};
