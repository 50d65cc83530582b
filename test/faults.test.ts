/**
 * Faults, on the real InfluxDB and the real Caddy: lines with numbers of their own go in at 5,000 a second, and at the
 * end every number is looked for, the ledger has added up at every look, and the requests agree with every level of the
 * rollups.
 *
 * `npm test` runs a short form; `npm run faults` sets FAULTS=full for the long one.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ExecutionContext } from 'ava';
import { logTo, startCaddy, testWithCaddy } from './caddy.js';
import {
  assertExact,
  findAll,
  lineOf,
  startRig as startRigOf,
  startSender as startSenderTo,
  watch,
  type FaultRig,
  type Sender,
} from './fault-rig.js';
import { influxdOfThisFile, startInfluxd, testWithInfluxd } from './influxd.js';
import { freePorts } from './ports.js';
import { temporaryFolder } from './program.js';
import { startProxy as startProxyTo, type Proxy, type ProxyAct } from './proxy.js';
import { until } from './until.js';

const isFull = process.env['FAULTS'] === 'full';
/**
 * Also delays ava's check for hanging tests in all other files, which may then never run: avajs/ava `TimeoutTrigger`.
 */
const timeoutMs = isFull ? 1_200_000 : 240_000;
const perSecond = 5000;
const influxd = influxdOfThisFile();
/** The same at each run, another in each place that asks. */
const random = (seed: string): number => createHash('sha256').update(seed).digest().readUInt32BE() / 2 ** 32;

if (process.env['INFLUXDB_URL'] === undefined) {
  const kills = isFull ? 20 : 2;
  fault(`influxd killed with -9 and started again ${kills} times loses and doubles nothing`, async (t) => {
    const server = await startInfluxd();
    const rig = await startRig(t, server);
    const sender = startSender(t, rig.port, { perSecond });
    for (let at = 0; at < kills; at += 1) {
      await watch(rig, 500 + 1000 * random(`kill ${at}`));
      await server.kill();
      await watch(rig, 300 + 700 * random(`restart ${at}`));
      await server.restart();
    }
    await sender.stop();
    const ledger = await rig.settled();
    t.is(ledger.stored, sender.sentMs.length);
    t.deepEqual(await assertExact(t, server, rig, sender.sentMs.length), []);
    t.log(`${sender.sentMs.length} lines`);
    await server.stop();
  });

  const hangMs = isFull ? 120_000 : 3000;
  fault(`influxd that hangs for ${hangMs / 1000} s (SIGSTOP) loses and doubles nothing`, async (t) => {
    const server = await startInfluxd();
    const rig = await startRig(t, server);
    const sender = startSender(t, rig.port, { perSecond });
    await watch(rig, 1000);
    server.signal('SIGSTOP');
    await watch(rig, hangMs);
    server.signal('SIGCONT');
    await watch(rig, 1000);
    await sender.stop();
    const ledger = await rig.settled(600_000);
    t.is(ledger.stored, sender.sentMs.length);
    t.deepEqual(await assertExact(t, server, rig, sender.sentMs.length), []);
    t.log(`${sender.sentMs.length} lines`);
    await server.stop();
  });
}

fault('answers of every kind, one after the other, lose and double nothing', async (t) => {
  const server = await influxd();
  const proxy = await startProxy(t, server.url);
  const rig = await startRig(t, server, { url: proxy.url });
  const sender = startSender(t, rig.port, { perSecond });
  const html = { headers: { 'content-type': 'text/html' }, body: '<html>413 Request Entity Too Large</html>' };
  const acts: readonly ProxyAct[] = [
    { status: 401 },
    { status: 404 },
    { status: 429, headers: { 'retry-after': isFull ? '5' : '1' } },
    { status: 503 },
    { status: 413, ...html },
    'reset',
    'reset-after',
  ];
  for (let round = 0; round < (isFull ? 3 : 1); round += 1) {
    for (const act of acts) {
      let left = 1 + Math.floor((isFull ? 4 : 1) * random(`act ${round} ${JSON.stringify(act)}`));
      proxy.act = () => (left-- > 0 ? act : 'pass');
      await until(
        'it was met, and is over',
        async () => {
          await rig.ledger();
          return left < 0; // one write has passed
        },
        { waitMsMax: 120_000 },
      );
    }
  }
  await sender.stop();
  const ledger = await rig.settled();
  t.is(ledger.stored, sender.sentMs.length);
  t.deepEqual(await assertExact(t, server, rig, sender.sentMs.length), []);
  t.log(`${sender.sentMs.length} lines`);
});

const collectorKills = isFull ? 100 : 3;
fault(
  `the collector killed with -9 at ${collectorKills} random moments doubles nothing, and has all that it said it had`,
  async (t) => {
    const server = await influxd();
    const rig = await startRig(t, server);
    const sender = startSender(t, rig.port, { perSecond });
    const killedMs: number[] = [];
    let kept = 0;
    for (let at = 0; at < collectorKills; at += 1) {
      await watch(rig, 300 + 700 * random(`moment ${at}`));
      const { stored, spooled } = await rig.ledger();
      kept += stored + spooled;
      killedMs.push(performance.now());
      await rig.program.stop('SIGKILL');
      await rig.restart();
    }
    await watch(rig, 500);
    await sender.stop();
    const last = await rig.settled();
    kept += last.stored;
    const missing = await assertExact(t, server, rig, sender.sentMs.length);
    // How old each of them was when the collector died under it; those that were sent just afterwards went into a
    // connection that was gone, which the sender learns a moment later.
    const noticedMsMax = 500;
    const agesMs = missing.map((id) =>
      Math.min(
        ...killedMs
          .map((killMs) => killMs - sender.sentMs[id]!)
          .filter((age) => age > -noticedMsMax)
          .map((age) => Math.max(0, age))
          .concat(Infinity),
      ),
    );
    const worst = Math.max(0, ...agesMs);
    t.true(
      sender.sentMs.length - missing.length >= kept,
      `${kept} were said to be stored or spooled, ${sender.sentMs.length - missing.length} are there`,
    );
    t.log(
      `${sender.sentMs.length} lines, ${missing.length} lost, the oldest ${worst.toFixed(0)} ms before the kill, half of them ${(agesMs.toSorted((one, other) => one - other)[agesMs.length >> 1] ?? 0).toFixed(0)} ms`,
    );
  },
);

const terms = isFull ? 20 : 2;
fault(`the collector stopped with SIGTERM ${terms} times in the middle of traffic loses nothing`, async (t) => {
  const server = await influxd();
  const rig = await startRig(t, server);
  const sender = startSender(t, rig.port, { perSecond });
  let longestMs = 0;
  for (let at = 0; at < terms; at += 1) {
    await watch(rig, 300 + 700 * random(`term ${at}`));
    const startMs = performance.now();
    t.is(await rig.program.stop('SIGTERM'), 0);
    longestMs = Math.max(longestMs, performance.now() - startMs);
    await rig.restart();
  }
  await watch(rig, 500);
  await sender.stop();
  await rig.settled();
  const missing = await assertExact(t, server, rig, sender.sentMs.length);
  t.deepEqual(missing, []);
  t.log(`${sender.sentMs.length} lines, the longest stop ${longestMs.toFixed(0)} ms`);
});

/** A line of which half a kilobyte cannot be compressed. */
function noisyLineOf(id: number): string {
  const noise = Array.from({ length: 14 }, (_, at) =>
    createHash('sha256').update(`${id} ${at}`).digest('base64url'),
  ).join('');
  return lineOf(id).replace(`/id/${id}"`, `/id/${id}?${noise}"`);
}

fault(
  'a spool of 4 MB takes what fits of 20,000 lines or more, drops whole lines beyond it, and counts them',
  async (t) => {
    const server = await influxd();
    const proxy = await startProxy(t, server.url);
    proxy.act = () => ({ status: 503 });
    const rig = await startRig(t, server, {
      url: proxy.url,
      settings: { SPOOL_BYTES_MAX: '4MiB', MEMORY_BYTES_MAX: '2MiB' },
    });
    const sender = startSender(t, rig.port, { perSecond, line: noisyLineOf });
    // A busy machine fills the memory first: it takes more lines until the spool has refused some.
    await until(
      'the spool is full, and 20,000 were sent',
      async () => ((await rig.ledger()).dropped['spool-full'] ?? 0) > 0 && sender.sentMs.length >= 20_000,
    );
    await sender.stop();
    const sent = sender.sentMs.length;
    const full = await until('all have come in', async () => {
      const ledger = await rig.ledger();
      return ledger.received === sent && ledger;
    });
    t.true((full.dropped['spool-full'] ?? 0) > 0, JSON.stringify(full));
    t.true(full.spooled > 1000);
    proxy.act = () => 'pass';
    const ledger = await rig.settled();
    t.is(ledger.stored, ledger.accepted);
    const missing = await assertExact(t, server, rig, sent);
    t.is(missing.length, sent - ledger.accepted);
    t.true(missing[0]! > 1000, 'the oldest requests are stored');
    t.log(`${ledger.accepted} kept, ${missing.length} dropped`);
    const more = startSender(t, rig.port, { perSecond, linesMax: 100, line: (id) => lineOf(sent + id) });
    await until('there is room again', async () => (await rig.ledger()).stored === ledger.stored + 100);
    await more.stop();
  },
);

fault('a disk that is full, and freed again, costs only lines that are counted', async (t) => {
  const server = await influxd();
  const proxy = await startProxy(t, server.url);
  proxy.act = () => ({ status: 503 });
  const rig = await startRig(t, server, { url: proxy.url, settings: { MEMORY_BYTES_MAX: '4MiB' } });
  // The collector may make no larger files than its segments are now: writes fail as on a full disk, and no rights are
  // needed.
  const sender = startSender(t, rig.port, { perSecond, line: noisyLineOf });
  await until('something is spooled', async () => (await rig.ledger()).spooled > 1000);
  const limit = (bytes: string): Promise<unknown> =>
    promisify(execFile)('prlimit', [`--pid=${rig.program.pid}`, `--fsize=${bytes}:`]);
  await limit('20000');
  await until('the disk is full', async () => ((await rig.ledger()).dropped['disk-full'] ?? 0) > 1000);
  await limit('unlimited');
  const freed = await until('it is written again', async () => {
    const ledger = await rig.ledger();
    return ledger.in_memory < 2000 && ledger;
  });
  proxy.act = () => 'pass';
  await watch(rig, 500);
  await sender.stop();
  const ledger = await rig.settled();
  const dropped = Object.values(ledger.dropped).reduce((sum, count) => sum + count, 0);
  t.true(dropped >= (freed.dropped['disk-full'] ?? 0));
  t.is(ledger.stored, ledger.accepted);
  const missing = await assertExact(t, server, rig, sender.sentMs.length);
  t.is(missing.length, dropped);
  t.log(`${sender.sentMs.length} lines, ${dropped} dropped while the disk was full`);
});

/** Removes the whole folder in one moment: while it is emptied, the collector makes it again. */
async function removeSpool({ cwd }: FaultRig): Promise<void> {
  await rename(join(cwd, 'data/spool'), join(cwd, 'removed'));
  await rm(join(cwd, 'removed'), { recursive: true });
}

fault(
  'a spool folder that is removed while InfluxDB is away is made again, and what waited in the open segment is written again',
  async (t) => {
    const server = await influxd();
    const proxy = await startProxy(t, server.url);
    proxy.act = () => ({ status: 503 });
    const rig = await startRig(t, server, { url: proxy.url });
    const sender = startSender(t, rig.port, { perSecond });
    await until('something is spooled', async () => (await rig.ledger()).spooled > 3000);
    await removeSpool(rig);
    await until('the spool is there again', async () => {
      await rig.ledger();
      return /Files of the spool in .* were removed or replaced while it was in use\. Nothing is lost/.test(
        rig.program.stderr(),
      );
    });
    await watch(rig, 500);
    await sender.stop();
    t.is(await rig.program.stop(), 0); // what is appended to a removed file would be gone now
    proxy.act = () => 'pass';
    await rig.restart();
    await rig.settled();
    t.deepEqual(await assertExact(t, server, rig, sender.sentMs.length), []);
    t.log(`${sender.sentMs.length} lines`);
  },
);

fault(
  'a spool folder that is removed with full segments costs what was in them, counted as dead-lettered',
  async (t) => {
    const server = await influxd();
    const proxy = await startProxy(t, server.url);
    proxy.act = () => ({ status: 503 });
    const rig = await startRig(t, server, { url: proxy.url, settings: { SPOOL_BYTES_MAX: '16MiB' } });
    const sender = startSender(t, rig.port, { perSecond, line: noisyLineOf });
    await until(
      'several segments are there',
      async () =>
        (await readdir(join(rig.cwd, 'data/spool/collector'))).filter((name) => name.endsWith('.segment')).length > 3,
    );
    await removeSpool(rig);
    await until('the spool is there again', async () => {
      await rig.ledger();
      return /\d+ requests are lost: they are counted as dead-lettered/.test(rig.program.stderr());
    });
    proxy.act = () => 'pass';
    await watch(rig, 500);
    await sender.stop();
    const ledger = await rig.settled();
    const { times, doubled } = await findAll(server, rig.bucket);
    t.deepEqual(doubled, []);
    t.is(ledger.accepted, sender.sentMs.length);
    t.is(times.size, ledger.stored);
    t.is(Number(/(\d+) requests are lost/.exec(rig.program.stderr())![1]), ledger.dead_lettered);
    t.log(`${ledger.stored} stored, ${ledger.dead_lettered} lost`);
  },
);

if (isFull) {
  fault('a tmpfs of 8 MB that is really full, and freed again, costs only lines that are counted', async (t) => {
    const server = await influxd();
    const proxy = await startProxy(t, server.url);
    proxy.act = () => ({ status: 503 });
    const place = join(await temporaryFolder(), 'small');
    await mkdir(place);
    await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', place]);
    try {
      const rig = await startRig(t, server, {
        url: proxy.url,
        settings: { SPOOL_DIR: join(place, 'spool'), MEMORY_BYTES_MAX: '4MiB' },
      });
      await writeFile(join(place, 'filler'), Buffer.alloc(7.5 * 2 ** 20));
      const sender = startSender(t, rig.port, { perSecond, line: noisyLineOf });
      await until('the disk is full', async () => ((await rig.ledger()).dropped['disk-full'] ?? 0) > 1000);
      await rm(join(place, 'filler'));
      await until('it is written again', async () => (await rig.ledger()).in_memory < 2000);
      proxy.act = () => 'pass';
      await watch(rig, 500);
      await sender.stop();
      const ledger = await rig.settled();
      t.is((await assertExact(t, server, rig, sender.sentMs.length)).length, sender.sentMs.length - ledger.accepted);
      t.log(`${sender.sentMs.length} lines, ${sender.sentMs.length - ledger.accepted} dropped`);
    } finally {
      await promisify(execFile)('umount', ['--lazy', place]);
    }
  });
}

const peers = isFull ? 2000 : 200;
fault(
  `${peers} connections, some of them torn, with random bytes, an endless line and a slow peer beside them, lose only what was torn`,
  async (t) => {
    const server = await influxd();
    const rig = await startRig(t, server, {
      settings: { COLLECTOR_CONNECTIONS_MAX: '3000', COLLECTOR_LINE_BYTES_MAX: '64KiB' },
    });
    const slow = connect({ host: '127.0.0.1', port: rig.port }).on('error', () => undefined);
    const drip = setInterval(() => slow.write('x'), 1000);
    const endless = connect({ host: '127.0.0.1', port: rig.port }).on('error', () => undefined);
    const chunk = Buffer.alloc(2 ** 20, 'x');
    const endlessDone = (async () => {
      for (let at = 0; at < (isFull ? 1024 : 64); at += 1) if (!endless.write(chunk)) await once(endless, 'drain');
      endless.end('\n');
    })();
    const noise = connect({ host: '127.0.0.1', port: rig.port }).on('error', () => undefined);
    let noiseLines = 0;
    const lines = 50_000;
    const torn = new Set<number>();
    for (let from = 0, peer = 0; peer < peers; peer += 1) {
      const to = Math.floor((lines * (peer + 1)) / peers);
      const ids = Array.from({ length: to - from }, (_, at) => from + at);
      from = to;
      const socket = connect({ host: '127.0.0.1', port: rig.port });
      await once(socket, 'connect');
      const text = ids.map(lineOf).join('');
      if (peer % (peers / 20) === 7) {
        // Torn in the middle of its last line.
        const last = ids.at(-1)!;
        torn.add(last);
        socket.write(text.slice(0, -20), () => socket.destroy());
      } else {
        socket.end(text);
      }
      if (peer % 50 === 0) {
        const bytes = Buffer.from(
          Array.from({ length: 1000 }, (_, at) => Math.floor(256 * random(`noise ${peer} ${at}`))),
        );
        noise.write(bytes);
        noiseLines += bytes.filter((byte) => byte === 0x0a).length;
      }
    }
    await endlessDone;
    const ledger = await until(
      'all have come in',
      async () => {
        const now = await rig.ledger();
        return (
          now.accepted >= lines - torn.size &&
          now.in_memory + now.spooled === 0 &&
          (now.rejected['too-long'] ?? 0) > 0 &&
          now
        );
      },
      { waitMsMax: 120_000 },
    );
    t.is(ledger.accepted, lines - torn.size);
    t.is(ledger.rejected['too-long'], 1);
    t.true((ledger.rejected['not-json'] ?? 0) <= noiseLines + 1);
    clearInterval(drip);
    slow.destroy();
    noise.destroy();
    t.deepEqual(await assertExact(t, server, rig, lines), [...torn]);
  },
);

const stallMs = isFull ? 120_000 : 3000;
const perSecondCaddy = isFull ? 2000 : 200;
testWithCaddy(
  `Caddy at ${perSecondCaddy} requests a second does not notice that the store hangs for ${stallMs / 1000} s, and every request is counted`,
  async (t) => {
    t.timeout(timeoutMs);
    const server = await influxd();
    const proxy = await startProxy(t, server.url);
    const rig = await startRig(t, server, { url: proxy.url });
    const [site, silent] = (await freePorts(2)) as [number, number];
    const caddy = await startCaddy(`{
    auto_https off
  }
  http://127.0.0.1:${site} {
    ${logTo(`tcp/127.0.0.1:${rig.port}`)}
    respond "ok"
  }
  http://127.0.0.1:${silent} {
    log {
      output discard
    }
    respond "ok"
  }`);
    t.teardown(() => caddy.stop());
    proxy.act = () => 'hang';
    // In turn, so that neither has the other beside it, and both have what else the machine does.
    const turns = isFull ? 12 : 1;
    const seconds = Math.ceil(stallMs / 1000 / turns / 2);
    const logged: Load[] = [];
    const discarded: Load[] = [];
    for (let turn = 0; turn < turns; turn += 1) {
      discarded.push(await load(silent, perSecondCaddy, seconds));
      logged.push(await load(site, perSecondCaddy, seconds));
    }
    proxy.act = () => 'pass';
    const total = logged.reduce((sum, { requests }) => sum + requests, 0);
    await until('every request is counted', async () => (await rig.ledger()).received >= total, { waitMsMax: 60_000 });
    const ledger = await rig.settled(600_000);
    t.is(ledger.stored, total);
    t.is(
      [...logged, ...discarded].reduce((sum, { failed }) => sum + failed, 0),
      0,
    );
    const longestMs = Math.max(...logged.map(({ maxMs }) => maxMs));
    const p99 = (loads: readonly Load[]): string =>
      loads
        .map(({ p99Ms }) => p99Ms)
        .toSorted((one, other) => one - other)
        .join(' ');
    t.log(
      `${total} logged: p99 ${p99(logged)} ms, longest ${longestMs} ms; discarded: p99 ${p99(discarded)} ms, longest ${Math.max(...discarded.map(({ maxMs }) => maxMs))} ms`,
    );
    if (isFull) t.true(longestMs < 1000, `the longest request took ${longestMs} ms`);
  },
);

interface Load {
  readonly requests: number;
  readonly failed: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Requests at a fixed rate from a process of its own, each answered before it ends. */
async function load(port: number, rate: number, seconds: number): Promise<Load> {
  const program = fileURLToPath(new URL('../../node_modules/autocannon/autocannon.js', import.meta.url));
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [
      program,
      '--json',
      '--connections',
      '20',
      '--overallRate',
      String(rate),
      '--amount',
      String(rate * seconds),
      `http://127.0.0.1:${port}/`,
    ],
    { maxBuffer: 2 ** 24 },
  );
  const result = JSON.parse(stdout) as {
    '2xx': number;
    non2xx: number;
    errors: number;
    latency: { p99: number; max: number };
  };
  return {
    requests: result['2xx'],
    failed: result.non2xx + result.errors,
    p99Ms: result.latency.p99,
    maxMs: result.latency.max,
  };
}

async function startRig(t: ExecutionContext, ...args: Parameters<typeof startRigOf>): Promise<FaultRig> {
  const rig = await startRigOf(...args);
  t.teardown(() => rig.stop());
  return rig;
}

function startSender(t: ExecutionContext, ...args: Parameters<typeof startSenderTo>): Sender {
  const sender = startSenderTo(...args);
  t.teardown(() => sender.stop());
  return sender;
}

async function startProxy(t: ExecutionContext, target: string): Promise<Proxy> {
  const proxy = await startProxyTo(target);
  t.teardown(() => proxy.stop());
  return proxy;
}

function fault(title: string, run: (t: ExecutionContext) => Promise<void>): void {
  testWithInfluxd(title, async (t) => {
    t.timeout(timeoutMs);
    await run(t);
  });
}
