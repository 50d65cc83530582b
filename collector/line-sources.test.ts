import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { createLog } from '../shared/log.js';
import { readSettings } from '../shared/settings/settings.js';
import { openStore } from '../shared/store/open.js';
import { storeSettings, storeSettingsFrom } from '../shared/settings/store-settings.js';
import { temporaryFolder } from '../test/program.js';
import { readSample } from '../test/sample.js';
import { until } from '../test/until.js';
import { collectorConfigFrom, collectorSettings } from './config.js';
import { LineSources, type LineSourceJson } from './line-sources.js';
import { startCollector } from './collector.js';

const line = readSample().lines[0]!;
const fiveMinutesMs = 300_000;

test('reports a clock that is minutes ahead in the ledger, the metrics and the log, per connection', async (t) => {
  const { logged, tcp, page, metrics, warnings } = await start(t);
  const [ahead, inTime] = [await open(tcp), await open(tcp)];
  for (const socket of [inTime, ahead]) socket.write(lineOf(0));
  ahead.write(lineOf(-fiveMinutesMs));
  await until('it is a warning', () => warnings()['clock-skew']);
  t.is(warnings()['clock-skew'], 300);
  const connections = await page();
  t.deepEqual(
    connections.map(({ peer, lines }) => [peer, lines]),
    [
      [peerOf(ahead), 2],
      [peerOf(inTime), 1],
    ],
  );
  t.true(Math.abs(connections[0]!.clock_skew_ms! + fiveMinutesMs) < 2000);
  t.true(Math.abs(connections[1]!.clock_skew_ms!) < 2000);
  t.true(Math.abs(Date.parse(connections[0]!.since) - Date.now()) < 60_000);
  t.regex(await metrics(), /^caddy_log_sink_clock_skew_seconds_max (?:300|299|298)/m);
  const warned = logged.filter((text) => text.includes('clock'));
  t.is(warned.length, 1);
  t.regex(warned[0]!, /The clock of a Caddy is 300 s ahead of this machine's.* NTP\. peer="127\.0\.0\.1:\d+"/);
  ahead.destroy();
  await until('it is over', () => warnings()['clock-skew'] === undefined);
  t.is((await page()).length, 1);
});

test('reports a clock that stays minutes behind, over TCP and UDP', async (t) => {
  const { logged, tcp, udp, page, warnings } = await start(t);
  const socket = await open(tcp);
  const datagrams = createSocket('udp4');
  t.teardown(() => {
    datagrams.close();
  });
  await until('it is a warning', async () => {
    socket.write(lineOf(fiveMinutesMs));
    datagrams.send(lineOf(2 * fiveMinutesMs), udp, '127.0.0.1');
    return warnings()['clock-skew'] === 600 && (await page()).every(({ clock_skew_ms: skewMs }) => skewMs! > 290_000);
  });
  t.deepEqual(
    (await page()).map(({ peer }) => peer),
    ['127.0.0.1', peerOf(socket)],
  );
  t.regex(
    logged.join(''),
    /The clock of a Caddy is (?:300|600) s behind this machine's, or its lines take that long to arrive/,
  );
});

for (const [timeZone, offsetHours, setting] of [
  ['UTC', 2, 'COLLECTOR_TIME_ZONE=Etc/GMT-2'],
  ['Etc/GMT-5', 0, 'COLLECTOR_TIME_ZONE=UTC'],
  ['UTC', -3.5, 'COLLECTOR_TIME_ZONE to the IANA zone of that Caddy'],
] as const) {
  test(`names the setting that corrects times without a zone, read in ${timeZone} and written at UTC ${offsetHours}`, (t) => {
    const nowMs = Date.UTC(2026, 10, 23, 20);
    const sources = new LineSources({ now: () => nowMs, timeZone });
    const source = sources.open('10.0.0.1:1');
    const readOffsetHours = timeZone === 'UTC' ? 0 : 5;
    source.lagMsMin = (readOffsetHours - offsetHours) * 3_600_000 + 40;
    t.is(sources.zoneHint(source), undefined, 'the clock is wrong if the times have a zone');
    source.isWithoutZone = true;
    t.true(sources.zoneHint(source)?.includes(setting), sources.zoneHint(source));
    t.true(sources.json()[0]!.hint!.includes(setting));
    for (const offMs of [60_000, 3_600_000 * 20]) {
      source.lagMsMin = offMs + 300_000;
      t.is(sources.zoneHint(source), undefined, 'no time zone is that far off');
    }
  });
}

test('names the setting for console times in the local time zone of Caddy', async (t) => {
  const { logged, tcp, page } = await start(t);
  const socket = await open(tcp);
  const { logger, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  delete fields['ts'];
  const local = new Date(Date.now() + 7_200_000).toISOString().replace(/^(\d+)-(\d+)-(\d+)T(.*)Z$/, '$1/$2/$3 $4');
  socket.write(`${local}\tINFO\t${String(logger)}\t${String(msg)}\t${JSON.stringify(fields)}\n`);
  await until('it is in the log', () => logged.some((text) => text.includes('Set COLLECTOR_TIME_ZONE=Etc/GMT-2')));
  t.regex((await page())[0]!.hint!, /its clock shows UTC\+02:00\. Set COLLECTOR_TIME_ZONE=Etc\/GMT-2/);
});

test('does not report a backlog, or lines without a time, as skew', async (t) => {
  const { logged, tcp, page, warnings } = await start(t);
  const socket = await open(tcp);
  // A backlog drains: its lines get younger, until a fresh one follows.
  for (const lagMs of [600_000, 400_000, 200_000, 100_000, 50_000]) {
    socket.write(lineOf(lagMs));
    const before = (await page())[0]?.clock_skew_ms ?? Infinity;
    await until('half windows pass', async () => (await page())[0]!.clock_skew_ms! <= Math.min(before, lagMs + 5000));
  }
  socket.write(lineOf(0) + line.replace(/"ts":[\d.]+,?/, ''));
  await until('it is in time', async () => Math.abs((await page())[0]!.clock_skew_ms!) < 2000);
  t.is(warnings()['clock-skew'], undefined);
  t.deepEqual(
    logged.filter((text) => text.includes('clock')),
    [],
  );
});

test('keeps the skew of a quiet source, and limits the number of UDP senders', (t) => {
  const sources = new LineSources({ now: () => 0, sendersMax: 2, halfWindowMs: 0 });
  const quiet = sources.open('10.0.0.1:1');
  for (let at = 0; at < 2; at += 1) {
    quiet.lagMsMin = 60_000;
    for (let checks = 0; checks < 5; checks += 1) sources.checkSkew();
  }
  t.is(sources.checkSkew().largestMs, 60_000);
  t.is(sources.skewMsMax, 60_000);
  quiet.lagMsMin = 10;
  t.is(sources.checkSkew().largestMs, 0, 'one fresh line is enough');
  sources.close(quiet);
  for (const address of ['a', 'b', 'a', 'c']) sources.current = sources.sender(address);
  t.deepEqual(
    sources.json().map(({ peer, clock_skew_ms: skewMs }) => [peer, skewMs]),
    [
      ['a', null],
      ['c', null],
    ],
  );
});

test('logs connections and new UDP senders at the level debug', (t) => {
  const logged: unknown[] = [];
  const log = { debug: (...message: unknown[]) => void logged.push(message) };
  const sources = new LineSources({ log });
  const source = sources.open('10.0.0.1:1');
  source.lines += 3;
  sources.close(source);
  sources.close(source);
  for (let datagrams = 0; datagrams < 3; datagrams += 1) sources.sender('10.0.0.2');
  t.deepEqual(logged, [
    ['Connection opened.', { peer: '10.0.0.1:1' }],
    ['Connection closed.', { peer: '10.0.0.1:1', lines: 3 }],
    ['First datagram of a sender.', { peer: '10.0.0.2' }],
  ]);
});

function lineOf(lagMs: number): string {
  return `${line.replace(/"ts":[\d.]+/, `"ts":${(Date.now() - lagMs) / 1000}`)}\n`;
}

function peerOf(socket: Socket): string {
  return `127.0.0.1:${socket.localPort}`;
}

async function open(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  return socket;
}

/** Starts a collector on free ports with a separate store. */
async function start(t: ExecutionContext) {
  const folder = await temporaryFolder();
  const values = readSettings(
    { ...collectorSettings, ...storeSettings },
    {
      COLLECTOR_LISTEN: 'tcp://127.0.0.1:0,udp://127.0.0.1:0',
      COLLECTOR_HTTP: '127.0.0.1:0',
      COLLECTOR_ID: 'test',
      STORE: `duckdb:${join(folder, 'requests.duckdb')}`,
    },
  );
  const logged: string[] = [];
  const log = createLog('test', { write: (text) => logged.push(text) });
  const store = await openStore(storeSettingsFrom(values), { log });
  const collector = await startCollector(collectorConfigFrom(values), {
    store,
    log,
    hostsMax: 200,
    clientIp: 'full',
    skewHalfWindowMs: 200,
  });
  t.teardown(async () => {
    await collector.stop();
    await store.close();
    await rm(folder, { recursive: true, force: true });
  });
  const [tcp, udp] = collector.addresses.map((address) => (address.kind === 'unix' ? 0 : address.port)) as [
    number,
    number,
  ];
  const ask = async (path: string): Promise<Response> => await fetch(collector.httpUrl! + path);
  return {
    logged,
    tcp,
    udp,
    warnings: () => collector.ledger().warnings,
    page: async () =>
      ((await (await ask('/ledger')).json()) as { collectors: { test: { connections: LineSourceJson[] } } }).collectors
        .test.connections,
    metrics: async () => await (await ask('/metrics')).text(),
  };
}
