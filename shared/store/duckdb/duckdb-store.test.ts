import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { createLog } from '../../log.js';
import { runStoreContract } from '../contract.js';
import type { Store } from '../store.js';
import { openDuckdbStore } from './duckdb-store.js';

const retention = { requestsMs: 7 * 86_400_000, rollupsMs: 400 * 86_400_000 };
/** Some hours after the contract's requests: nothing of them is old. */
const now = (): number => Date.UTC(2026, 10, 24);

runStoreContract(test, 'DuckDB', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  const open = (): Promise<Store> => openDuckdbStore({ path: join(folder, 'requests.duckdb'), retention }, { log: createLog('store', { write: () => undefined }), now });
  let store = await open();
  return {
    store,
    async reopen() {
      await store.close();
      store = await open();
      return store;
    },
    async cleanup() {
      await store.close();
      await rm(folder, { recursive: true });
    },
  };
});
