import { readSettings } from '../../shared/settings/settings.js';
import { storeSettings } from '../../shared/settings/store-settings.js';
import { collectorSettings } from '../../collector/config.js';
import { webConfigFrom, webSettings } from '../../web/config.js';
import { startParts } from '../lifecycle.js';
import type { CliCommand } from '../parse.js';
import {
  openStoreOf,
  readOnlyOption,
  recordingFrom,
  refuseEmbedded,
  startWebOver,
  type ReadOnlyOptions,
} from '../parts.js';
import { caddyfileLines, welcome } from '../welcome.js';
import { startReadOnly } from './read-only.js';

// Not to listen on, but to show the collector's address.
const settings = { ...webSettings, COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN, ...storeSettings };

/** The dashboard alone. */
export const web: CliCommand<ReadOnlyOptions> = {
  name: 'web',
  summary: 'Runs the dashboard alone, over InfluxDB.',
  settings,
  options: [readOnlyOption],
  serves: true,
  async run({ options, environment }) {
    const values = readSettings(settings, environment);
    if (options.readOnly === true) return await startReadOnly({ options, environment });
    refuseEmbedded('web', values);
    webConfigFrom(values, []);
    const recording = await recordingFrom(values);
    return await startParts(async (onStarted) => {
      const store = await openStoreOf(values, 'web', onStarted);
      const { url: dashboard } = await startWebOver(values, caddyfileLines(values.COLLECTOR_LISTEN), {
        recording,
        store,
        onStarted,
      });
      process.stdout.write(welcome({ dashboard, store: store.description }));
    });
  },
};
