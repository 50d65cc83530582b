/** The demo as a program, and what its parts promise each other. */
import { readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { collectorConfigFrom, collectorSettings } from '../collector/config.js';
import { createDecoder } from '../collector/decode/decode.js';
import { caddyLine } from '../demo/caddy-line.js';
import { seedDay } from '../demo/seed.js';
import { createTraffic } from '../demo/traffic.js';
import { createLog } from '../shared/log.js';
import { createRecorder } from '../shared/record/recorder.js';
import type { RequestEvent } from '../shared/request-event.js';
import { levelRetentionMsMax, levelsOf, windowStart } from '../shared/rollup/rollup.js';
import { readSettings } from '../shared/settings/settings.js';
import { openStore } from '../shared/store/open.js';
import type { Store } from '../shared/store/store.js';
import { folderOf, runProgram, temporaryFolder } from './program.js';
import { until } from './until.js';
import { aggregateOf } from './rollup-rows.js';

const startMs = Date.now();

test("the collector reads the demo's lines as the requests that they were made from", (t) => {
  const decoder = createDecoder(collectorConfigFrom(readSettings(collectorSettings, {})));
  const requests = createTraffic({ seed: 3, requestsPerDay: 1_000_000, startMs }).requestsOf(-12_000);
  for (let offsetS = -11_999; requests.length < 500; offsetS += 1)
    requests.push(...createTraffic({ seed: offsetS, requestsPerDay: 1_000_000, startMs }).requestsOf(offsetS));
  for (const { edge } of requests) {
    const line = caddyLine(edge);
    const decoded = decoder.decode(line, edge.timeMs);
    if (decoded.kind !== 'request') return t.fail(`${decoded.kind}: ${line}`);
    const { durationMs, timeNs, ...rest } = decoded.event;
    t.like(rest, { ...edge, timeNs: undefined, durationMs: undefined, upstreamMs: edge.upstreamMs });
    t.true(Math.abs(timeNs - edge.timeNs) < 1000, 'to the microsecond');
    t.true(Math.abs(durationMs! - edge.durationMs!) < 0.01);
  }
});

test('a seed gives the same totals on any day, and every rollup level agrees with the requests within its retention', async (t) => {
  const [one, two] = await Promise.all([seeded(t), seeded(t)]);
  const totals = async ({ store, seededMs }: Seeded) => {
    const toMs = startMs + 86_400_000;
    const requests = await store.readRequests({ fromMs: 0, toMs, filter: {}, limit: 100_000 });
    const totalOf = (some: readonly RequestEvent[]) => ({
      count: some.length,
      sizeSum: some.reduce((sum, { size }) => sum + size, 0),
    });
    for (const scope of ['all', 'host'] as const)
      for (const level of levelsOf[scope]) {
        const fromMs = Number.isFinite(levelRetentionMsMax(level, scope))
          ? windowStart(seededMs - levelRetentionMsMax(level, scope), level) + level * 1000
          : 0;
        const { count, sizeSum } = aggregateOf(await store.readRollups({ fromMs, toMs, level, scope, filter: {} }));
        t.deepEqual(
          { count, sizeSum },
          totalOf(requests.filter(({ timeMs }) => timeMs >= fromMs)),
          `${scope}, level ${level}`,
        );
        // What became too old while the day was made up may be written or not.
        const tooOldMs = startMs - levelRetentionMsMax(level, scope) - level * 1000;
        if (tooOldMs > 0)
          t.deepEqual(
            await store.readRollups({ fromMs: 0, toMs: tooOldMs, level, scope, filter: {} }),
            [],
            `${scope}, level ${level}, too old`,
          );
      }
    return totalOf(requests);
  };
  const total = await totals(one);
  t.true(total.count > 3000, String(total.count));
  t.is(total.count, one.requests);
  t.deepEqual(await totals(two), total);
});

test('while it makes up its day the demo says how far it is', async (t) => {
  const percents: number[] = [];
  const requests = await seedDay(
    createTraffic({ seed: 7, requestsPerDay: 50_000, startMs }),
    { record: () => true, flush: () => Promise.resolve() },
    { onPercent: (percent) => percents.push(percent) },
  );
  t.true(percents.length > requests / 30_000, percents.join(' '));
  t.deepEqual(
    percents,
    [...new Set(percents)].toSorted((a, b) => a - b),
  );
  t.is(percents.at(-1), 100);
  t.true(
    percents.slice(0, -1).every((percent) => percent > 0 && percent < 100),
    percents.join(' '),
  );
});

test('the demo takes free ports where the usual ones are in use, shows both sources, lets requests come in, and leaves nothing behind', async (t) => {
  for (const port of [3000, 9514]) {
    const server = createServer();
    server.once('error', () => undefined); // something else has it: so much the better
    server.listen(port, '127.0.0.1');
    t.teardown(() => server.close());
  }
  const folder = await folderOf(t);
  const demo = await runProgram(['demo', '--requests', '30000'], { TMPDIR: folder });
  const url = await until('it says where the page is', () => /Dashboard +(http:\S+)/.exec(demo.stdout())?.[1], {
    waitMsMax: 120_000,
  });
  t.not(new URL(url).port, '3000');
  t.regex(demo.stdout(), /^Generating a day of traffic:( \d+ %)+ 100 %, [\d,]+ requests in /m);
  const { sources } = (await (await fetch(`${url}/api/summary?from=now-24h`)).json()) as {
    sources: Record<string, { requests: number }>;
  };
  t.deepEqual(Object.keys(sources), ['caddy', 'shop']);
  t.true(sources['caddy']!.requests > 20_000 && sources['shop']!.requests > 5000, JSON.stringify(sources));
  await until('lines come in', async () => {
    const { collectors } = (await (await fetch(`${url}/api/ledger`)).json()) as {
      collectors: Record<string, { accepted: number; received: number }>;
    };
    const ledger = collectors['demo'];
    return ledger !== undefined && ledger.accepted > 0 && ledger.accepted === ledger.received;
  });
  t.is((await readdir(folder)).length, 1);
  t.is(await demo.stop('SIGINT'), 0, demo.stderr());
  t.deepEqual(await readdir(folder), []);
});

test('with --dir the store is kept, and is not made up a second time', async (t) => {
  const folder = await folderOf(t);
  const settings = { WEB_LISTEN: '127.0.0.1:0', COLLECTOR_LISTEN: 'tcp://127.0.0.1:0' };
  const demo = await runProgram(['demo', '--requests', '1000', '--dir', 'kept'], settings, { cwd: folder });
  await until('it serves', () => demo.stdout().includes('Dashboard'));
  t.is(await demo.stop(), 0, demo.stderr());
  t.deepEqual(await readdir(join(folder, 'kept')), ['requests.duckdb']);
  const again = await runProgram(['demo', '--dir', 'kept'], settings, { cwd: folder });
  t.is(await again.ended, 2);
  t.regex(again.stderr(), /it contains requests\.duckdb.*STORE=duckdb:kept\/requests\.duckdb npm start/);
});

test('a demo whose terminal is closed while it makes up its day leaves nothing behind', async (t) => {
  const folder = await folderOf(t);
  const demo = await runProgram(['demo', '--requests', '1000000'], {
    TMPDIR: folder,
    WEB_LISTEN: '127.0.0.1:0',
    COLLECTOR_LISTEN: 'tcp://127.0.0.1:0',
  });
  await until('it has begun', () => demo.stdout().includes('Generating'));
  t.is(await demo.stop('SIGHUP'), 0, demo.stderr());
  t.deepEqual(await readdir(folder), []);
});

const refused = test.macro({
  async exec(t, args: string[], settings: Record<string, string>, message: RegExp) {
    const folder = await folderOf(t);
    await writeFile(join(folder, 'a-file'), '');
    const demo = await runProgram(['demo', ...args], settings, { cwd: folder });
    t.is(await demo.ended, 2);
    t.regex(demo.stderr(), message);
    t.is(demo.stderr().trimEnd().split('\n').length, 1);
  },
  title: (given = '', args: string[]) => `demo ${args.join(' ')} is refused ${given}`.trim(),
});

test(refused, ['--seed', 'x'], {}, /--seed is "x": it must be a whole number from 0/);
test(refused, ['--requests', '999'], {}, /--requests is "999": it must be a whole number from 1000 to 1000000/);
test(refused, ['--requests='], {}, /--requests is/);
test(
  'for a folder that holds something',
  refused,
  ['--dir', '.'],
  {},
  /--dir is "\.": it must be a new or an empty folder, but it contains a-file/,
);
test(refused, ['--dir', 'a-file'], {}, /--dir is "a-file": it must be a new or an empty folder/);
test(refused, ['now'], {}, /demo takes no arguments/);
test('without TCP', refused, [], { COLLECTOR_LISTEN: 'udp://127.0.0.1:0' }, /COLLECTOR_LISTEN is "udp:.*needs a tcp:/);
test('when open to strangers', refused, [], { WEB_LISTEN: ':3000' }, /DASHBOARD_PASSWORD/);

interface Seeded {
  readonly store: Store;
  readonly requests: number;
  /** When the last request was recorded, in milliseconds since 1970. */
  readonly seededMs: number;
}

async function seeded(t: ExecutionContext): Promise<Seeded> {
  const folder = await temporaryFolder();
  const log = createLog('test', { write: () => undefined });
  const dayMs = 86_400_000;
  const store = await openStore(
    {
      kind: 'duckdb',
      path: join(folder, 'requests.duckdb'),
      retention: { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs },
    },
    { log },
  );
  const recorder = createRecorder({ store, log, name: 'shop', hostsMax: 200, clientIp: 'truncated' });
  const requests = await seedDay(createTraffic({ seed: 7, requestsPerDay: 3000, startMs }), recorder);
  t.teardown(async () => {
    await recorder.close();
    await store.close();
    await rm(folder, { recursive: true });
  });
  return { store, requests, seededMs: Date.now() };
}
