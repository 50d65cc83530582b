import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { collectorConfigFrom, collectorSettings } from '../collector/config.js';
import { caddyAddress } from '../collector/listen/address.js';
import { startCollector, type Collector, type CollectorParts } from '../collector/collector.js';
import { createLog } from '../shared/log.js';
import { readSettings } from '../shared/settings/settings.js';
import { openStore } from '../shared/store/open.js';
import { storeSettings, storeSettingsFrom } from '../shared/settings/store-settings.js';
import type { Store } from '../shared/store/store.js';
import { temporaryFolder } from './program.js';

/** A collector over a store of its own on free ports of this machine; it ends with the test. */
export interface TestCollector extends Collector {
  /** Its first address, as a Caddyfile's `output net` has it. */
  readonly address: string;
  readonly store: Store;
}

/** Starts a collector in this process, over the embedded store in a temporary folder. */
export async function collectorOfTest(
  t: ExecutionContext,
  listen = 'tcp://127.0.0.1:0',
  parts: Partial<Pick<CollectorParts, 'hostsMax' | 'configuredHosts'>> = {},
): Promise<TestCollector> {
  const folder = await temporaryFolder();
  const values = readSettings(
    { ...collectorSettings, ...storeSettings },
    {
      COLLECTOR_LISTEN: listen,
      COLLECTOR_HTTP: 'off',
      COLLECTOR_ID: 'test',
      STORE: `duckdb:${join(folder, 'requests.duckdb')}`,
    },
  );
  const log = createLog('test', { write: () => undefined });
  const store = await openStore(storeSettingsFrom(values), { log });
  const collector = await startCollector(collectorConfigFrom(values), {
    store,
    log,
    hostsMax: values.HOSTS_MAX,
    clientIp: values.CLIENT_IP,
    ...parts,
  });
  t.teardown(async () => {
    await collector.stop();
    await store.close();
    await rm(folder, { recursive: true, force: true });
  });
  return Object.assign(collector, { address: caddyAddress(collector.addresses[0]!), store });
}
