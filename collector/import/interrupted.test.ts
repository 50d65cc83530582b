/**
 * Imports that are interrupted and repeated, over the real DuckDB store, whose writes are blocked at chosen moments.
 */
import { once } from 'node:events';
import { createServer, request as post } from 'node:http';
import type { AddressInfo } from 'node:net';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import fc from 'fast-check';
import { createRecorder } from '../../shared/record/recorder.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { retainedLevels, levels } from '../../shared/rollup/rollup.js';
import { openDuckdbStore } from '../../shared/store/duckdb/duckdb-store.js';
import type { Store } from '../../shared/store/store.js';
import { plainStore } from '../../test/plain-store.js';
import { temporaryFolder } from '../../test/program.js';
import { createDecoder } from '../decode/decode.js';
import { createImportEndpoint } from './endpoint.js';
import { importContentType, stoppedTrailer } from './protocol.js';
import { createLocalImporter } from './local.js';
import { aggregateOf } from '../../test/rollup-rows.js';

/** The id of the last import. */
let importId = 0;

/** A store whose rows were deleted after they were written, as those older than `RETENTION_REQUESTS` are. */
function withoutRows(store: Store): Store {
  return { ...store, readRequests: () => Promise.resolve([]), requestsFrom: () => Promise.resolve(Infinity) };
}

const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const keptMs = 400 * 86_400_000;
const hourMs = 3_600_000;
const windowMs = 600_000;
const decoder = { timeZone: 'UTC', durationFormat: 'auto' } as const;

/** A store whose writes can be blocked before they begin. */
class HeldStore {
  readonly store: Store;
  readonly #inFlight = new Set<Promise<unknown>>();
  #held: Promise<void> | undefined;
  #release = (): void => undefined;
  /** Number of writes that pass before one is blocked. */
  #passing = Infinity;

  constructor(real: Store) {
    this.store = {
      ...plainStore(real),
      write: async (batch) => {
        this.#passing -= 1;
        const writing = (this.#passing < 0 ? this.#held! : Promise.resolve()).then(() => real.write(batch));
        this.#inFlight.add(writing);
        return await writing.finally(() => this.#inFlight.delete(writing));
      },
    };
  }

  /** Lets `passing` more writes pass and blocks later ones until `release`. */
  holdAfter(passing: number): void {
    this.#passing = passing;
    this.#held = new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  release(): void {
    this.#passing = Infinity;
    this.#release();
  }

  async idle(): Promise<void> {
    await Promise.allSettled(this.#inFlight);
  }
}

/** One attempt to import the file. */
interface Attempt {
  /** Number of lines sent before it is interrupted. Values beyond the length of the file send all of it. */
  readonly lines: number;
  readonly end: 'stop' | 'kill';
  /** Number of writes before the store blocks, until the next attempt is running. */
  readonly writes: number;
  /** Indexes of lines that arrive over a socket before any attempt has sent them, and are still in memory. */
  readonly live: readonly number[];
}

/**
 * Few times, series and paths, so that many lines are equal or have equal times, and rollup windows are open where an
 * import is interrupted.
 */
const line = fc.record({
  offsetMs: fc.constantFrom(0, 1, 20_000, 61_000),
  status: fc.constantFrom(200, 404),
  path: fc.constantFrom('/a', '/b'),
});
const attempt: fc.Arbitrary<Attempt> = fc.record({
  lines: fc.integer({ min: 0, max: 30 }),
  end: fc.constantFrom('stop', 'kill'),
  writes: fc.integer({ min: 0, max: 6 }),
  live: fc.array(fc.nat({ max: 29 }), { maxLength: 4 }),
});
const plan = {
  lines: fc.array(line, { minLength: 1, maxLength: 30 }),
  attempts: fc.array(attempt, { maxLength: 4 }),
  batchRequestsMax: fc.integer({ min: 1, max: 10 }),
};
const cases = Number(process.env['IMPORT_CASES'] ?? 40);

test(`stores each line once after any interruptions of an import through the running program (${cases} cases)`, async (t) => {
  await withStore(async (real) => {
    let caseAt = 0;
    await fc.assert(
      fc.asyncProperty(fc.record(plan), async ({ lines, attempts, batchRequestsMax }) => {
        const startMs = windowOf((caseAt += 1));
        const held = new HeldStore(real);
        const file = lines.map((each, at) => lineText(startMs, at, each));
        // Flushed only by the endpoint: a busy store keeps live requests in memory for as long.
        const recorder = createRecorder({
          store: held.store,
          log: quiet,
          name: 'live',
          hostsMax: 100,
          clientIp: 'full',
          flushMs: hourMs,
        });
        const endpoint = createImportEndpoint({
          store: held.store,
          log: quiet,
          recorder,
          decoder,
          lineBytesMax: 10_000,
          id: 'tested',
          hostsMax: 100,
          clientIp: 'full',
          limits: { batchRequestsMax, stopMsMax: 10, stopDrainMsMax: 10 },
        });
        const server = createServer((request, response) => void endpoint.handle(request, response)).listen(
          0,
          '127.0.0.1',
        );
        server.on('checkContinue', (request, response) => void endpoint.handle(request, response));
        await once(server, 'listening');
        const { port } = server.address() as AddressInfo;
        try {
          const live = new Set<number>();
          let sentMax = 0;
          let before: Promise<unknown> = Promise.resolve();
          for (const { lines: sent, end, writes, live: arrivals } of attempts) {
            for (const at of arrivals)
              if (at >= sentMax && at < file.length && !live.has(at)) {
                live.add(at);
                recorder.record(requestOf(file[at]!));
              }
            sentMax = Math.max(sentMax, sent);
            const importing = send(port, file.slice(0, sent), end);
            // The writes of the previous attempt stay blocked until this one waits for it, or looks up stored requests.
            await sleep(15);
            held.release();
            held.holdAfter(writes);
            // A stopped import gives up on the store after 20 ms. A killed one waits for it, and so does the one after
            // it.
            await Promise.race([importing, sleep(60)]);
            before = importing;
          }
          const last = send(port, file, 'end');
          await sleep(15);
          held.release();
          await before;
          await last;
          await recorder.flush();
          await assertStored(real, startMs, file);
        } finally {
          held.release();
          server.closeAllConnections();
          server.close();
          await endpoint.stop();
          await recorder.close();
        }
      }),
      { numRuns: cases, endOnFailure: true, includeErrorInReport: true },
    );
    t.pass();
  });
});

for (const rows of ['stored', 'deleted'] as const)
  test(`stores each line once after any interruptions of an import that owns the store, while rows are ${rows} (${cases} cases)`, async (t) => {
    await withStore(async (real) => {
      let caseAt = 0;
      await fc.assert(
        fc.asyncProperty(fc.record(plan), async ({ lines, attempts, batchRequestsMax }) => {
          const startMs = windowOf((caseAt += 1));
          // In a file whose times go backwards, repeated lines count as duplicates.
          const ordered = lines.toSorted((one, other) => one.offsetMs - other.offsetMs);
          const file = ordered.map((each, at) => lineText(startMs, at, each));
          for (const { lines: sent, writes } of [...attempts, { lines: Infinity, writes: Infinity }]) {
            const held = new HeldStore(real);
            held.holdAfter(writes);
            const stopping = new AbortController();
            const timer =
              writes < Infinity
                ? setTimeout(() => {
                    stopping.abort();
                  }, 30)
                : undefined; // it waits for the blocked store until then
            importId += 1;
            const importer = createLocalImporter({
              store: rows === 'stored' ? held.store : withoutRows(held.store),
              importId,
              log: quiet,
              hostsMax: 100,
              clientIp: 'full',
              countryOf: undefined,
              decoder,
              lineBytesMax: 10_000,
              isAlone: true,
              dryRun: false,
              signal: stopping.signal,
              limits: { batchRequestsMax, stopMsMax: 10, stopDrainMsMax: 10 },
            });
            await importer.importFile(chunksOf(file, sent, stopping), () => undefined).catch(() => undefined); // a stopped import reports that the store was busy
            clearTimeout(timer);
            await importer.close();
            held.release();
            await held.idle(); // a process does not end in the middle of a write
          }
          await assertStored(real, startMs, file);
        }),
        { numRuns: cases, endOnFailure: true, includeErrorInReport: true },
      );
      t.pass();
    });
  });

/**
 * Start of the ten minutes reserved for a case, so that all cases share one store. Recent enough for rollups of every
 * level.
 */
function windowOf(caseAt: number): number {
  return Math.floor(Date.now() / windowMs) * windowMs - 46 * hourMs + caseAt * windowMs;
}

function lineText(
  startMs: number,
  at: number,
  { offsetMs, status, path }: { offsetMs: number; status: number; path: string },
): string {
  return `{"level":"info","ts":${((startMs + offsetMs) / 1000).toFixed(3)},"logger":"http.log.access","msg":"handled request","request":{"remote_ip":"192.0.2.7","remote_port":"1","client_ip":"192.0.2.7","proto":"HTTP/2.0","method":"GET","host":"a.example","uri":"${path}","headers":{}},"bytes_read":0,"user_id":"","duration":0.001,"size":${at % 2},"status":${status},"resp_headers":{}}\n`;
}

function requestOf(text: string): RequestEvent {
  const decoded = createDecoder(decoder).decode(text.trimEnd(), undefined);
  if (decoded.kind !== 'request') throw new Error(`${text} is no request`);
  return decoded.event;
}

async function* chunksOf(file: readonly string[], sent: number, stopping: AbortController): AsyncGenerator<Buffer> {
  for (const [at, text] of file.entries()) {
    if (at >= sent) stopping.abort();
    await sleep(0);
    yield Buffer.from(text);
  }
}

/** Sends lines to the endpoint; `stop` and `kill` end within the file. Resolves when the connection is closed. */
async function send(port: number, lines: readonly string[], end: 'stop' | 'kill' | 'end'): Promise<void> {
  // An earlier import may have been waiting, too, and start first.
  while ((await sendOnce(port, lines, end)) === 409 && end === 'end') await sleep(5);
}

/** Resolves to the status of the answer; `undefined` if the connection was closed first. */
function sendOnce(port: number, lines: readonly string[], end: 'stop' | 'kill' | 'end'): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const call = post({
      host: '127.0.0.1',
      port,
      path: '/import',
      method: 'POST',
      agent: false,
      headers: { 'content-type': importContentType, expect: '100-continue', 'transfer-encoding': 'chunked' },
    });
    let text = '';
    call.on('continue', () => {
      for (const each of lines) call.write(each);
      if (end === 'kill') {
        call.write('', () => {
          call.destroy();
        });
        return;
      }
      if (end === 'stop') call.addTrailers({ [stoppedTrailer]: 'true' });
      call.end();
    });
    call.on('response', (response) => {
      response
        .setEncoding('utf8')
        .on('data', (part: string) => {
          text += part;
        })
        .on('error', () => undefined);
      response.on('close', () => {
        if (end === 'end' && response.statusCode === 200 && !text.endsWith('"done":true}\n'))
          reject(new Error(`The import ended with ${text}`));
        else resolve(response.statusCode);
      });
    });
    call.on('error', (error) => {
      if (end === 'end') reject(error);
    });
    call.on('close', () => {
      resolve(undefined);
    }); // comes last
    call.flushHeaders();
  });
}

/**
 * Throws if the store's requests, or its rollups within the retention of their level, differ from the file's lines.
 */
async function assertStored(store: Store, startMs: number, file: readonly string[]): Promise<void> {
  const range = { fromMs: startMs, toMs: startMs + windowMs, filter: {} };
  const contentOf = ({ timeMs, uri, status, size }: RequestEvent): string =>
    `${timeMs - startMs} ${uri} ${status} ${size}`;
  const wanted = file.map(requestOf).map(contentOf).toSorted();
  const stored = (await store.readRequests({ ...range, limit: 1000 })).map(contentOf).toSorted();
  if (stored.join('\n') !== wanted.join('\n'))
    throw new Error(
      `The file has ${wanted.length} requests:\n${wanted.join('\n')}\nand the store ${stored.length}:\n${stored.join('\n')}`,
    );
  for (const level of levels.filter((each) => each * 1000 <= windowMs)) {
    const { count } = aggregateOf(await store.readRollups({ ...range, level, scope: 'all' }));
    const kept = retainedLevels(Date.now() - startMs, 'all').includes(level) ? file.length : 0;
    if (count !== kept) throw new Error(`The rollups of ${level} s count ${count} requests of ${kept}`);
  }
}

/** Runs a test over its own DuckDB store. */
async function withStore(run: (store: Store) => Promise<void>): Promise<void> {
  const folder = await temporaryFolder();
  const store = await openDuckdbStore(
    { path: join(folder, 'requests.duckdb'), retention: { requestsMs: keptMs, rollupsMs: keptMs } },
    { log: quiet },
  );
  try {
    await run(store);
  } finally {
    await store.close();
    await rm(folder, { recursive: true });
  }
}
