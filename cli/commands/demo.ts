import { join } from 'node:path';
import { UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { readSettings } from '../../shared/settings/settings.js';
import { storeSettings } from '../../shared/settings/store-settings.js';
import { collectorConfigFrom, collectorSettings } from '../../collector/config.js';
import type { ListenAddress } from '../../collector/listen/address.js';
import { webConfigFrom, webSettings } from '../../web/config.js';
import type { DemoArguments } from '../../demo/options.js';
import { startParts, stopSignals, type OnStarted } from '../lifecycle.js';
import type { CliCommand } from '../parse.js';
import { openStoreOf, recordingFrom, startCollectorOver } from '../parts.js';
import { caddyfileLines, welcome } from '../welcome.js';

// Always uses a separate store and ignores STORE.
const settings = { ...webSettings, COLLECTOR_LISTEN: collectorSettings.COLLECTOR_LISTEN };

/** A dashboard over generated traffic. */
export const demo: CliCommand<DemoArguments> = {
  name: 'demo',
  summary:
    'Shows the dashboard over a generated day of traffic and live requests. Needs no Caddy and leaves nothing behind. If a default port is in use, takes a free one.',
  settings,
  options: [
    ['--seed <number>', 'The same seed generates the same day. Default: 1.'],
    ['--requests <count>', 'Approximate number of requests to Caddy in a day, from 1000 to 1000000. Default: 100000.'],
    [
      '--dir <folder>',
      'Creates the store in this new or empty folder. Default: a temporary folder, removed at the end.',
    ],
  ],
  async run({ options, environment }) {
    const { demoOptionsFrom, makeFolder, orFreePort, storeFile } = await import('../../demo/options.js');
    const { seed, requestsPerDay, dir } = demoOptionsFrom(options);
    const configured = readSettings(settings, environment);
    webConfigFrom(configured, []);
    const tcp = configured.COLLECTOR_LISTEN.find(isTcp);
    if (tcp === undefined)
      throw new UsageError(
        `COLLECTOR_LISTEN is ${JSON.stringify(environment['COLLECTOR_LISTEN'])}: the demo needs a tcp:// address.`,
      );
    const listen = environment['COLLECTOR_LISTEN']
      ? configured.COLLECTOR_LISTEN
      : [{ ...tcp, ...(await orFreePort(tcp)) }];
    const webListen = environment['WEB_LISTEN'] ? configured.WEB_LISTEN : await orFreePort(configured.WEB_LISTEN);
    const values = {
      ...readSettings(storeSettings, { STORE: `duckdb:${join(makeFolder(dir), storeFile)}` }),
      ...configured,
      WEB_LISTEN: webListen,
    };

    const stopping = new AbortController();
    const interrupt = (): void => {
      if (stopping.signal.aborted) process.exit(1);
      stopping.abort();
    };
    for (const signal of stopSignals) process.on(signal, interrupt);
    try {
      return await startParts((onStarted) =>
        startDemo(values, { seed, requestsPerDay, dir, listen, signal: stopping.signal, onStarted }),
      );
    } catch (error) {
      if (stopping.signal.aborted) return 0;
      throw error;
    } finally {
      for (const signal of stopSignals) process.off(signal, interrupt);
    }
  },
};

/** The settings of the demo. */
type DemoValues = Parameters<typeof webConfigFrom>[0] & Parameters<typeof recordingFrom>[0];

interface DemoParts {
  readonly seed: number;
  readonly requestsPerDay: number;
  readonly dir: string | undefined;
  readonly listen: readonly ListenAddress[];
  readonly signal: AbortSignal;
  readonly onStarted: OnStarted;
}

async function startDemo(
  values: DemoValues,
  { seed, requestsPerDay, dir, listen, signal, onStarted }: DemoParts,
): Promise<void> {
  const [{ appSource, createTraffic }, { seedDay }, { startLive }, { createRecorder }, { startWeb }] =
    await Promise.all([
      import('../../demo/traffic.js'),
      import('../../demo/seed.js'),
      import('../../demo/live.js'),
      import('../../shared/record/recorder.js'),
      import('../../web/web.js'),
    ]);
  const log = createLog('demo');
  const recording = await recordingFrom(values);
  const store = await openStoreOf(values, 'collector', onStarted);
  const recorder = createRecorder({ store, log, name: appSource, ...recording });
  onStarted('workers', () => recorder.close());
  const [startMs, startedMs] = [Date.now(), performance.now()];
  const traffic = createTraffic({ seed, requestsPerDay, startMs });
  process.stdout.write('Generating a day of traffic:');
  const requests = await seedDay(traffic, recorder, {
    signal,
    onPercent: (percent) => process.stdout.write(` ${percent} %`),
  });
  process.stdout.write(
    `, ${requests.toLocaleString('en')} requests in ${((performance.now() - startedMs) / 1000).toFixed(1)} s.\n`,
  );

  const config = collectorConfigFrom({
    ...readSettings(collectorSettings, { COLLECTOR_HTTP: 'off' }),
    COLLECTOR_LISTEN: listen,
    COLLECTOR_ID: 'demo',
  });
  const { addresses } = await startCollectorOver(config, values, { recording, store, onStarted });
  // The page's own requests are not recorded: they are not part of the generated traffic.
  const web = await startWeb(webConfigFrom(values, caddyfileLines(addresses)), {
    store,
    recorder: { record: () => true },
    log: createLog('web'),
  });
  onStarted('workers', () => web.stop());
  const live = await startLive({ traffic, startMs, collector: addresses.find(isTcp)!, appRecorder: recorder, log });
  onStarted('ingress', () => live.stop());
  signal.throwIfAborted();
  process.stdout.write(welcome({ dashboard: web.url, addresses, store: store.description }));
  process.stdout.write(
    `The app had an incident about three hours ago: ${web.url}/?from=now-6h\nCtrl+C ends the demo${dir === undefined ? ' and removes its folder' : ''}.\n`,
  );
}

function isTcp(address: ListenAddress): address is Extract<ListenAddress, { kind: 'tcp' | 'udp' }> {
  return address.kind === 'tcp';
}
