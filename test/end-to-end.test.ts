/** The whole way on real parts: Caddy or its lines, the program as processes of their own, both stores, the API. */
import { once } from 'node:events';
import { createServer, request as httpRequest } from 'node:http';
import { rm } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import type { LedgerJson } from '../shared/store/ledger-json.js';
import { logTo, startCaddy, testWithCaddy } from './caddy.js';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { freePorts } from './ports.js';
import { readLedger, startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { openConnection, readSample, sendTcp, sendUdp } from './sample.js';
import { until } from './until.js';

const influxd = influxdOfThisFile();
const sample = readSample();

/** What a program that was stopped left behind: its exit status, and the counts that it logged last. */
interface StopReport {
  status: number | string;
  received: number;
  accepted: number;
  stored: number;
  spooled: number;
}

/** The product as its user runs it over one store. */
interface Product {
  readonly port: number;
  readonly url: string;
  /** Ends the collector (and what shares its process) with SIGTERM. */
  stopCollector(): Promise<StopReport>;
  /** Starts it again over the same data. */
  restartCollector(): Promise<void>;
  /** What the collector itself says of its lines. */
  ledger(): Promise<LedgerJson>;
  stop(): Promise<void>;
}

interface SourceSummary {
  requests: number;
  errors: number;
  bytes: number;
  statuses: Record<string, number>;
}
interface Summary {
  complete: boolean;
  sources: Record<string, SourceSummary>;
}

const stores: readonly {
  name: string;
  testWith: (title: string, run: (t: ExecutionContext) => Promise<void>) => void;
  start: () => Promise<Product>;
}[] = [
  { name: 'the embedded store', testWith: test.serial, start: startEmbedded },
  { name: 'InfluxDB', testWith: testWithInfluxd, start: startOverInfluxdb },
];

for (const { name, testWith, start } of stores) {
  const scenario = (
    title: string,
    run: (t: ExecutionContext, product: Product) => Promise<void>,
    declare = testWith,
  ): void => {
    declare(`${title} over ${name}`, async (t) => {
      t.timeout(120_000);
      const product = await start();
      try {
        await run(t, product);
      } finally {
        await product.stop();
      }
    });
  };

  scenario('50,000 lines over TCP in any chunking are 50,000 requests', async (t, product) => {
    const third = Math.ceil(sample.bytes.length / 3);
    const [first, second] = [third, 2 * third].map((at) => sample.bytes.indexOf(0x0a, at) + 1) as [number, number];
    await Promise.all([
      sendTcp(product.port, sample.bytes.subarray(0, first), [65_536]),
      sendTcp(product.port, sample.bytes.subarray(first, second), [1, 2, 3, 5000, 764, 70_001]),
      sendTcp(product.port, sample.bytes.subarray(second), [17, 1448, 30_011]),
    ]);
    await untilStored(product, 50_000);
    await assertSample(t, product);
  });

  scenario('50,000 lines over UDP, at a pace that the kernel holds, are 50,000 requests', async (t, product) => {
    await sendUdp(product.port, sample.lines, {
      burst: 100, // 77 KB; a receive buffer has 208 KiB by default
      received: (count) =>
        until(`${count} datagrams came in`, async () => (await product.ledger()).received === count, {
          pollMs: 1,
        }).then(() => undefined),
    });
    await untilStored(product, 50_000);
    await assertSample(t, product);
  });

  scenario('SIGTERM in the middle of 50,000 lines stores everything that was received', async (t, product) => {
    const socket = await openConnection(product.port);
    socket.on('error', () => undefined); // the collector goes away in the middle
    const closed = new Promise((resolve) => socket.once('close', resolve));
    let sent = 0;
    const sending = (async () => {
      for (; sent < sample.lines.length && !socket.destroyed; sent += 50) {
        const fits = socket.write(`${sample.lines.slice(sent, sent + 50).join('\n')}\n`);
        await (fits ? turn() : Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed]));
      }
    })();
    await until('the lines are under way', async () => (await product.ledger()).received > 5000);
    const { status, received, accepted, stored, spooled } = await product.stopCollector();
    await sending;
    socket.destroy();
    t.is(status, 0);
    t.true(accepted > 5000 && accepted <= 50_000, `${accepted} were accepted`);
    t.true(received - accepted <= 1, 'at most the line that the end cut in two was not accepted');
    t.is(stored + spooled, accepted, 'the store delivers what is spooled after the collector has stopped');
    await product.restartCollector();
    const { caddy } = (await ask<Summary>(product, `/api/summary?${sample.range}`)).sources;
    t.is(caddy!.requests, accepted);
  });

  scenario(
    'what real Caddy served is what the summary says, by source and status',
    async (t, product) => {
      const [site, proxy] = await freePorts(2);
      const backend = createServer((_, response) => {
        response.end('ok');
      }).listen(0, '127.0.0.1');
      await once(backend, 'listening');
      const log = logTo(`tcp/127.0.0.1:${product.port}`);
      const caddy = await startCaddy(`{
      auto_https off
      log default {
        output net tcp/127.0.0.1:${product.port} {
          soft_start
        }
      }
    }
    http://site.test:${site} {
      ${log}
      respond /missing 404
      respond /broken 500
      respond /elsewhere 302
      reverse_proxy /dead 127.0.0.1:1
      reverse_proxy 127.0.0.1:${(backend.address() as AddressInfo).port}
    }
    http://dashboard.test:${proxy} {
      ${log}
      reverse_proxy ${product.url.replace('http://', '')}
    }`);
      try {
        const from = new Date().toISOString();
        const wanted: Record<string, number> = { '/': 40, '/missing': 12, '/broken': 3, '/elsewhere': 5, '/dead': 4 };
        for (const [path, count] of Object.entries(wanted)) {
          for (let at = 0; at < count; at += 1) await visit(site!, 'site.test', path);
        }
        for (let at = 0; at < 7; at += 1) t.is(await visit(proxy!, 'dashboard.test', '/api/ping'), 200);
        t.is(await visit(proxy!, 'dashboard.test', '/no/such/page'), 404);

        const onSite = `/api/summary?from=${from}&to=now&source=caddy&host=site.test:${site}`;
        await until(
          'the requests are on the page',
          async () => (await ask<Summary>(product, onSite)).sources['caddy']?.requests === 64,
        );
        const summary = await ask<Summary>(product, onSite);
        t.deepEqual(summary.sources['caddy']?.statuses, { 200: 40, 302: 5, 404: 12, 500: 3, 502: 4 });
        t.is(summary.sources['caddy']?.errors, 7, 'http.log.error lines of the same requests changed nothing');

        const atEdge = `/api/summary?from=${from}&to=now&source=caddy&host=dashboard.test:${proxy}`;
        await until(
          'the edge has logged them',
          async () => (await ask<Summary>(product, atEdge)).sources['caddy']?.requests === 8,
        );
        t.deepEqual((await ask<Summary>(product, atEdge)).sources['caddy']?.statuses, { 200: 7, 404: 1 });
        // The app saw the same requests, under the host that the proxy passed on.
        const atApp = `/api/summary?from=${from}&to=now&source=dashboard&host=dashboard.test:${proxy}`;
        await until(
          'the app has measured them',
          async () => (await ask<Summary>(product, atApp)).sources['dashboard']?.requests === 8,
        );
        t.deepEqual((await ask<Summary>(product, atApp)).sources['dashboard']?.statuses, { 200: 7, 404: 1 });

        const ledger = await product.ledger();
        t.is(ledger.accepted, 72);
        t.true(ledger.runtime >= 4, "Caddy's own log came down the same socket, with an error line for each 502");
        t.deepEqual(ledger.rejected, {});
        t.is(ledger.received, ledger.accepted + ledger.runtime);
      } finally {
        await caddy.stop();
        backend.close();
      }
    },
    name === 'InfluxDB' ? bothOf(testWithCaddy, testWithInfluxd) : testWithCaddy,
  );
}

/** A test that needs two real parts is skipped when either is missing. */
function bothOf(one: typeof testWithCaddy, other: typeof testWithInfluxd): typeof testWithCaddy {
  return (one as unknown) === test.skip ? one : other;
}

async function startEmbedded(): Promise<Product> {
  const cwd = await temporaryFolder();
  const [port, http, webPort] = (await freePorts(3)) as [number, number, number];
  const settings = {
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${port},udp://127.0.0.1:${port}`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    COLLECTOR_ID: 'tested',
    WEB_LISTEN: `127.0.0.1:${webPort}`,
  };
  const start = (): Promise<RunningProgram> =>
    startProgram(['start'], settings, [`http://127.0.0.1:${webPort}/ready`, `http://127.0.0.1:${http}/ready`], { cwd });
  let program = await start();
  return {
    port,
    url: `http://127.0.0.1:${webPort}`,
    stopCollector: () => stopCounting(program),
    async restartCollector() {
      program = await start();
    },
    ledger: () => readLedger(http),
    async stop() {
      await program.stop();
      await rm(cwd, { recursive: true, force: true });
    },
  };
}

async function startOverInfluxdb(): Promise<Product> {
  const { url, org, createBucket, createToken } = await influxd();
  const [port, http, webPort] = (await freePorts(3)) as [number, number, number];
  const bucket = await createBucket();
  const store = { STORE: 'influxdb', INFLUXDB_URL: url, INFLUXDB_ORG: org, INFLUXDB_BUCKET: bucket };
  const writeOnly = await createToken(bucket, ['write']);
  const start = (): Promise<RunningProgram> =>
    startProgram(
      ['collector'],
      {
        ...store,
        INFLUXDB_TOKEN: writeOnly,
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${port},udp://127.0.0.1:${port}`,
        COLLECTOR_HTTP: `127.0.0.1:${http}`,
        COLLECTOR_ID: 'tested',
      },
      [`http://127.0.0.1:${http}/ready`],
    );
  const web = await startProgram(
    ['web'],
    { ...store, INFLUXDB_TOKEN: await createToken(bucket, ['read', 'write']), WEB_LISTEN: `127.0.0.1:${webPort}` },
    [`http://127.0.0.1:${webPort}/ready`],
  );
  const collector = await start();
  return {
    port,
    url: `http://127.0.0.1:${webPort}`,
    stopCollector: () => stopCounting(collector),
    restartCollector: () => Promise.resolve(), // the web app is a process of its own, and goes on
    ledger: () => readLedger(http),
    async stop() {
      await Promise.all([collector.stop(), web.stop()]);
    },
  };
}

async function untilStored(product: Product, count: number): Promise<void> {
  await until(`${count} requests are stored`, async () => (await product.ledger()).stored === count, {
    waitMsMax: 60_000,
  });
}

/** The summary, the newest requests and the ledger all tell of the sample, exactly. */
async function assertSample(t: ExecutionContext, product: Product): Promise<void> {
  const { sources, complete } = await ask<Summary>(product, `/api/summary?${sample.range}`);
  t.true(complete);
  t.like(sources['caddy'], {
    requests: 50_000,
    statuses: sample.statuses,
    bytes: sample.sizeSum,
    errors: Object.entries(sample.statuses).reduce(
      (sum, [status, count]) => sum + (Number(status) >= 500 ? count : 0),
      0,
    ),
  });
  const raw = await ask<{ time: string }[]>(product, `/api/requests?${sample.range}&source=caddy&limit=1000`);
  t.is(new Set(raw.map(({ time }) => time)).size > 990, true, 'times are kept to the nanosecond');
  const live = await product.ledger();
  const stored = await ask<{ collectors: Record<string, LedgerJson> }>(product, '/api/ledger');
  t.like(live, stored.collectors['tested']!, 'the stored ledger is what the collector says');
  t.like(live, { received: 50_000, accepted: 50_000, stored: 50_000, in_memory: 0, rejected: {}, dropped: {} });
}

async function stopCounting(program: RunningProgram): Promise<StopReport> {
  const status = await program.stop();
  const [, received, accepted, stored, spooled] =
    /collector: Stopped\. received=(\d+) accepted=(\d+) stored=(\d+) spooled=(\d+)/.exec(program.stderr()) ?? [];
  return {
    status,
    received: Number(received),
    accepted: Number(accepted),
    stored: Number(stored),
    spooled: Number(spooled),
  };
}

async function ask<Answer>({ url }: Product, path: string): Promise<Answer> {
  const response = await fetch(url + path);
  if (!response.ok) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  return (await response.json()) as Answer;
}

/** Requests a path of a site by its name, and gives the status. */
function visit(port: number, host: string, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    httpRequest({ host: '127.0.0.1', port, path, headers: { host: `${host}:${port}` }, agent: false }, (response) => {
      response.resume().on('end', () => {
        resolve(response.statusCode!);
      });
    })
      .on('error', reject)
      .end();
  });
}
