import { readSettings } from '../../shared/settings/settings.js';
import { storeSettings } from '../../shared/settings/store-settings.js';
import { collectorConfigFrom, collectorSettings } from '../../collector/config.js';
import { webConfigFrom, webSettings } from '../../web/config.js';
import { startParts } from '../lifecycle.js';
import type { CliCommand } from '../parse.js';
import {
  collectorOptions,
  openStoreOf,
  readOnlyOption,
  recordingFrom,
  refuseBadRegistration,
  register,
  startCollectorOver,
  startWebOver,
  waitForTurn,
  type CollectorOptions,
  type ReadOnlyOptions,
} from '../parts.js';
import { caddyfileLines, welcome } from '../welcome.js';
import { startReadOnly } from './read-only.js';

const settings = { ...collectorSettings, ...webSettings, ...storeSettings };

/** The collector and the dashboard in one process. */
export const start: CliCommand<CollectorOptions & ReadOnlyOptions> = {
  name: 'start',
  summary: 'Runs the collector and the dashboard in one process.',
  settings,
  options: [...collectorOptions, readOnlyOption],
  serves: true,
  async run({ options, environment, supervisor }) {
    if (options.readOnly === true) return await startReadOnly({ options, environment });
    const values = readSettings(settings, environment);
    const collectorConfig = collectorConfigFrom(values);
    webConfigFrom(values, []); // validate before opening anything
    await refuseBadRegistration(options, values.COLLECTOR_LISTEN);
    const recording = await recordingFrom(values);
    await waitForTurn(supervisor, collectorConfig, () => import('../../web/web.js'));
    return await startParts(async (onStarted) => {
      const store = await openStoreOf(values, 'collector', onStarted);
      const webStore = values.STORE === 'influxdb' ? await openStoreOf(values, 'web', onStarted) : store;
      const { addresses, httpUrl: ledger } = await startCollectorOver(collectorConfig, values, {
        recording,
        store,
        supervisor,
        onStarted,
      });
      const hint = caddyfileLines(addresses);
      const web = await startWebOver(values, hint, { recording, store: webStore, onStarted });
      await register(options, addresses, { recording, supervisor, onStarted });
      process.stdout.write(
        welcome({
          dashboard: web.url,
          addresses,
          ledger,
          store: store.description,
          registersAt: options.register,
          hint,
        }),
      );
    });
  },
};
