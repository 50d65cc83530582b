import { UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { readSettings } from '../../shared/settings/settings.js';
import { openStore } from '../../shared/store/open.js';
import { storeSettings, storeSettingsFrom } from '../../shared/settings/store-settings.js';
import { webConfigFrom, webSettings } from '../../web/config.js';
import { startParts, type Stop } from '../lifecycle.js';
import type { Invocation } from '../parse.js';
import type { CollectorOptions, ReadOnlyOptions } from '../parts.js';
import { welcome } from '../welcome.js';

/**
 * Runs `start --read-only` and `web --read-only`: the dashboard over a store, such as a copy, without changing it.
 */
export async function startReadOnly({
  options: { restartable, register, registerAddress },
  environment,
}: Pick<Invocation<CollectorOptions & ReadOnlyOptions>, 'options' | 'environment'>): Promise<Stop> {
  const stray = Object.entries({ restartable, register, 'register-address': registerAddress }).find(
    ([, value]) => value !== undefined,
  );
  if (stray !== undefined)
    throw new UsageError(`--${stray[0]} cannot be used with --read-only, which accepts no log lines.`);
  const values = readSettings({ ...webSettings, ...storeSettings }, environment);
  const config = webConfigFrom(values, []);
  return await startParts(async (onStarted) => {
    const store = await openStore(storeSettingsFrom(values), { log: createLog('store'), isReadOnly: true });
    onStarted('stores', () => store.close());
    const { startWeb } = await import('../../web/web.js');
    // Sends no alerts for a copy, and does not record the page's own requests.
    const web = await startWeb(
      { ...config, alertWebhook: undefined },
      { store, recorder: { record: () => true }, log: createLog('web') },
    );
    onStarted('workers', () => web.stop());
    process.stdout.write(welcome({ dashboard: web.url, store: store.description }));
  });
}
