import { readSettings } from '../../shared/settings/settings.js';
import { storeSettings } from '../../shared/settings/store-settings.js';
import { collectorConfigFrom, collectorSettings } from '../../collector/config.js';
import { startParts } from '../lifecycle.js';
import type { CliCommand } from '../parse.js';
import {
  collectorOptions,
  openStoreOf,
  recordingFrom,
  refuseBadRegistration,
  refuseEmbedded,
  register,
  startCollectorOver,
  waitForTurn,
  type CollectorOptions,
} from '../parts.js';
import { caddyfileLines, welcome } from '../welcome.js';

const settings = { ...collectorSettings, ...storeSettings };

/** The collector alone. */
export const collector: CliCommand<CollectorOptions> = {
  name: 'collector',
  summary: 'Runs the collector alone, over InfluxDB.',
  settings,
  options: collectorOptions,
  serves: true,
  async run({ options, environment, supervisor }) {
    const values = readSettings(settings, environment);
    refuseEmbedded('collector', values);
    const config = collectorConfigFrom(values);
    await refuseBadRegistration(options, values.COLLECTOR_LISTEN);
    const recording = await recordingFrom(values);
    await waitForTurn(supervisor, config);
    return await startParts(async (onStarted) => {
      const store = await openStoreOf(values, 'collector', onStarted);
      const { addresses, httpUrl: ledger } = await startCollectorOver(config, values, {
        recording,
        store,
        supervisor,
        onStarted,
      });
      await register(options, addresses, { recording, supervisor, onStarted });
      process.stdout.write(
        welcome({
          addresses,
          ledger,
          store: store.description,
          registersAt: options.register,
          hint: caddyfileLines(addresses),
        }),
      );
    });
  },
};
