/** What tests share that need the real InfluxDB. */
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { launchInfluxd, startInfluxd, type Influxd } from './influxd-server.js';
import { noteMissingPart } from './missing-part.js';
import { freePort } from './ports.js';

export { quietLog, spoolOfTest, startInfluxd, type Influxd } from './influxd-server.js';

/**
 * Declares a test that needs InfluxDB, one after the other; where there is none it is skipped, and the summary of the
 * tests says how to get it.
 */
export const testWithInfluxd: (title: string, run: (t: ExecutionContext) => Promise<void>) => void = chooseTest();

/**
 * One InfluxDB for all tests of a file: started when the first of them asks, stopped after the last. Call it once, at
 * the top.
 */
export function influxdOfThisFile(): () => Promise<Influxd> {
  let started: Promise<Influxd> | undefined;
  test.after.always('InfluxDB is stopped.', async () => {
    await (await started?.catch(() => undefined))?.stop();
  });
  return () => (started ??= startInfluxd());
}

/** Starts an InfluxDB that nobody has set up; it ends with the test. */
export async function startFreshInfluxd(t: ExecutionContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'caddy-log-sink-influxd-'));
  const port = await freePort();
  const server = await launchInfluxd(directory, port);
  t.teardown(async () => {
    const ended = once(server, 'exit');
    server.kill('SIGKILL');
    await ended;
    await rm(directory, { recursive: true, force: true });
  });
  return `http://127.0.0.1:${port}`;
}

function haveInfluxd(): boolean {
  if (process.env['INFLUXDB_URL'] !== undefined) return true;
  return (process.env['PATH'] ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, 'influxd'), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function chooseTest(): typeof testWithInfluxd {
  if (haveInfluxd()) return test.serial;
  noteMissingPart(
    'tests with InfluxDB: influxd is not on the PATH. Install InfluxDB 2.7 (https://docs.influxdata.com/influxdb/v2/install/), or set INFLUXDB_URL, INFLUXDB_ORG and INFLUXDB_TOKEN.',
  );
  return test.skip;
}
