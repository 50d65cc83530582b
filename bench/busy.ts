/**
 * How quick the dashboard stays while lines pour in as fast as they are taken: collector and web app in one process
 * over DuckDB, `/` beside that of the idle program.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { LedgerJson } from '../shared/store/ledger-json.js';
import { readLedger, startOverDuckdb } from '../test/program.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, ratioOf, ratioResult, spreadText, type Result } from './compare.js';
import { makeLinesFile, sendFile } from './lines-file.js';
import { pageMs } from './page.js';

/** Pages of one run, and how far apart they start, in milliseconds: a page that takes longer is followed at once. */
const pagesPerRun = 100;
const pageEveryMs = 100;

/** Compares the pages of the program at rest with those of the same program at full speed. */
export async function benchBusy(say: (text: string) => void): Promise<Result[]> {
  const file = await makeLinesFile(Number(process.env['BENCH_LINES'] ?? 300_000));
  const program = await startOverDuckdb();
  const { port, http, web } = program;
  let sent = 0;
  const send = async (): Promise<void> => {
    await sendFile(file, port);
    sent += file.lines;
  };
  /** What comes faster than DuckDB takes it is dropped when the memory is full: Caddy never waits. */
  const settled = async (): Promise<LedgerJson> =>
    await until(
      'all lines are stored or dropped',
      async () => {
        const now = await readLedger(http);
        return now.received >= sent && now.in_memory === 0 && now;
      },
      { waitMsMax: 120_000, pollMs: 200 },
    );
  const fetchPages = async (): Promise<{ p50Ms: number; p95Ms: number; mostMs: number }> => {
    const times: number[] = [];
    for (
      let atMs = performance.now();
      times.length < pagesPerRun;
      atMs = Math.max(atMs + pageEveryMs, performance.now())
    ) {
      await pause(Math.max(0, atMs - performance.now()));
      times.push(await pageMs(`http://127.0.0.1:${web}/`));
    }
    times.sort((a, b) => a - b);
    const atShare = (share: number): number => Math.round(10 * times[Math.ceil(share * times.length) - 1]!) / 10;
    return { p50Ms: atShare(0.5), p95Ms: atShare(0.95), mostMs: atShare(1) };
  };
  try {
    await send();
    const idle = {
      name: 'idle',
      run: async () => {
        await settled();
        return await fetchPages();
      },
    };
    const busy = {
      name: 'busy',
      async run() {
        const over = new AbortController();
        const startMs = performance.now();
        const before = await readLedger(http);
        const pouring = (async () => {
          while (!over.signal.aborted) await send();
        })();
        const figures = await fetchPages().finally(() => {
          over.abort();
        });
        await pouring;
        const seconds = (performance.now() - startMs) / 1000;
        const after = await settled();
        return {
          ...figures,
          linesPerSecond: Math.round((after.received - before.received) / seconds),
          storedPerSecond: Math.round((after.stored - before.stored) / seconds),
        };
      },
    };
    const runs = await inTurn([idle, busy], {
      rounds: Number(process.env['BENCH_ROUNDS'] ?? 3),
      onRun: (name, figures) => {
        say(`${name}: ${JSON.stringify(figures)}`);
      },
    });
    return [
      ratioResult(
        `\`/\` while ${spreadText(figureOf(runs, 'busy', 'linesPerSecond'))} lines/s come in as fast as they are read, p95, DuckDB`,
        {
          measured: `${spreadText(figureOf(runs, 'busy', 'p95Ms'))} ms`,
          against: `idle: ${spreadText(figureOf(runs, 'idle', 'p95Ms'))} ms`,
          ratio: ratioOf(runs, 'p95Ms', 'busy', 'idle'),
          atMost: 3,
        },
      ),
    ];
  } finally {
    await program.stop();
  }
}
