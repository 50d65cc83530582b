import { seedDay } from '../demo/seed.js';
import { createTraffic } from '../demo/traffic.js';
import { createLog } from '../shared/log.js';
import { createRecorder } from '../shared/record/recorder.js';
import { openStore } from '../shared/store/open.js';

/**
 * Makes a DuckDB file with a day of the demo's traffic, totals and lists included; resolves to how many requests it
 * has.
 */
export async function makeDay(path: string): Promise<number> {
  const log = createLog('bench', { write: () => undefined });
  const store = await openStore(
    { kind: 'duckdb', path, retention: { requestsMs: 7 * 86_400_000, rollupsMs: 400 * 86_400_000 } },
    { log },
  );
  const recorder = createRecorder({
    store,
    log,
    name: 'bench',
    hostsMax: 200,
    clientIp: 'truncated',
    memoryBytesMax: 2 ** 30,
  });
  const requests = await seedDay(createTraffic({ seed: 1, requestsPerDay: 200_000, startMs: Date.now() }), recorder);
  await recorder.close();
  await store.close();
  return requests;
}
