/** The embedded store at 3,000 lines per second, with and without 8 readers of the largest answers and 50 viewers. */
import { setTimeout as pause } from 'node:timers/promises';
import { createLines, startEmbeddedRig, startSender, sumOf, type EmbeddedRig } from '../test/fault-rig.js';
import { Answers, sampleOf, startReaders, startSampler, startViewers, type Clients, type Known } from '../test/load.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, ratioOf, ratioResult, spreadText, type Figures, type Result } from './compare.js';

const linesPerSecond = 3000;
const preloaded = 12_000;
const readers = 8;
const viewers = 50;
/**
 * Interval at which another client opens the page, in milliseconds. A page that takes longer is followed by the next at
 * once.
 */
const pageEveryMs = 500;
const restMsMax = 60_000;
const residentMbMax = 600;
const idleMbMax = 250;

/** Compares the program with readers to the program without. Each run lasts `BENCH_SECONDS`; default: 20. */
export async function benchEmbedded(say: (text: string) => void): Promise<Result[]> {
  const seconds = Number(process.env['BENCH_SECONDS'] ?? 20);
  const runs = await inTurn(
    [
      { name: 'alone', run: () => measure(seconds, () => []) },
      {
        name: 'read',
        run: () =>
          measure(seconds, (rig, known) => [
            startReaders(rig.url, { readers, known }),
            startViewers(rig.url, { viewers }),
          ]),
      },
    ],
    {
      rounds: Number(process.env['BENCH_ROUNDS'] ?? 3),
      onRun: (name, figures) => {
        say(`${name}: ${JSON.stringify(figures)}`);
      },
    },
  );
  const text = (figure: string, digits = 0, name = 'read'): string => spreadText(figureOf(runs, name, figure), digits);
  const under = `with ${readers} readers of the largest answers and ${viewers} viewers beside ${linesPerSecond.toLocaleString('en')} lines/s`;
  const residentMb = figureOf(runs, 'read', 'residentMb');
  const restMb = figureOf(runs, 'read', 'restMb');
  return [
    {
      what: `DuckDB ${under}: answers of readers and viewers per second`,
      measured: text('answeredPerSecond', 1),
      against: `503: ${text('unavailablePercent', 1)} %`,
      wanted: '',
      holds: undefined,
    },
    {
      what: 'the same: answers that are neither correct nor a 503 with Retry-After',
      measured: text('failed'),
      against: '',
      wanted: '0',
      holds: figureOf(runs, 'read', 'failed').max === 0,
    },
    ratioResult('the same: `/`, p95', {
      measured: `${text('pageP95Ms')} ms, ${text('pageUnavailablePercent', 1)} % × 503`,
      against: `lines alone: ${text('pageP95Ms', 0, 'alone')} ms`,
      ratio: ratioOf(runs, 'pageP95Ms', 'read', 'alone'),
    }),
    ratioResult('the same: lines stored per second', {
      measured: text('storedPerSecond'),
      against: `lines alone: ${text('storedPerSecond', 0, 'alone')}`,
      ratio: ratioOf(runs, 'storedPerSecond', 'read', 'alone'),
      atLeast: 0.95,
    }),
    {
      what: 'the same: lines dropped',
      measured: text('dropped'),
      against: `lines alone: ${text('dropped', 0, 'alone')}`,
      wanted: '0',
      holds: figureOf(runs, 'read', 'dropped').max === 0,
    },
    {
      what: 'the same: peak resident memory',
      measured: `${spreadText(residentMb)} MB`,
      against: `lines alone: ${text('residentMb', 0, 'alone')} MB`,
      wanted: `at most ${residentMbMax} MB`,
      holds: residentMb.max <= residentMbMax,
    },
    {
      what: `resident memory at rest, within ${restMsMax / 1000} s afterwards`,
      measured: `${spreadText(restMb)} MB`,
      against: `after lines alone: ${text('restMb', 0, 'alone')} MB`,
      wanted: `at most ${idleMbMax} MB`,
      holds: restMb.max <= idleMbMax,
    },
  ];
}

/**
 * Runs the program over an empty store, sends lines for `seconds` and opens the page meanwhile. Throws if the program
 * dies.
 */
async function measure(
  seconds: number,
  startClients: (rig: EmbeddedRig, known: Known) => readonly Clients[],
): Promise<Figures> {
  const rig = await startEmbeddedRig();
  try {
    const line = createLines({ hosts: 10, methods: 1, statuses: 2 });
    const fromMs = Date.now();
    const first = startSender(rig.port, { perSecond: 10_000, linesMax: preloaded, line });
    await until('the first lines are stored', async () => (await rig.ledger()).stored === preloaded, {
      waitMsMax: 60_000,
    });
    await first.stop();
    const sampler = startSampler(rig.program.pid, rig.path);
    const startMs = performance.now();
    const sender = startSender(rig.port, { perSecond: linesPerSecond, line: (id) => line(preloaded + id) });
    const clients = startClients(rig, {
      fromMs,
      preloaded,
      storedMin: () => preloaded,
      storedMax: () => preloaded + sender.sentMs.length,
    });
    const pages = new Answers();
    while (performance.now() < startMs + seconds * 1000) {
      const askedMs = performance.now();
      await pages.ask('/', `${rig.url}/?refresh=off`);
      await pause(Math.max(0, askedMs + pageEveryMs - performance.now()));
    }
    const loadSeconds = (performance.now() - startMs) / 1000;
    const { stored } = await rig.ledger();
    await sender.stop();
    await Promise.all(clients.map((each) => each.stop()));
    const settled = await until(
      'all lines are stored or dropped',
      async () => {
        const ledger = await rig.ledger();
        return ledger.received === preloaded + sender.sentMs.length && ledger.in_memory === 0 && ledger;
      },
      { waitMsMax: 120_000 },
    );
    sampler.stop();
    const total = clients.reduce(
      (sums, { answers }) => ({
        ok: sums.ok + answers.ok + answers.unchanged,
        unavailable: sums.unavailable + answers.unavailable,
        failed: sums.failed + answers.failed,
      }),
      { ok: 0, unavailable: 0, failed: 0 },
    );
    const percentOf = (part: number, all: number): number => (all === 0 ? 0 : (100 * part) / all);
    const sorted = pages.okMs.toSorted((one, other) => one - other);
    return {
      answeredPerSecond: total.ok / loadSeconds,
      unavailablePercent: percentOf(total.unavailable, total.ok + total.unavailable + total.failed),
      failed: total.failed + pages.failed,
      // If no page was answered at all, the duration of the run is a lower bound.
      pageP95Ms: Math.round(sorted[Math.ceil(0.95 * sorted.length) - 1] ?? loadSeconds * 1000),
      pageUnavailablePercent: percentOf(pages.unavailable, pages.total),
      storedPerSecond: Math.round((stored - preloaded) / loadSeconds),
      dropped: sumOf(settled.dropped),
      residentMb: Math.round(sampler.residentBytesMax() / 1e6),
      restMb: Math.round((await restBytes(rig)) / 1e6),
    };
  } finally {
    await rig.stop();
  }
}

/** Returns the resident memory at rest: the first sample within the limit, or else the smallest within `restMsMax`. */
async function restBytes({ program, path }: EmbeddedRig): Promise<number> {
  let least = Infinity;
  const endMs = performance.now() + restMsMax;
  while (least > idleMbMax * 1e6 && performance.now() < endMs) {
    least = Math.min(least, sampleOf(program.pid, path).residentBytes);
    await pause(1000);
  }
  return least;
}
