/**
 * Load and faults over the embedded store: readers that request the largest answers, viewers, and lines at a fixed
 * rate. Each answer is checked, and at the end every line is accounted for.
 *
 * `npm test` runs a short form; `npm run faults` sets FAULTS=full for the long one. LOAD_SECONDS overrides how long the
 * load lasts.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFile, copyFile, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import {
  assertExactFile,
  createLines,
  idsInFile,
  lineOf,
  startEmbeddedRig,
  startSender as startSenderTo,
  sumOf,
  watch,
  type EmbeddedRig,
  type LineShape,
  type RigLedger,
  type Sender,
} from './fault-rig.js';
import {
  Answers,
  ask,
  askAndLeave,
  largestQuestion,
  limitMax,
  sampleOf,
  startReaders,
  startSampler,
  startSlowReader,
  startViewers,
  type Clients,
  type Known,
  type Sampler,
} from './load.js';
import { cpuSecondsOf } from './process.js';
import { folderOf } from './program.js';
import { spreadOf } from '../bench/compare.js';
import { until } from './until.js';

const isFull = process.env['FAULTS'] === 'full';
const loadMs = Number(process.env['LOAD_SECONDS'] ?? (isFull ? 600 : 3)) * 1000;
const readers = isFull ? 8 : 4;
const viewers = isFull ? 50 : 20;
/** Maximum resident memory under load and at rest, in bytes. */
const residentBytesMax = 600e6;
const idleBytesMax = 250e6;
/** Maximum time to store all lines once no more are sent, and for the process to come to rest, in milliseconds. */
const settledMsMax = 30_000;
const restMsMax = 60_000;
/** Enough for the largest answer of the API. */
const preloaded = 12_000;
const fewHosts: LineShape = { hosts: 10, methods: 1, statuses: 2 };
const manySeries: LineShape = { hosts: 200, methods: 18, statuses: 12 };

if (isFull) load('10 hosts', fewHosts, { perSecond: 3000 });
if (isFull) load('21,600 series', { ...manySeries, methods: 9 }, { perSecond: 3000 });
if (isFull) load('43,200 series', manySeries, { perSecond: 5000 });

/** Declares a scenario with readers and viewers during a stream of lines. */
function load(name: string, shape: LineShape, { perSecond }: { perSecond: number }): void {
  scenario(
    `${name}: ${readers} readers of the largest answers and ${viewers} viewers during ${perSecond} lines per second lose nothing, and get complete answers or a 503 that says when to retry`,
    async (t) => {
      const rig = await startEmbedded(t);
      const { pid } = rig.program;
      assertAtRest(t, rig);
      const line = createLines(shape);
      const known = await preload(t, rig, line);
      const before = sampleOf(pid, rig.path);
      const sampler = startSampler(pid, rig.path);
      const sender = startSender(t, rig, { perSecond, line: (id) => line(preloaded + id) });
      const clients = {
        readers: startReaders(rig.url, { readers, known: withSender(known, sender) }),
        viewers: startViewers(rig.url, { viewers, refreshSeconds: isFull ? 5 : 1 }),
      };
      stopAtEnd(t, ...Object.values(clients));
      let ledger: RigLedger | undefined;
      try {
        await watch(rig, loadMs, {
          pollMs: 200,
          onLedger: (now) => {
            ledger = now;
            known.stored = now.stored;
          },
        });
        await inTime('the lines are read', sender.stop());
        const [settled] = await Promise.all([
          allIn(rig, preloaded + sender.sentMs.length),
          clients.readers.stop(),
          clients.viewers.stop(),
        ]);
        ledger = settled;
      } finally {
        sampler.stop();
        t.log(
          `${sender.sentMs.length} lines sent; ${ledger?.stored} stored, ${ledger?.in_memory} in memory, dropped ${JSON.stringify(ledger?.dropped)}; reopened ${openings(rig)} times`,
        );
        for (const [who, { answers }] of Object.entries(clients))
          t.log(`${who}: ${answers.toString()}`, ...answers.failures.values());
        logSamples(t, sampler);
      }
      for (const { answers } of Object.values(clients)) assertAnswers(t, answers);
      if (isFull)
        t.is(
          clients.readers.answers.okOf.size,
          8,
          `each kind of question was answered: ${JSON.stringify([...clients.readers.answers.okOf])}`,
        );
      t.is(rig.program.pid, pid);
      t.is(openings(rig), 0, 'the file was not reopened');
      t.is(ledger.stored, ledger.accepted);
      if (shape === fewHosts) t.deepEqual(ledger.dropped, {});
      t.true(sampler.residentBytesMax() < residentBytesMax, `${sampler.residentBytesMax()} bytes resident`);
      if (isFull) assertFlat(t, sampler);
      await comesToRest(rig, before.descriptors);
      t.is(await rig.program.stop(), 0);
      const missing = await assertExactFile(t, rig.path, preloaded + sender.sentMs.length);
      t.is(missing.length, sumOf(ledger.dropped));
    },
  );
}

scenario('URIs of 8 kB: an answer of 10,000 requests is complete, even during lines and other readers', async (t) => {
  const rig = await startEmbedded(t);
  const line = createLines({ ...fewHosts, queryBytes: 8000 });
  const sampler = startSampler(rig.program.pid, rig.path);
  const known = await preload(t, rig, line);
  const alone = new Answers();
  for (const at of [0, 1]) await askLargest(alone, rig, at, known);
  const sender = startSender(t, rig, { perSecond: 300, line: (id) => line(preloaded + id) });
  const together = startReaders(rig.url, { readers: isFull ? readers : 2, known: withSender(known, sender) });
  stopAtEnd(t, together);
  try {
    await watch(rig, loadMs / 2, {
      pollMs: 200,
      onLedger: (now) => {
        known.stored = now.stored;
      },
    });
    await sender.stop();
    await Promise.all([allIn(rig, preloaded + sender.sentMs.length), together.stop()]);
  } finally {
    sampler.stop();
    t.log(`alone: ${alone.toString()}; reopened ${openings(rig)} times`, ...alone.failures.values());
    t.log(`together: ${together.answers.toString()}`, ...together.answers.failures.values());
    logSamples(t, sampler);
  }
  t.is(alone.ok, 2, 'JSON and CSV');
  assertAnswers(t, together.answers);
  t.is(openings(rig), 0, 'the file was not reopened');
  t.true(sampler.residentBytesMax() < residentBytesMax, `${sampler.residentBytesMax()} bytes resident`);
  t.is(await rig.program.stop(), 0);
  t.deepEqual(await assertExactFile(t, rig.path, preloaded + sender.sentMs.length), []);
});

const pages = isFull ? 1000 : 300;
scenario(
  `${pages} simultaneous page loads, each with a different range or host, are answered, and the next one gets 200`,
  async (t) => {
    const rig = await startEmbedded(t);
    const sampler = startSampler(rig.program.pid, rig.path);
    const { fromMs } = await preload(t, rig, createLines({ hosts: 200, methods: 1, statuses: 2 }));
    for (const [what, queryOf] of [
      ['range', (at: number) => `from=${new Date(fromMs - 3_600_000 - 1000 * at).toISOString()}`],
      ['host', (at: number) => `from=now-24h&host=${at}.example`],
    ] as const) {
      const answers = new Answers();
      await Promise.all(
        Array.from({ length: pages }, (_, at) =>
          answers.ask(what, `${rig.url}/?refresh=off&${queryOf(at)}`, { problemOf: pageProblem, waitMsMax: 60_000 }),
        ),
      );
      t.log(`by ${what}: ${answers.toString()}`, ...answers.failures.values());
      assertAnswers(t, answers);
      t.is((await ask(rig.url)).status, 200, 'the next page');
    }
    sampler.stop();
    logSamples(t, sampler);
    t.true(sampler.residentBytesMax() < residentBytesMax, `${sampler.residentBytesMax()} bytes resident`);
    t.is(openings(rig), 0, 'the file was not reopened');
    t.is(await rig.program.stop(), 0);
  },
);

scenario('100 readers that disconnect cost little, and those that stay are answered', async (t) => {
  const rig = await startEmbedded(t);
  const { pid } = rig.program;
  const known = await preload(t, rig, createLines({ ...fewHosts, queryBytes: 1000 }));
  const urlOf = (at: number): string =>
    `${rig.url}/api/requests?limit=${limitMax}&from=${new Date(known.fromMs - 1000 * at).toISOString()}`;
  await ask(urlOf(1)); // the first request compiles code
  const beforeOne = cpuSecondsOf(pid);
  t.is((await ask(urlOf(2))).status, 200);
  const one = cpuSecondsOf(pid) - beforeOne;
  const before = cpuSecondsOf(pid);
  const leaving = 100;
  await Promise.all(Array.from({ length: leaving }, (_, at) => askAndLeave(urlOf(10 + at))));
  const page = await ask(rig.url);
  await untilIdle(pid);
  const all = cpuSecondsOf(pid) - before;
  t.log(
    `one answer: ${one.toFixed(2)} s of processor time; ${leaving} whose clients disconnected: ${all.toFixed(2)} s; then a page: ${page.status} in ${page.ms.toFixed(0)} ms`,
  );
  t.is(page.status, 200, page.body);
  t.true(all < (leaving * one) / 4, 'most of the work was cancelled');
  t.is(openings(rig), 0, 'the file was not reopened');
});

scenario('40 readers of a kilobyte per second delay nobody and take little memory', async (t) => {
  const rig = await startEmbedded(t);
  const { pid } = rig.program;
  const known = await preload(t, rig, createLines({ ...fewHosts, queryBytes: 1000 }));
  const before = sampleOf(pid, rig.path);
  const sampler = startSampler(pid, rig.path);
  const slow = Array.from({ length: 40 }, (_, at) =>
    startSlowReader(
      `${rig.url}/api/requests?limit=${limitMax}&from=${new Date(known.fromMs - 1000 * at).toISOString()}`,
    ),
  );
  t.teardown(() => {
    for (const reader of slow) reader.stop();
  });
  await until('each has the headers of an answer', () => slow.every(({ status }) => status() !== 0), {
    waitMsMax: 60_000,
  });
  const statuses = slow.map(({ status }) => status());
  const question = { ...known, storedMax: () => preloaded };
  await until(
    'a reader at full speed gets the slot of a slow one',
    async () => {
      const first = new Answers();
      await askLargest(first, rig, 0, question);
      return first.ok === 1;
    },
    { pollMs: 500 },
  );
  const answers = new Answers();
  for (let at = 0; at < (isFull ? 80 : 8); at += 1) await askLargest(answers, rig, at, question);
  await watch(rig, isFull ? 60_000 : 1000);
  sampler.stop();
  t.log(
    `slow: ${statuses.filter((status) => status === 200).length} × 200, ${statuses.filter((status) => status === 503).length} × 503; others: ${answers.toString()}`,
    ...answers.failures.values(),
  );
  logSamples(t, sampler);
  t.deepEqual(
    statuses.filter((status) => status !== 200 && status !== 503),
    [],
  );
  t.deepEqual([...answers.failures.values()], []);
  t.is(answers.unavailable, 0, 'all readers at full speed were answered');
  t.true(sampler.residentBytesMax() < residentBytesMax, `${sampler.residentBytesMax()} bytes resident`);
  for (const reader of slow) reader.stop();
  await comesToRest(rig, before.descriptors);
  t.is(openings(rig), 0, 'the file was not reopened');
});

const kills = isFull ? 10 : 1;
scenario(
  `after ${kills} × kill -9 under load, the store has everything that it reported as stored, duplicates nothing, and resumes`,
  async (t) => {
    const rig = await startEmbedded(t);
    const perSecond = 3000;
    const line = createLines(fewHosts);
    const known = await preload(t, rig, line);
    const sender = startSender(t, rig, { perSecond, line: (id) => line(preloaded + id) });
    const beside = startReaders(rig.url, { readers, known: withSender(known, sender) });
    stopAtEnd(t, beside);
    const killedMs: number[] = [];
    let stored = preloaded;
    for (let kill = 0; kill < kills; kill += 1) {
      await watch(rig, 2000 + 2000 * random(`kill ${kill}`), { pollMs: 100 });
      const kept = await rig.ledger();
      t.log(`at the kill: ${kept.stored} stored, ${kept.in_memory} in memory`);
      stored += kept.stored - (kill === 0 ? preloaded : 0);
      killedMs.push(performance.now());
      await rig.program.stop('SIGKILL');
      await rig.restart();
    }
    await until('lines are stored again', async () => (await rig.ledger()).stored > perSecond);
    await sender.stop();
    stored += (await rig.settled(settledMsMax)).stored;
    await beside.stop();
    t.is(await rig.program.stop(), 0);
    const sent = preloaded + sender.sentMs.length;
    const missing = await assertExactFile(t, rig.path, sent);
    // The age of each lost line at the kill. Those sent just afterwards went into a connection that was already dead.
    const noticedMsMax = 500;
    const agesMs = missing.map((id) =>
      Math.min(
        ...killedMs.map((killMs) => killMs - sender.sentMs[id - preloaded]!).filter((age) => age > -noticedMsMax),
      ),
    );
    const worstMs = Math.max(0, ...agesMs);
    t.log(
      `${sent} lines, ${missing.length} lost, the oldest ${worstMs.toFixed(0)} ms before the kill; reopened ${openings(rig)} times`,
    );
    t.true(
      sent - missing.length >= stored,
      `${stored} were reported as stored, ${sent - missing.length} are in the store`,
    );
  },
);

const replacedFrom = 1_000_000;
for (const [what, change] of [
  [
    'deleted',
    async (path: string) => {
      await rm(path);
    },
  ],
  [
    'moved away with its log',
    async (path: string) => {
      await rename(path, `${path}.old`);
      await rename(`${path}.wal`, `${path}.old.wal`).catch(ignoreMissing);
    },
  ],
  [
    'replaced by another',
    async (path: string) => {
      await rm(`${path}.wal`, { force: true });
      await rename(`${path}.new`, path);
    },
  ],
] as const) {
  scenario(
    `a DuckDB file that is ${what} under the running program is noticed, and lines go to the file at its path`,
    async (t) => {
      const rig = await startEmbedded(t);
      const isReplaced = what === 'replaced by another';
      if (isReplaced) {
        await send(t, rig, 1000, (id) => lineOf(replacedFrom + id));
        t.is(await rig.program.stop(), 0);
        await rename(rig.path, `${rig.path}.other`);
        await rig.restart();
        await copyFile(`${rig.path}.other`, `${rig.path}.new`);
      }
      const sender = startSender(t, rig, { perSecond: 1000 });
      await until('lines are stored', async () => (await rig.ledger()).stored > 1000);
      const logged = rig.program.stderr().length;
      await change(rig.path);
      const line = await until('the log says so', async () => {
        await rig.ledger();
        return rig.program
          .stderr()
          .slice(logged)
          .split('\n')
          .find((text) => / (?:warn|error) /.test(text) && text.includes(rig.path));
      });
      const from = sender.sentMs.length;
      await until('lines arrive', async () => {
        await rig.ledger();
        return sender.sentMs.length > from + 1000;
      });
      await sender.stop();
      const sent = sender.sentMs.length;
      const ledger = await rig.settled(settledMsMax);
      t.is(ledger.received, sent);
      t.deepEqual(ledger.dropped, {});
      t.is(await rig.program.stop(), 0);
      await rig.restart();
      t.is(await rig.program.stop(), 0);
      const found = await idsInFile(rig.path);
      const lost = Array.from({ length: sent }, (_, id) => id).filter((id) => !found.has(id));
      t.log(
        `${sent} lines, ${lost.length} are not in the file, the last of them ${from - (lost.at(-1) ?? 0)} lines before this message: ${line}`,
      );
      t.deepEqual(
        lost.filter((id) => id >= from),
        [],
      );
      if (isReplaced)
        t.true(
          found.has(replacedFrom) && found.has(replacedFrom + 999),
          'the lines of the other file are in the store',
        );
    },
  );
}

for (const [what, makeDisk] of [
  ['a disk', diskByLimit],
  ...(isFull ? [['a tmpfs', diskByTmpfs] as const] : []),
] as const) {
  scenario(
    `${what} that fills up while the program runs: page and /ready say so, lines wait in memory, then are dropped and counted; waiting lines are stored when there is room`,
    async (t) => {
      const disk = await makeDisk(t);
      const rig = await startEmbedded(t, { ...disk, settings: { MEMORY_BYTES_MAX: '4MiB' } });
      const line = createLines({ ...fewHosts, queryBytes: 500 });
      const sender = startSender(t, rig, { perSecond: 5000, line });
      await until('lines are stored', async () => (await rig.ledger()).stored > 5000);
      await disk.fill(rig.program.pid);
      await until('lines are dropped', async () => {
        const { dropped, in_memory: held } = await rig.ledger();
        return sumOf(dropped) > 1000 && held > 1000;
      });
      await assertSaysFull(t, rig);
      await disk.free(rig.program.pid);
      await until('waiting lines are stored', async () => (await rig.ledger()).in_memory < 2500);
      await sender.stop();
      const ledger = await allIn(rig, sender.sentMs.length);
      t.is(ledger.stored, ledger.accepted);
      t.is(await rig.program.stop(), 0);
      const missing = await assertExactFile(t, rig.path, sender.sentMs.length);
      t.is(missing.length, sumOf(ledger.dropped));
      t.log(`${sender.sentMs.length} lines, dropped ${JSON.stringify(ledger.dropped)}`);
    },
  );

  scenario(
    `${what} that is full at the start: page and /ready say so, and lines wait in memory until there is room`,
    async (t) => {
      const disk = await makeDisk(t);
      const rig = await startEmbedded(t, disk);
      await send(t, rig, 5000, lineOf);
      t.is(await rig.program.stop(), 0);
      await disk.fill(process.pid); // the program inherits the limit
      await rig.restart().finally(() => disk.freeFor(process.pid));
      const sender = startSender(t, rig, { perSecond: 5000, linesMax: 5000, line: (id) => lineOf(5000 + id) });
      await until('lines wait in memory', async () => (await rig.ledger()).in_memory === 5000);
      await assertSaysFull(t, rig);
      await disk.free(rig.program.pid);
      const ledger = await rig.settled(settledMsMax);
      await sender.stop();
      t.is(ledger.stored, 5000);
      t.is(await rig.program.stop(), 0);
      t.deepEqual(await assertExactFile(t, rig.path, 10_000), []);
    },
  );
}

/** A disk that can be filled and freed for a process. */
interface Disk {
  /** Folder for the DuckDB file. Default: the folder of the rig. */
  readonly folder?: string;
  fill(pid: number): Promise<void>;
  free(pid: number): Promise<void>;
  /** Frees it for one process, but not for its children. */
  freeFor(pid: number): Promise<void>;
}

/** Limits the size of files that the process may write: its writes then fail as on a full disk. Needs no privileges. */
async function diskByLimit(): Promise<Disk> {
  const limit = async (pid: number, bytes: string): Promise<void> => {
    await promisify(execFile)('prlimit', [`--pid=${pid}`, `--fsize=${bytes}:`]);
  };
  const free = (pid: number): Promise<void> => limit(pid, 'unlimited');
  return { fill: (pid) => limit(pid, '20000'), free, freeFor: free };
}

/** A disk of 64 MB in memory. Only root can create it. */
async function diskByTmpfs(t: ExecutionContext): Promise<Disk> {
  const folder = join(await folderOf(t), 'disk');
  await mkdir(folder);
  await promisify(execFile)('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', folder]);
  t.teardown(() => promisify(execFile)('umount', ['--lazy', folder]));
  const filler = join(folder, 'filler');
  return {
    folder,
    async fill() {
      for (const bytes of [2 ** 20, 2 ** 12]) {
        while (await appendFile(filler, Buffer.alloc(bytes)).then(() => true, falseWhenFull));
      }
    },
    free: () => rm(filler),
    freeFor: async () => undefined,
  };
}

/** Returns `false` if the disk is full, and throws any other error. */
function falseWhenFull(error: unknown): false {
  if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  return false;
}

async function assertSaysFull(t: ExecutionContext, rig: EmbeddedRig): Promise<void> {
  const ready = await until('/ready says so', async () => {
    const answer = await ask(`${rig.statusUrl}/ready`);
    return answer.status === 503 && answer;
  });
  t.regex(ready.body, /disk/);
  // While the file cannot be opened, the page gets a 503.
  const page = await ask(`${rig.url}/?refresh=off`);
  t.true(
    page.status === 200 || (page.status === 503 && page.headers['retry-after'] !== undefined),
    String(page.status),
  );
  t.notRegex(page.body, /All well/);
  t.regex(page.body, /disk/i);
}

function pageProblem(body: string): string | undefined {
  return body.trimEnd().endsWith('</html>') ? undefined : `the page ends with ${JSON.stringify(body.slice(-50))}`;
}

/** `Known` with a lower bound that is raised as the ledger is read. */
type Preloaded = { stored: number } & Known;

/** Stores enough requests for the largest answers. */
async function preload(t: ExecutionContext, rig: EmbeddedRig, line: (id: number) => string): Promise<Preloaded> {
  const known = {
    fromMs: Date.now(),
    preloaded,
    stored: preloaded,
    storedMin: () => known.stored,
    storedMax: () => preloaded,
  };
  await send(t, rig, preloaded, line);
  return known;
}

function withSender(known: Known, { sentMs }: Sender): Known {
  return { ...known, storedMax: () => preloaded + sentMs.length };
}

/** Sends lines and waits until they are stored. */
async function send(t: ExecutionContext, rig: EmbeddedRig, lines: number, line: (id: number) => string): Promise<void> {
  const sender = startSender(t, rig, { perSecond: 10_000, linesMax: lines, line });
  await until('they are stored', async () => (await rig.ledger()).stored === lines, { waitMsMax: 60_000 });
  await sender.stop();
}

/** Resolves when all lines that were sent have arrived and none is waiting. */
async function allIn(rig: EmbeddedRig, sent: number): Promise<RigLedger> {
  return await until(
    'every line is accounted for and none is waiting',
    async () => {
      const ledger = await rig.ledger();
      return ledger.received === sent && ledger.in_memory === 0 && ledger;
    },
    { waitMsMax: settledMsMax },
  );
}

async function askLargest(answers: Answers, rig: EmbeddedRig, at: number, known: Known): Promise<void> {
  const { kind, path, problemOf } = largestQuestion(at, known);
  await answers.ask(kind, `${rig.url}${path}`, { problemOf });
}

/** How often the program has reopened its file. */
function openings(rig: EmbeddedRig): number {
  return rig.program.stderr().match(/open again|opened anew|reopen/gi)?.length ?? 0;
}

function assertAnswers(t: ExecutionContext, answers: Answers): void {
  t.deepEqual([...answers.failures.values()], []);
  t.is(answers.failed, 0);
  t.true(answers.ok > 0, answers.toString());
}

function assertAtRest(t: ExecutionContext, rig: EmbeddedRig): void {
  const { residentBytes } = sampleOf(rig.program.pid, rig.path);
  t.true(residentBytes < idleBytesMax, `${residentBytes} bytes resident at rest`);
}

/**
 * Resolves when the process uses as little as it may at rest. Allows for some descriptors more, such as the test's own
 * connection to `/ledger`.
 */
async function comesToRest(rig: EmbeddedRig, descriptors: number): Promise<void> {
  const spare = 5;
  const sample = (): ReturnType<typeof sampleOf> => sampleOf(rig.program.pid, rig.path);
  await until('its descriptors are closed', () => sample().descriptors <= descriptors + spare, {
    waitMsMax: restMsMax,
    pollMs: 500,
  });
  await until(`it holds less than ${idleBytesMax} bytes`, () => sample().residentBytes < idleBytesMax, {
    waitMsMax: restMsMax,
    pollMs: 500,
  }).catch((error: unknown) => {
    throw new Error(`${String(error)} It holds ${sample().residentBytes}.`, { cause: error });
  });
}

/** Asserts that memory does not grow: compares the last third of the samples to the middle one. */
function assertFlat(t: ExecutionContext, { samples }: Sampler): void {
  const third = Math.floor(samples.length / 3);
  const medianOf = (from: number): number =>
    spreadOf(samples.slice(from, from + third).map(({ residentBytes }) => residentBytes)).median;
  const [middle, last] = [medianOf(third), medianOf(2 * third)];
  t.true(last <= 1.15 * middle, `${middle} bytes resident in the middle third, ${last} in the last`);
}

function logSamples(t: ExecutionContext, { samples, residentBytesMax: most }: Sampler): void {
  const mb = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`;
  const maxOf = (name: 'descriptors' | 'fileBytes' | 'otherBytes'): number =>
    Math.max(...samples.map((sample) => sample[name]));
  const { median } = spreadOf(samples.map(({ residentBytes }) => residentBytes));
  t.log(
    `resident: peak ${mb(most())}, median ${mb(median)}, at last ${mb(samples.at(-1)!.residentBytes)}; ${maxOf('descriptors')} descriptors, file ${mb(maxOf('fileBytes'))}, other files ${mb(maxOf('otherBytes'))}`,
  );
}

/** Resolves when a process has used almost no processor time for half a second. */
async function untilIdle(pid: number): Promise<void> {
  let before = -Infinity;
  await until(
    'it is idle',
    () => {
      const used = cpuSecondsOf(pid);
      const isIdle = used - before < 0.05;
      before = used;
      return isIdle;
    },
    { waitMsMax: restMsMax, pollMs: 500 },
  );
}

async function startEmbedded(
  t: ExecutionContext,
  options: Parameters<typeof startEmbeddedRig>[0] = {},
): Promise<EmbeddedRig> {
  const rig = await startEmbeddedRig(options);
  t.teardown(() => rig.stop());
  return rig;
}

/** Starts a sender that stops with the test. A program that no longer reads would block it, and is killed. */
function startSender(t: ExecutionContext, rig: EmbeddedRig, options: Parameters<typeof startSenderTo>[1]): Sender {
  const sender = startSenderTo(rig.port, options);
  t.teardown(async () => {
    await inTime('the lines are read', sender.stop(), 5000).catch(() => rig.program.stop('SIGKILL'));
    await sender.stop();
  });
  return sender;
}

/** Rejects if a promise takes longer than `waitMsMax`. */
async function inTime(what: string, promise: Promise<void>, waitMsMax = settledMsMax): Promise<void> {
  let isDone = false;
  void promise.then(() => {
    isDone = true;
  });
  await until(what, () => isDone, { waitMsMax });
}

function stopAtEnd(t: ExecutionContext, ...clients: readonly Clients[]): void {
  t.teardown(() => Promise.all(clients.map((each) => each.stop())));
}

function ignoreMissing(error: unknown): void {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
}

/** Returns a pseudo-random number from 0 to 1 that depends only on the seed. */
function random(seed: string): number {
  return createHash('sha256').update(seed).digest().readUInt32BE() / 2 ** 32;
}

/** Declares a serial test, on Linux only, since it reads `/proc`. */
function scenario(title: string, run: (t: ExecutionContext) => Promise<void>): void {
  const declare = process.platform === 'linux' ? test.serial : test.serial.skip;
  declare(title, async (t) => {
    t.timeout(isFull ? 1_800_000 : 180_000);
    await run(t);
  });
}
