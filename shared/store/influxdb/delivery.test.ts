import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd } from '../../../test/influxd.js';
import { startProxy, type Proxy, type ProxyAct } from '../../../test/proxy.js';
import { until } from '../../../test/until.js';
import { createRecorder } from '../../record/recorder.js';
import type { RequestEvent } from '../../request-event.js';
import { levelsOf } from '../../rollup/rollup.js';
import { openSpool } from '../spool/spool.js';
import { readDeadLetter } from '../open.js';
import type { Store } from '../store.js';
import { openInfluxdbStore } from './influxdb-store.js';
import { requestLine } from './request-line.js';
import { bodiesOf, compress, decodePayload, encodePayload, joinBodies, linesIn } from './payload.js';
import { SpooledWriter } from './spooled-writer.js';
import { emptyRequest } from '../../../test/empty-request.js';

const influxd = influxdOfThisFile();
const startMs = Date.UTC(2026, 10, 23, 20);
/** All levels retain requests of this time. */
const now = (): number => startMs + 60_000;
const range = { fromMs: startMs - 86_400_000, toMs: startMs + 86_400_000 };

test('decodes bodies line by line with any text, and joins bodies without decoding', async (t) => {
  const text = fc.string({ unit: fc.constantFrom('\\', '"', '\n', 'a', ' ', ',', '=') });
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({ uri: text, userAgent: text, host: fc.string({ unit: fc.constantFrom('"', '\\', ' ', 'a') }) }),
        { minLength: 1, maxLength: 8 },
      ),
      async (texts) => {
        const requests = texts.map((each) => event(each));
        const expected = requests.map((request) => requestLine(request, 'r'));
        const bodies = bodiesOf({
          recorder: 'r',
          writer: 'w',
          sequence: 1,
          requests,
          aggregates: [],
          rollups: [],
          topLists: [],
          ledger: undefined,
        });
        t.deepEqual(await linesIn(decodePayload(encodePayload(bodies))[0]!), expected);
        const twice = joinBodies([...bodies, compress(`${expected[0]!}\n`, 1)]);
        t.is(twice.lines, expected.length + 1);
        t.deepEqual(await linesIn(twice), [...expected, expected[0]!]);
      },
    ),
    { numRuns: 50 },
  );
});

test('finds the lines of a body with a row of megabytes, and skips invalid lines', async (t) => {
  const long = `request_rollup,level=1m cells="${'GET 200 1,'.repeat(1_000_000)}" 1`;
  const lines = [requestLine(event({ uri: '/\n"\\', host: 'a "b' }), 'r'), long, 'm,t=\\ "a f="x" 1'];
  t.deepEqual(await linesIn(compress(`${lines.join('\n')}\nnone\n${lines.join('\n')}\nm f="no end\n`, 8)), [
    ...lines,
    ...lines,
  ]);
});

testWithInfluxd(
  'loses only the line that InfluxDB rejects, stores it with the reason, and corrects the rollups of all levels',
  async (t) => {
    await overProxy(t, async ({ store, spoolDir, recorder }) => {
      // An invalid time: 400 for the whole body. Added after the recorder, which would not let it pass.
      for (let at = 0; at < 300; at += 1)
        recorder.record(event({ uri: `/${at}`, timeMs: at === 123 ? 1e14 : startMs + at }));
      await until('all are settled', () => store.spool!.own.spooled === 0 && store.spool!.own.stored > 0);
      t.like(store.spool!.own, { stored: 299, deadLettered: 1 });
      await assertAgreement(t, store, 299);
      const folder = join(spoolDir, 'dead-letters');
      const [file] = await readdir(folder);
      const letters = await readFile(join(folder, file!), 'utf8');
      t.regex(letters, /^# \d{4}-.*400/m);
      t.true(letters.includes('uri="/123"'));
      t.false(letters.includes('uri="/122"'));
      const read = letters.trimEnd().split('\n').map(readDeadLetter);
      t.is(read[0], 'other');
      t.like(read[1], { uri: '/123', timeMs: 1e14, host: 'a.example', status: 200 });
    });
  },
);

testWithInfluxd('delivers all other lines when InfluxDB rejects a field type (422)', async (t) => {
  await overProxy(t, async ({ store, recorder, writeLines }) => {
    // Another program wrote a text into a numeric field, in the shard of this day.
    await writeLines(
      `request_metrics,host=other,method=GET,recorder=tested,source=caddy,status_code=200 upstream_ms="slow" ${startMs}000000`,
    );
    for (let at = 0; at < 100; at += 1)
      recorder.record(event({ uri: `/${at}`, upstreamMs: at % 10 === 0 ? 3 : null, timeMs: startMs + 1 + at }));
    await until('all are settled', () => store.spool!.own.spooled === 0 && store.spool!.own.stored > 0);
    t.like(store.spool!.own, { stored: 90, deadLettered: 10 });
    await assertAgreement(t, store, 90);
    const [row] = (await store.readRollups({ ...range, level: 60, scope: 'all', filter: {} })).filter(({ cells }) =>
      cells.some(({ count }) => count < 0),
    );
    t.like(
      row,
      { windowMs: startMs, source: 'caddy', host: undefined },
      'a refused request is taken out by a row of its own',
    );
  });
});

test('keeps requests in the spool when delivery fails for an unexpected reason', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  t.teardown(() => rm(dir, { recursive: true }));
  const spool = await openSpool({ dir, bytesMax: 2 ** 20, log: quietLog });
  let failures = 0;
  const delivery = {
    deliver: () => ((failures += 1) <= 2 ? Promise.reject(new RangeError('a bug of ours')) : Promise.resolve(0)),
  };
  const writer = new SpooledWriter({
    spool,
    delivery,
    stopping: new AbortController(),
    bytesMax: 2 ** 20,
    log: quietLog,
  });
  await writer.write({
    recorder: 'r',
    writer: 'w',
    sequence: 1,
    requests: [event({})],
    aggregates: [],
    rollups: [],
    topLists: [],
    ledger: undefined,
  });
  await until('it is delivered', () => writer.state.own.spooled === 0);
  t.like(writer.state.own, { stored: 1, deadLettered: 0 });
  t.is(failures, 3);
  await writer.close();
});

const interruptions: Readonly<Record<string, readonly ProxyAct[]>> = {
  'a busy server that asks for a delay': [{ status: 429, headers: { 'retry-after': '1' } }],
  'an unavailable server': [
    { status: 503 },
    { status: 500, body: 'x' },
    { status: 502, headers: { 'content-type': 'text/html' }, body: '<html>' },
  ],
  'a wrong token, bucket or organisation': [
    { status: 401, body: '{"message":"unauthorized"}' },
    { status: 403 },
    { status: 404 },
  ],
  'connection resets before and after the write': ['reset', 'reset-after', 'reset-after', 'reset'],
  'a response that never arrives': ['hang'],
};
for (const [title, acts] of Object.entries(interruptions)) {
  testWithInfluxd(`loses and duplicates nothing after ${title}`, async (t) => {
    await overProxy(t, async ({ store, recorder, proxy }) => {
      const left = [...acts];
      let problem: string | undefined;
      proxy.act = () => left.shift() ?? 'pass';
      for (let at = 0; at < 500; at += 1) recorder.record(event({ uri: `/${at}`, timeMs: startMs + at }));
      await until('all are stored', () => {
        problem ??= store.spool!.problem;
        return store.spool!.own.stored === 500;
      });
      t.truthy(problem, 'it was said');
      await until('it is over', () => store.spool!.problem === undefined);
      await assertAgreement(t, store, 500);
    });
  });
}

testWithInfluxd('sends small bodies to a proxy that rejects large ones (413 in HTML)', async (t) => {
  await overProxy(t, async ({ store, recorder, proxy }) => {
    proxy.act = ({ lines }) =>
      lines > 64
        ? { status: 413, headers: { 'content-type': 'text/html' }, body: '<html>413 Request Entity Too Large</html>' }
        : 'pass';
    for (let at = 0; at < 1000; at += 1) recorder.record(event({ uri: `/${at}`, timeMs: startMs + at }));
    await until('all are stored', () => store.spool!.own.stored === 1000);
    t.is(store.spool!.own.deadLettered, 0);
    await assertAgreement(t, store, 1000);
  });
});

testWithInfluxd('delivers spooled requests after a restart, before new ones', async (t) => {
  const { url, org, token, createBucket } = await influxd();
  const options = { org, bucket: await createBucket(), token, ...spoolOfTest() };
  const away = await openInfluxdbStore(
    { ...options, url: 'http://127.0.0.1:1' },
    { log: quietLog, spoolName: 'collector' },
  );
  const first = createRecorder({
    store: away,
    log: quietLog,
    name: 'tested',
    hostsMax: 10,
    clientIp: 'off',
    flushMs: 5,
    now,
  });
  for (let at = 0; at < 50; at += 1) first.record(event({ uri: `/old-${at}`, timeMs: startMs + at }));
  t.is(await first.close(), 0, 'nothing is lost: it is in the spool');
  t.is(away.spool!.own.spooled, 50);
  await away.close();
  const store = await openInfluxdbStore({ ...options, url }, { log: quietLog, spoolName: 'collector' });
  t.is(store.spool!.earlier.spooled + store.spool!.earlier.stored, 50);
  const second = createRecorder({
    store,
    log: quietLog,
    name: 'tested',
    hostsMax: 10,
    clientIp: 'off',
    flushMs: 5,
    now,
  });
  for (let at = 0; at < 50; at += 1) second.record(event({ uri: `/new-${at}`, timeMs: startMs + 100 + at }));
  await until('all are stored', () => store.spool!.own.stored === 50);
  t.deepEqual(store.spool!.earlier, { spooled: 0, stored: 50, deadLettered: 0 });
  await second.close();
  await assertAgreement(t, store, 100);
  await store.close();
});

testWithInfluxd('refuses a spool that another process uses', async (t) => {
  const { url, org, token, bucket } = await influxd();
  const options = { url, org, bucket, token, ...spoolOfTest() };
  const store = await openInfluxdbStore(options, { log: quietLog, spoolName: 'collector' });
  await t.throwsAsync(openInfluxdbStore(options, { log: quietLog, spoolName: 'collector' }), {
    message: /Another process uses the spool/,
  });
  const other = await openInfluxdbStore(options, { log: quietLog, spoolName: 'web' });
  await other.close();
  await store.close();
});

interface Rig {
  store: Store;
  recorder: ReturnType<typeof createRecorder>;
  proxy: Proxy;
  spoolDir: string;
  writeLines(text: string): Promise<void>;
}

/** A recorder with a spooled store, behind a proxy that can disrupt writes. */
async function overProxy(t: ExecutionContext, run: (rig: Rig) => Promise<void>): Promise<void> {
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const proxy = await startProxy(url);
  const spool = spoolOfTest();
  const store = await openInfluxdbStore(
    { url: proxy.url, org, bucket, token, timeoutMs: 1000, ...spool },
    { log: quietLog, spoolName: 'collector', now },
  );
  const recorder = createRecorder({
    store,
    log: quietLog,
    name: 'tested',
    hostsMax: 200,
    clientIp: 'full',
    flushMs: 10,
    now,
  });
  t.teardown(async () => {
    await recorder.close();
    await store.close();
    await proxy.stop();
  });
  await run({
    store,
    recorder,
    proxy,
    spoolDir: spool.spoolDir,
    async writeLines(body) {
      const answer = await fetch(`${url}/api/v2/write?${new URLSearchParams({ org, bucket }).toString()}`, {
        method: 'POST',
        body,
        headers: { authorization: `Token ${token}` },
      });
      t.is(answer.status, 204);
    },
  });
}

async function assertAgreement(t: ExecutionContext, store: Store, count: number): Promise<void> {
  const requests = await store.readRequests({ ...range, filter: {}, limit: 20_000 });
  t.is(new Set(requests.map(({ uri }) => uri)).size, count);
  t.is(requests.length, count);
  for (const scope of ['all', 'host'] as const) {
    for (const level of levelsOf[scope]) {
      const cells = (await store.readRollups({ ...range, level, scope, filter: {} })).flatMap((row) => row.cells);
      t.is(
        cells.reduce((sum, cell) => sum + cell.count, 0),
        count,
        `level ${level} of scope ${scope}`,
      );
      t.is(
        cells.reduce((sum, cell) => sum + cell.histogram.total, 0),
        count,
        `histograms of level ${level} of scope ${scope}`,
      );
    }
  }
}

function event(parts: Partial<RequestEvent>): RequestEvent {
  return {
    ...emptyRequest,
    source: 'caddy',
    timeMs: startMs,
    host: 'a.example',
    method: 'GET',
    status: 200,
    durationMs: 1.5,
    size: 10,
    ...parts,
  };
}
