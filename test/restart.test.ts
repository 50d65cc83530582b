/**
 * `--restartable`: the sockets outlive the worker that reads them, on the real InfluxDB, DuckDB and Caddy. One test
 * after the other: where many programs start at once, a start takes longer than connections are held.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, writeFile } from 'node:fs/promises';
import { Agent, get } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { logTo, startCaddy, testWithCaddy } from './caddy.js';
import { assertExact, createLinesApart, lineOf, startRig, startSender } from './fault-rig.js';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { freePorts } from './ports.js';
import { startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { until } from './until.js';

const isFull = process.env['FAULTS'] === 'full';
const restartable = { args: ['--restartable'] };
const influxd = influxdOfThisFile();

testWithInfluxd(
  'Five restarts at 5,000 lines a second lose and double nothing, keep every connection, and leave no descriptor.',
  async (t) => {
    t.timeout(300_000);
    const server = await influxd();
    const rig = await startRig(server, restartable);
    t.teardown(() => rig.stop());
    const descriptors = await descriptorsOf(rig.program.pid);
    const sender = startSender(rig.port, { perSecond: 5000 });
    t.teardown(() => sender.stop());
    for (let at = 1; at <= 5; at += 1) {
      const sent = sender.sentMs.length;
      await until('lines come in', () => sender.sentMs.length > sent + 2000);
      await restarted(rig.program, () => process.kill(rig.program.pid, 'SIGHUP'));
    }
    t.is(sender.connections(), 4, 'no connection was closed');
    await sender.stop();
    await rig.settled();
    t.deepEqual(await assertExact(t, server, rig, sender.sentMs.length), []);
    await until('the descriptors are given back', async () => (await descriptorsOf(rig.program.pid)) === descriptors);
    t.is(await rig.program.stop('SIGTERM'), 0);
    t.deepEqual(
      rig.program
        .stderr()
        .split('\n')
        .filter((line) => / (?:warn|error) /.test(line)),
      [],
    );
    t.log(`${sender.sentMs.length} lines`);
  },
);

testWithInfluxd(
  'A worker killed with -9 costs what it had just read, no connection, and a new one goes on.',
  async (t) => {
    t.timeout(300_000);
    const server = await influxd();
    const rig = await startRig(server, restartable);
    t.teardown(() => rig.stop());
    const sender = startSender(rig.port, { perSecond: 5000, line: createLinesApart() });
    t.teardown(() => sender.stop());
    const killedMs: number[] = [];
    let safe = 0;
    for (let at = 1; at <= 3; at += 1) {
      const sent = sender.sentMs.length;
      await until('lines come in', () => sender.sentMs.length > sent + 2000);
      const { stored, spooled } = await rig.ledger();
      safe += stored + spooled;
      await restarted(rig.program, async () => {
        killedMs.push(performance.now());
        process.kill(await workerOf(rig.program.pid), 'SIGKILL');
      });
    }
    t.is(sender.connections(), 4, 'no connection was closed');
    await sender.stop();
    safe += (await rig.settled()).stored;
    const missing = await assertExact(t, server, rig, sender.sentMs.length);
    t.true(sender.sentMs.length - missing.length >= safe, 'what was stored or spooled is there');
    const worstMs = Math.max(
      0,
      ...missing.map((id) =>
        Math.min(...killedMs.map((killMs) => killMs - sender.sentMs[id]!).filter((age) => age > -500)),
      ),
    );
    t.log(`${sender.sentMs.length} lines, ${missing.length} lost, the oldest ${worstMs.toFixed(0)} ms before the kill`);
  },
);

test.serial(
  'A restart in the middle of a line, of a line that is too long, and of a unix socket goes on where it was.',
  async (t) => {
    const rig = await startEmbedded(t);
    const tcp = connect(rig.port, '127.0.0.1');
    const unix = connect(join(rig.cwd, 'sink.sock'));
    const tooLong = connect(rig.port, '127.0.0.1');
    tcp.write(lineOf(1) + lineOf(2).slice(0, 50));
    unix.write(lineOf(3).slice(0, 99));
    tooLong.write('x'.repeat(70_000));
    await until(
      'the first line is read',
      async () => (await rig.ledger()).received >= 2 && (await rig.ledger()).rejected['too-long'] === 1,
    );
    await restarted(rig.program, () => process.kill(rig.program.pid, 'SIGHUP'));
    tcp.end(lineOf(2).slice(50));
    unix.end(lineOf(3).slice(99));
    tooLong.end('x'.repeat(10) + '\n' + lineOf(4));
    const ledger = await until('the rest is read', async () => {
      const now = await rig.ledger();
      return now.received >= 3 && now;
    });
    t.is(ledger.accepted, 3);
    t.deepEqual(ledger.rejected, {});
    await until('all four are stored', async () => (await rig.requests()) === 4);
    t.is(await rig.program.stop('SIGTERM'), 0);
  },
);

test.serial(
  'A restart with settings that cannot be used is refused, and the old worker goes on; a port that is new is opened, one that is not wanted any more is closed.',
  async (t) => {
    const rig = await startEmbedded(t);
    const peer = connect(rig.port, '127.0.0.1');
    t.teardown(() => peer.destroy());
    peer.write(lineOf(1));
    await until('it is read', async () => (await rig.ledger()).received === 1);
    await rig.settings({ COLLECTOR_LINE_BYTES_MAX: 'soon' });
    process.kill(rig.program.pid, 'SIGHUP');
    await until('the new worker said what is wrong', () => rig.program.stderr().includes('did not start'));
    t.regex(rig.program.stderr(), /COLLECTOR_LINE_BYTES_MAX is "soon"/);
    peer.write(lineOf(2));
    await until('the old one reads on', async () => (await rig.ledger()).received === 2);

    const [other] = (await freePorts(1)) as [number];
    await rig.settings({ COLLECTOR_LISTEN: `tcp://127.0.0.1:${other}` });
    await restarted(rig.program, () => process.kill(rig.program.pid, 'SIGHUP'));
    connect(other, '127.0.0.1').end(lineOf(3));
    await until('the new port is read', async () => (await rig.requests()) === 3);
    const refused = await until(
      'the old port is closed',
      () =>
        new Promise<string | false>((resolve) => {
          const late = connect(rig.port, '127.0.0.1', () => {
            late.destroy();
            resolve(false);
          });
          late.on('error', (error: NodeJS.ErrnoException) => {
            resolve(error.code!);
          });
        }),
    );
    t.is(refused, 'ECONNREFUSED');
    t.is(await rig.program.stop('SIGTERM'), 0);
  },
);

test.serial(
  'When no worker starts any more, connections are closed so that nobody waits, and taken again when one does.',
  async (t) => {
    const rig = await startEmbedded(t);
    const peer = connect(rig.port, '127.0.0.1').resume();
    let isClosed = false;
    peer
      .on('error', () => undefined)
      .on('close', () => {
        isClosed = true;
      });
    peer.write(lineOf(1));
    await until('it is read', async () => (await rig.ledger()).stored === 1);
    await rig.settings({ COLLECTOR_LINE_BYTES_MAX: 'soon' });
    process.kill(await workerOf(rig.program.pid), 'SIGKILL');
    await until('the connection is closed', () => isClosed);
    t.regex(rig.program.stderr(), /Nothing has read the connections for too long/);
    await rig.settings({});
    await until(
      'a line is taken again',
      async () => {
        connect(rig.port, '127.0.0.1')
          .on('error', () => undefined)
          .end(lineOf(2));
        return (await rig.requests()) > 1;
      },
      { pollMs: 200 },
    );
    t.is(await rig.program.stop('SIGTERM'), 0);
  },
);

test.serial(
  'Signals: two SIGHUPs at once end in one worker, SIGTERM during one ends it, and a supervisor killed with -9 leaves a worker that stores what it read and ends.',
  async (t) => {
    const rig = await startEmbedded(t);
    const peer = connect(rig.port, '127.0.0.1').on('error', () => undefined);
    peer.write(lineOf(1));
    await until('it is read', async () => (await rig.ledger()).received === 1);
    const first = await workerOf(rig.program.pid);
    process.kill(rig.program.pid, 'SIGHUP');
    process.kill(rig.program.pid, 'SIGHUP');
    await until(
      'another has its place, alone',
      async () => startsOf(rig.program) >= 2 && !isAlive(first) && (await childrenOf(rig.program.pid)).length === 1,
    );
    peer.write(lineOf(2));
    await until('it is stored', async () => (await rig.requests()) === 2);
    const worker = await workerOf(rig.program.pid);
    await rig.program.stop('SIGKILL');
    await until('the worker has ended', () => !isAlive(worker));

    const again = await startEmbedded(t, rig.cwd);
    t.is(await again.requests(), 2);
    process.kill(again.program.pid, 'SIGHUP');
    t.is(await again.program.stop('SIGTERM'), 0);
    await until('nothing is left', async () => (await childrenOf(again.program.pid)).length === 0);
  },
);

testWithCaddy(
  'Caddy at 200 requests a second notices nothing of three restarts: every request is counted, none waits for long, and its stderr stays empty.',
  async (t) => {
    t.timeout(300_000);
    const rig = await startEmbedded(t);
    const { site, caddy } = await startSite(t, logTo(`tcp/127.0.0.1:${rig.port}`));
    const load = startLoad(site, 200);
    for (let at = 1; at <= 3; at += 1) {
      const before = load.sent();
      await until('requests go in', () => load.sent() > before + 150);
      await restarted(rig.program, () => process.kill(rig.program.pid, 'SIGHUP'));
    }
    const { sent, failed, longestMs } = await load.stop();
    t.is(failed, 0);
    await until('every request is counted', async () => (await rig.requests()) >= sent);
    t.is(await rig.requests(), sent);
    t.notRegex(caddy.stderr(), /handled request|http\.log\.access/);
    t.log(`${sent} requests, the longest ${longestMs.toFixed(0)} ms`);
  },
);

const stopMs = isFull ? 40_000 : 8000;
const perSecondStopped = isFull ? 500 : 400;
/** Each writes a line for each request. */
const loggers = isFull ? 4 : 1;
testWithCaddy(
  `Caddy at ${perSecondStopped * loggers} lines a second does not wait for a worker that is stopped for ${stopMs / 1000} s: it is killed, no request takes 5 s, and a new worker counts on.`,
  async (t) => {
    t.timeout(300_000);
    const rig = await startEmbedded(t);
    const { site, caddy } = await startSite(
      t,
      Array.from({ length: loggers }, (_, at) => logTo(`tcp/127.0.0.1:${rig.port}`, `logger${at}`)).join('\n'),
    );
    // Long lines, so that the buffers of the kernel are full in no time.
    const load = startLoad(site, perSecondStopped, isFull ? {} : { 'X-Long': 'x'.repeat(8000) });
    t.teardown(() => load.stop());
    await until('requests are stored', async () => (await rig.ledger()).stored > perSecondStopped);
    const stored = await rig.requests();
    const worker = await workerOf(rig.program.pid);
    let readMax = load.sent() * loggers;
    await restarted(rig.program, async () => {
      process.kill(worker, 'SIGSTOP');
      readMax = load.sent() * loggers;
      await sleep(stopMs); // so long would it be stopped, if it were not killed
    });
    t.false(isAlive(worker));
    t.regex(rig.program.stderr(), /The worker does not answer.*pid=/);
    await until('the new worker counts', async () => (await rig.ledger()).stored > perSecondStopped);
    const { sent, failed, longestMs } = await load.stop();
    t.is(failed, 0, `no request took 5 s\n${rig.program.stderr()}`);
    const stderrLines = (): number =>
      caddy
        .stderr()
        .split('\n')
        .filter((line) => line.includes('handled request')).length;
    // What the worker had read and not stored, and a line that it had read half; and where a connection was closed,
    // what was on its way.
    const lostMax = readMax - stored + 1 + (rig.program.stderr().includes('Nothing has read') ? 100 : 0);
    const lost = await until('all others are counted', async () => {
      const missing =
        sent * loggers - (await rig.requests()) - ((await rig.ledger()).dropped['no-worker'] ?? 0) - stderrLines();
      return missing <= lostMax && missing;
    }).catch(async (error: unknown) => {
      throw new Error(
        `${sent * loggers} sent, ${await rig.requests()} counted, ${JSON.stringify(await rig.ledger())}, ${stderrLines()} in Caddy's stderr, ${lostMax} may be lost\n${rig.program.stderr()}`,
        { cause: error },
      );
    });
    t.true(lost >= 0, 'none is counted twice');
    const ledger = await until('everything is stored', async () => {
      const now = await rig.ledger();
      return now.stored === now.accepted && now;
    });
    t.is(ledger.received, ledger.accepted + sumOf(ledger.rejected) + sumOf(ledger.dropped));
    t.log(
      `${sent} requests, the longest ${longestMs.toFixed(0)} ms, ${lost} lost at most, ${stderrLines()} in Caddy's stderr`,
    );
  },
);

test.serial('A worker that is busy for a second is not killed, and reads on.', async (t) => {
  const rig = await startEmbedded(t);
  const peer = connect(rig.port, '127.0.0.1');
  t.teardown(() => peer.destroy());
  const worker = await workerOf(rig.program.pid);
  for (let at = 1; at <= 3; at += 1) {
    // By a process of its own, which is not late because this one is busy.
    const busy = promisify(execFile)('sh', ['-c', `kill -STOP ${worker} && sleep 1; kill -CONT ${worker}`]);
    peer.write(lineOf(at));
    await busy;
    await until('it reads on', async () => (await rig.ledger()).received === at);
  }
  t.is(await workerOf(rig.program.pid), worker);
  t.notRegex(rig.program.stderr(), /does not answer/);
});

test.serial(
  'Lines for a killed worker that cannot end are read in its place, so that nobody waits: as many as there is room for are stored by the next one, the others counted as dropped.',
  async (t) => {
    const rig = await startEmbedded(t, undefined, fileURLToPath(new URL('deferred-kill.js', import.meta.url)));
    const peer = connect(rig.port, '127.0.0.1')
      .on('error', () => undefined)
      .resume();
    const unix = connect(join(rig.cwd, 'sink.sock'))
      .on('error', () => undefined)
      .resume();
    const quiet = connect(rig.port, '127.0.0.1')
      .on('error', () => undefined)
      .resume();
    let isQuietClosed = false;
    quiet.on('close', () => {
      isQuietClosed = true;
    });
    peer.write(lineOf(1));
    unix.write(lineOf(2));
    quiet.write(lineOf(3));
    await until('they are stored', async () => (await rig.ledger()).stored === 3);
    const worker = await workerOf(rig.program.pid);
    process.kill(worker, 'SIGSTOP');
    // 40 MB: no buffer of the kernel holds it.
    const lines = 100_000;
    const text = lineOf(4).repeat(lines);
    await Promise.all(
      [peer, unix].map(
        (socket) =>
          new Promise<void>((resolve) => {
            socket.end(`${text}{"half`, resolve);
          }),
      ),
    );
    t.true(isAlive(worker), 'it has not ended, and all is read');
    t.regex(rig.program.stderr(), /The killed worker cannot end/);
    t.false(isQuietClosed);
    await restarted(rig.program, () => process.kill(worker, 'SIGKILL'));
    await until('its connection is closed, so that Caddy would notice', () => isQuietClosed);
    const ledger = await until('what was kept is read', async () => {
      const now = await rig.ledger();
      return now.received >= 2 * (lines + 1) && now;
    });
    const dropped = ledger.dropped['no-worker']!;
    t.true(dropped > lines, `${dropped} of ${2 * lines}`);
    t.is(ledger.received, 2 * (lines + 1), 'each line once');
    t.true(ledger.accepted > 20_000 && ledger.accepted >= 2 * lines - dropped - 2, `${ledger.accepted} kept`);
    t.regex(rig.program.stderr(), /No worker could read a connection, and it was closed/);
    connect(rig.port, '127.0.0.1').end(lineOf(5));
    await until('the new one reads', async () => (await rig.ledger()).stored === ledger.accepted + 1);
    t.is(startsOf(rig.program), 2, 'it answered all that time');
    t.is(await rig.program.stop('SIGTERM'), 0);
  },
);

test.serial(
  'A supervisor ends although its worker hung and was killed while connections were passed to it.',
  async (t) => {
    t.timeout(120_000);
    const rig = await startEmbedded(t);
    const workerPid = await workerOf(rig.program.pid);
    process.kill(workerPid, 'SIGSTOP');
    const sockets = Array.from({ length: 600 }, () => connect(rig.port, '127.0.0.1').on('error', () => undefined));
    t.teardown(() => {
      for (const socket of sockets) socket.destroy();
    });
    await Promise.all(sockets.map((socket) => once(socket, 'connect')));
    const ended = rig.program.stop();
    t.not(await Promise.race([ended, sleep(60_000, 'hangs')]), 'hangs');
  },
);

testWithCaddy(
  '1,000 idle connections that come again and again keep Caddy out neither before nor after a restart, and none is held that was evicted.',
  async (t) => {
    t.timeout(120_000);
    const rig = await startEmbedded(t);
    const flood = spawn(
      process.execPath,
      [
        '--eval',
        `
    const net = require('node:net');
    let opened = 0;
    const open = () => {
      const socket = net.connect(${rig.port}, '127.0.0.1', () => { opened += 1; if (opened === 1000) console.log('all'); });
      socket.on('error', () => undefined).on('close', () => setTimeout(open, 500)).resume();
    };
    for (let at = 0; at < 1000; at += 1) open();`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    t.teardown(() => flood.kill('SIGKILL'));
    await once(flood.stdout, 'data');
    await until(
      'connections are evicted',
      async () => ((await rig.ledger()).warnings['connections-evicted'] ?? 0) > 250,
    );
    const { site, caddy } = await startSite(t, logTo(`tcp/127.0.0.1:${rig.port}`));
    const ask = async (count: number): Promise<void> => {
      for (let at = 0; at < count; at += 1) await (await fetch(`http://127.0.0.1:${site}/`)).text();
    };
    await ask(20);
    await until('all are counted', async () => (await rig.requests()) === 20);
    await restarted(rig.program, () => process.kill(rig.program.pid, 'SIGHUP'));
    await ask(20);
    await until('all are counted after a restart, too', async () => (await rig.requests()) === 40);
    t.notRegex(caddy.stderr(), /handled request/);
    let held = 0;
    await until(
      'the supervisor has three quarters of 1,000, and its own',
      async () => (held = await descriptorsOf(rig.program.pid)) < 850,
    ).catch((error: unknown) => {
      throw new Error(`It has ${held}.`, { cause: error });
    });
    t.regex(rig.program.stderr(), /closed a connection that has never sent a valid line/);
  },
);

/** Requests at a fixed rate, whether those before were answered or not. */
function startLoad(port: number, perSecond: number, headers: Readonly<Record<string, string>> = {}) {
  const agent = new Agent({ keepAlive: true });
  let sent = 0;
  let failed = 0;
  let longestMs = 0;
  let going = true as boolean; // until `stop`
  const running = (async () => {
    const startMs = performance.now();
    const answers: Promise<void>[] = [];
    while (going) {
      for (const due = ((performance.now() - startMs) * perSecond) / 1000; sent < due; sent += 1) answers.push(ask());
      await sleep(5);
    }
    await Promise.all(answers);
    agent.destroy();
    return { sent, failed, longestMs };
  })();
  return {
    sent: () => sent,
    stop() {
      going = false;
      return running;
    },
  };

  function ask(): Promise<void> {
    const askedMs = performance.now();
    return new Promise((resolve) => {
      const fail = (): void => {
        failed += 1;
        resolve();
      };
      get({ host: '127.0.0.1', port, agent, headers, signal: AbortSignal.timeout(5000) }, (response) => {
        response
          .on('error', fail)
          .resume()
          .on('end', () => {
            longestMs = Math.max(longestMs, performance.now() - askedMs);
            resolve();
          });
      }).on('error', fail);
    });
  }
}

function sumOf(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

interface Embedded {
  readonly program: RunningProgram;
  readonly port: number;
  readonly cwd: string;
  /** Changes what the next start reads. */
  settings(changed: Readonly<Record<string, string>>): Promise<void>;
  ledger(): Promise<{
    received: number;
    accepted: number;
    stored: number;
    rejected: Record<string, number>;
    dropped: Record<string, number>;
    warnings: Record<string, number>;
  }>;
  /** Requests from Caddy in the store, those of earlier workers included. */
  requests(): Promise<number>;
}

/** `start --restartable` over DuckDB, on a TCP port and a unix socket. */
async function startEmbedded(t: ExecutionContext, folder?: string, file?: string): Promise<Embedded> {
  const cwd = folder ?? (await temporaryFolder());
  const [port, http, web] = (await freePorts(3)) as [number, number, number];
  const first = {
    COLLECTOR_ID: 'tested',
    COLLECTOR_LISTEN: `tcp://127.0.0.1:${port},unix://${cwd}/sink.sock`,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    WEB_LISTEN: `127.0.0.1:${web}`,
    COLLECTOR_LINE_BYTES_MAX: '64KiB',
  };
  const settings = (changed: Readonly<Record<string, string>>): Promise<void> =>
    writeFile(
      join(cwd, 'settings.env'),
      Object.entries({ ...first, ...changed })
        .map(([name, value]) => `${name}=${value}\n`)
        .join(''),
    );
  await settings({});
  const program = await startProgram(
    ['start', '--restartable', '--env-file', 'settings.env'],
    {},
    [`http://127.0.0.1:${http}/health`, `http://127.0.0.1:${web}/health`],
    { cwd, ...(file !== undefined && { program: file }) },
  );
  t.teardown(async () => {
    await program.stop();
  });
  return {
    program,
    port,
    cwd,
    settings,
    async ledger() {
      const { collectors } = (await answerOf(`http://127.0.0.1:${http}/ledger`)) as {
        collectors: Record<string, Awaited<ReturnType<Embedded['ledger']>>>;
      };
      return collectors['tested']!;
    },
    async requests() {
      const { sources } = (await answerOf(`http://127.0.0.1:${web}/api/summary`)) as {
        sources: Record<string, { requests: number }>;
      };
      return sources['caddy']?.requests ?? 0;
    },
  };
}

/** What an address answers; while a worker starts there is nothing there. */
async function answerOf(url: string): Promise<unknown> {
  const response = await until(`${url} answers`, () => fetch(url).catch(() => false as const));
  return await response.json();
}

/** Has a worker replaced; resolves when the next one listens. */
async function restarted(program: RunningProgram, replace: () => unknown): Promise<void> {
  const starts = startsOf(program);
  await replace();
  await until('a new worker has started', () => startsOf(program) > starts);
}

function startsOf(program: RunningProgram): number {
  return program.stderr().split('Listening on ').length - 1;
}

/** The process that the supervisor runs. */
async function workerOf(pid: number): Promise<number> {
  return await until(`${pid} has one worker`, async () => {
    const [worker, ...more] = await childrenOf(pid);
    return more.length === 0 && worker;
  });
}

async function childrenOf(pid: number): Promise<number[]> {
  const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'ppid=,pid=']);
  return stdout
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([parent, child]) => (parent === pid ? [child!] : []));
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function descriptorsOf(pid: number): Promise<number> {
  return (await readdir(`/proc/${pid}/fd`)).length;
}

/** Starts Caddy with one site that answers every request, and these loggers. */
async function startSite(
  t: ExecutionContext,
  loggers: string,
): Promise<{ site: number; caddy: Awaited<ReturnType<typeof startCaddy>> }> {
  const [site] = (await freePorts(1)) as [number];
  const caddy = await startCaddy(`{
    auto_https off
  }
  http://127.0.0.1:${site} {
    ${loggers}
    respond "ok"
  }`);
  t.teardown(() => caddy.stop());
  return { site, caddy };
}
