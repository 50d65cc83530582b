import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../test/influxd.js';
import { runStoreContract } from '../contract/contract.js';
import { openInfluxdbStore } from './influxdb-store.js';

const influxd = influxdOfThisFile();
const spool = spoolOfTest();

runStoreContract(testWithInfluxd, 'InfluxDB', async () => {
  const { url, org, token, createBucket, deleteBucket } = await influxd();
  const bucket = await createBucket();
  const options = { url, org, bucket, token, ...spool, timeoutMs: 120_000 }; // the contract is not about speed
  let store = await openInfluxdbStore(options, { log: quietLog });
  return {
    store,
    reopen: async () => {
      await store.close();
      store = await openInfluxdbStore(options, { log: quietLog });
      return store;
    },
    cleanup: async () => {
      await store.close();
      await deleteBucket(bucket);
    },
  };
});
