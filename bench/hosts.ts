/**
 * What sites cost: the same traffic over 5, 200 and 10,000 hosts, imported into the embedded store; its size, its rows
 * and its pages. Ratios are to 5 hosts. The goals by the clock are those of 10 requests a second over 200 hosts for a
 * day.
 */
import { createWriteStream } from 'node:fs';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { DuckDBInstance } from '@duckdb/node-api';
import { residentBytesOf, runningSecondsOf } from '../test/process.js';
import { readLedger, runProgram, startOverDuckdb, temporaryFolder } from '../test/program.js';
import { sendTcp } from '../test/sample.js';
import { until } from '../test/until.js';
import { figureOf, inTurn, ratioOf, spreadOf, spreadText, type Figures, type Result, type Runs } from './compare.js';
import { busiest, createManyHosts, manyHostsLog } from './many-hosts.js';
import { pageMs } from './page.js';

const hostCounts = [5, 200, 10_000] as const;
const fewest = hostCounts[0];
const file = 'requests.duckdb';
const hours = 24;
const ranges = ['1h', '24h', '7d', '30d'] as const;
const filters = {
  'no filter': '',
  'host filter': `&host=${busiest.host}`,
  'path filter': `&path=${encodeURIComponent(busiest.path)}`,
} as const;
/** Pages of each kind in one round, after the first one; and lines that are sent before each turn of them. */
const warmPages = 4;
const linesBetween = 50;

/** What is wanted of a figure: at most, or at least, so much of it, and in relation to 5 hosts. */
interface Goal {
  readonly what: string;
  readonly figure: string;
  readonly unit: string;
  readonly digits?: number;
  readonly atLeast?: number;
  readonly atMost?: number;
  readonly ratioAtMost?: number;
  /** The figure that the ratio is made of: processor time is steadier than the clock. Default: `figure`. */
  readonly ratioFigure?: string;
}

const pageRatioMax = 1.3;
/** The goals of pages by the clock, in milliseconds: the first time, and again. */
const pageGoals: Readonly<Record<string, readonly [cold: number, warm: number]>> = {
  '/ 24h no filter': [100, 100],
  '/ 24h path filter': [500, 500],
  '/api/summary 24h': [100, 10],
};

/** It lists 50 sites, or all of 5: no ratio of these is wanted. */
const listOfSites = '/api/sites?limit=50';
const pages: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    Object.entries(filters).flatMap(([name, filter]) =>
      ranges.map((range) => [`/ ${range} ${name}`, `/?from=now-${range}${filter}`]),
    ),
  ),
  '/api/summary 24h': '/api/summary?from=now-24h',
  [`${listOfSites} 24h`]: `${listOfSites}&from=now-24h`,
};

const goals: readonly Goal[] = [
  { what: 'import', figure: 'linesPerSecond', unit: 'lines/s', atLeast: 45_000 },
  { what: 'import, peak resident memory', figure: 'importMb', unit: 'MB', atMost: 600 },
  { what: 'file', figure: 'bytes', unit: 'bytes a request', digits: 1, atMost: 50 },
  { what: 'rollup and top-list rows', figure: 'rows', unit: 'rows', atMost: 150_000 },
  { what: 'of these, rollup rows', figure: 'rollupRows', unit: 'rows' },
  { what: 'of these, top-list rows', figure: 'topRows', unit: 'rows' },
  ...Object.keys(pages).flatMap((name): Goal[] =>
    (['cold', 'warm'] as const).map((state, at) => {
      const atMost = pageGoals[name]?.[at];
      return {
        what: `${name}, ${state}`,
        figure: `${name} ${state}`,
        ratioFigure: `${name} ${state} cpu`,
        unit: 'ms',
        digits: 1,
        ...(!name.startsWith(listOfSites) && { ratioAtMost: pageRatioMax }),
        ...(atMost !== undefined && { atMost }),
      };
    }),
  ),
  { what: 'pages, peak resident memory', figure: 'pagesMb', unit: 'MB', atMost: 600 },
];

/**
 * Compares the three. `BENCH_LINES` requests, 50,000 unless it is set; pages in `BENCH_ROUNDS` rounds, two unless it is
 * set.
 */
export async function benchHosts(say: (text: string) => void): Promise<Result[]> {
  const count = Number(process.env['BENCH_LINES'] ?? 50_000);
  const onRun = (name: string, figures: Figures): void => {
    say(`${name} hosts: ${JSON.stringify(figures)}`);
  };
  const folders = new Map(
    await Promise.all(hostCounts.map(async (hosts) => [hosts, await temporaryFolder()] as const)),
  );
  try {
    const contenders = (run: (hosts: number, folder: string) => Promise<Figures>) =>
      hostCounts.map((hosts) => ({ name: String(hosts), run: () => run(hosts, folders.get(hosts)!) }));
    const imported = await inTurn(
      contenders((hosts, folder) => importLog(folder, { count, hosts })),
      { rounds: 1, onRun },
    );
    const paged = await inTurn(
      contenders((hosts, folder) => measurePages(join(folder, file), hosts)),
      { rounds: Number(process.env['BENCH_ROUNDS'] ?? 2), onRun },
    );
    return hostCounts
      .filter((hosts) => hosts !== fewest)
      .flatMap((hosts) =>
        goals.map((goal) => resultOf(goal, goal.figure in imported[fewest]![0]! ? imported : paged, hosts)),
      );
  } finally {
    for (const folder of folders.values()) await rm(folder, { recursive: true, force: true });
  }
}

async function importLog(folder: string, { count, hosts }: { count: number; hosts: number }): Promise<Figures> {
  const [log, path] = [join(folder, 'access.log'), join(folder, file)];
  await pipeline(Readable.from(manyHostsLog({ count, hours, hosts })), createWriteStream(log));
  const startMs = performance.now();
  const program = await runProgram(['import', log], { STORE: `duckdb:${path}`, HOSTS_MAX: '10000' });
  let most = 0;
  const look = setInterval(() => {
    most = Math.max(most, residentBytesOf(program.pid).most);
  }, 100);
  const status = await program.ended.finally(() => {
    clearInterval(look);
  });
  if (status !== 0)
    throw new Error(`The import ended with status ${status}, and wrote:\n${program.stdout()}${program.stderr()}`);
  const linesPerSecond = Math.round(count / ((performance.now() - startMs) / 1000));
  await rm(log);
  await settle(path, hosts);
  const { size } = await stat(path);
  return { linesPerSecond, importMb: Math.round(most / 1e6), bytes: size / count, ...(await countRows(path)) };
}

/**
 * Runs the program over the file until it has nothing left to do: it closes the windows of the import when the next
 * lines come.
 */
async function settle(path: string, hosts: number): Promise<void> {
  await withProgram(path, async ({ pid, send }) => {
    await send(createManyHosts(hosts), 1);
    let seconds = 0;
    await until(
      'the program is idle',
      async () => {
        const before = seconds;
        seconds = runningSecondsOf(pid);
        return seconds - before < idleShareMax;
      },
      { waitMsMax: 120_000, pollMs: 3000 },
    );
  });
}

/** Processor time in three seconds below which the program is idle, in seconds. */
const idleShareMax = 0.1;

async function countRows(path: string): Promise<{ rows: number; rollupRows: number; topRows: number }> {
  const instance = await DuckDBInstance.create(path, { access_mode: 'READ_ONLY' });
  const connection = await instance.connect();
  const rowsOf = async (table: string): Promise<number> =>
    Number((await connection.runAndReadAll(`SELECT count(*) FROM ${table}`)).getRows()[0]![0]);
  const [rollupRows, topRows] = [
    (await rowsOf('request_rollup')) + (await rowsOf('host_rollup')),
    await rowsOf('request_top'),
  ];
  connection.closeSync();
  instance.closeSync();
  return { rows: rollupRows + topRows, rollupRows, topRows };
}

/**
 * Starts the program over the file, and opens each page: once before its data was read, and then after lines that have
 * just come.
 */
async function measurePages(path: string, hosts: number): Promise<Figures> {
  return await withProgram(path, async ({ pid, url, send }) => {
    const open = async (page: string): Promise<{ ms: number; cpuMs: number }> => {
      const before = runningSecondsOf(pid);
      const ms = await pageMs(url + page);
      return { ms, cpuMs: (runningSecondsOf(pid) - before) * 1000 };
    };
    // Compiles the code, over windows that no page below reads.
    for (let times = 0; times < 8; times += 1) await open('/?from=now-30h&to=now-29h&compare=off');
    const cold = new Map<string, { ms: number; cpuMs: number }[]>();
    for (const [name, page] of Object.entries(pages)) cold.set(name, [await open(page)]);
    const line = createManyHosts(hosts);
    const warm = new Map(Object.keys(pages).map((name) => [name, [] as { ms: number; cpuMs: number }[]]));
    for (let turn = 0; turn < warmPages; turn += 1) {
      await send(line, linesBetween);
      for (const [name, page] of Object.entries(pages)) warm.get(name)!.push(await open(page));
    }
    const figures = [
      ['cold', cold],
      ['warm', warm],
    ] as const;
    return {
      ...Object.fromEntries(
        figures.flatMap(([state, opened]) =>
          [...opened].flatMap(([name, times]) => [
            [`${name} ${state}`, spreadOf(times.map(({ ms }) => ms)).median],
            [`${name} ${state} cpu`, spreadOf(times.map(({ cpuMs }) => cpuMs)).median],
          ]),
        ),
      ),
      pagesMb: Math.round(residentBytesOf(pid).most / 1e6),
    };
  });
}

interface ServedFile {
  readonly pid: number;
  /** The address of the pages. */
  readonly url: string;
  /** Sends lines of now, and resolves when they are stored. */
  readonly send: (line: (timeMs: number) => string, count: number) => Promise<void>;
}

/** Runs the program over a file, and stops it. */
async function withProgram<Result>(path: string, run: (served: ServedFile) => Promise<Result>): Promise<Result> {
  const program = await startOverDuckdb(path);
  const { port, http, web } = program;
  let sent = 0;
  try {
    return await run({
      pid: program.pid,
      url: `http://127.0.0.1:${web}`,
      async send(line, count) {
        sent += count;
        await sendTcp(port, Buffer.from(Array.from({ length: count }, () => line(Date.now())).join('')), [65_536]);
        await until('the lines are stored', async () => (await readLedger(http)).stored === sent);
      },
    });
  } finally {
    await program.stop();
  }
}

function resultOf(
  { what, figure, unit, digits = 0, atLeast, atMost, ratioAtMost, ratioFigure = figure }: Goal,
  runs: Runs,
  hosts: number,
): Result {
  const value = figureOf(runs, String(hosts), figure);
  const ratio = ratioOf(runs, ratioFigure, String(hosts), String(fewest));
  const wanted = [
    ...(atLeast === undefined
      ? []
      : [{ text: `at least ${atLeast.toLocaleString('en')} ${unit}`, holds: value.median >= atLeast }]),
    ...(atMost === undefined
      ? []
      : [{ text: `at most ${atMost.toLocaleString('en')} ${unit}`, holds: value.median <= atMost }]),
    ...(ratioAtMost === undefined ? [] : [{ text: `at most ${ratioAtMost} ×`, holds: ratio.median <= ratioAtMost }]),
  ];
  return {
    what: `${hosts.toLocaleString('en')} hosts: ${what}`,
    measured: `${spreadText(value, digits)} ${unit}: ${spreadText(ratio, 2)} ×${ratioFigure === figure ? '' : ' of processor time'}`,
    against: `${fewest} hosts: ${spreadText(figureOf(runs, String(fewest), figure), digits)}`,
    wanted: wanted.map(({ text }) => text).join(', '),
    holds: wanted.length === 0 ? undefined : wanted.every(({ holds }) => holds),
  };
}
