/** The contents of a store after damage to its write-ahead log, which a killed process left. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFile, link, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { DuckDBInstance } from '@duckdb/node-api';
import test from 'ava';
import fc from 'fast-check';
import { StoreError } from '../../errors.js';
import { createLog } from '../../log.js';
import { duckdbBatch } from '../../../test/duckdb-writer.js';
import type { Store } from '../store.js';
import { openDuckdbStore } from './duckdb-store.js';
import { aggregateOf } from '../../../test/rollup-rows.js';

const dayMs = 86_400_000;
const { requestsPerBatch } = duckdbBatch(1);

/** A database file and its log. */
interface Files {
  readonly database: Buffer;
  readonly log: Buffer;
}

/** Left by a killed writer. All its `batches` are in the log. */
let killed: Files & { readonly batches: number };
/** The same, but killed after a checkpoint had written the file and before it deleted the log. */
let checkpointed: Files;
/** End of each transaction in the log. */
let ends: number[];

/** Bytes of the log before its first entry. */
const headerBytes = 8;

/**
 * Finds where the transactions of a log end: after each flush entry, here with its length, checksum and content as
 * DuckDB writes them.
 */
function endsOf(log: Buffer): number[] {
  const flush = Buffer.from('0500000000000000e7fe7d722fed3d5e640064ffff', 'hex');
  const found: number[] = [];
  for (let at = log.indexOf(flush); at !== -1; at = log.indexOf(flush, at + 1)) found.push(at + flush.length);
  return found;
}

function transactionsOf(log: Buffer): Buffer[] {
  return endsOf(log).map((position, at, all) => log.subarray(all[at - 1] ?? headerBytes, position));
}

test.before(async (t) => {
  const { folder, path } = await emptyFolder();
  const writer = spawn(
    process.execPath,
    [fileURLToPath(new URL('../../../test/duckdb-writer.js', import.meta.url)), path],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const gone = once(writer, 'exit');
  for await (const line of createInterface({ input: writer.stdout })) if (line === 'taken 8') writer.kill('SIGKILL');
  await gone;
  const [database, whole] = await Promise.all([readFile(path), readFile(`${path}.wal`)]);
  // The retention guard writes its own transaction at some moment after the start. All others are batches.
  const log = Buffer.concat([
    whole.subarray(0, headerBytes),
    ...transactionsOf(whole).filter((transaction) => !transaction.includes('"lookedMs"')),
  ]);
  ends = endsOf(log);
  killed = { database, log, batches: ends.length };
  t.true(killed.batches >= 8);

  await writeFile(`${path}.wal`, killed.log);
  const instance = await DuckDBInstance.create(path);
  const connection = await instance.connect();
  await connection.run("SET debug_checkpoint_abort = 'BEFORE_TRUNCATE'");
  await t.throwsAsync(connection.run('CHECKPOINT'));
  checkpointed = { database: await readFile(path), log: await readFile(`${path}.wal`) };
  connection.closeSync();
  instance.closeSync();
  t.true(checkpointed.log.length > killed.log.length);
  await rm(folder, { recursive: true });
});

type Damage = (log: Buffer) => Buffer;
const flip =
  (at: (log: Buffer) => number, bits = 1): Damage =>
  (log) => {
    const copy = Buffer.from(log);
    copy[at(log)]! ^= bits;
    return copy;
  };
const end =
  (back: number) =>
  (log: Buffer): number =>
    log.length - back;

/** `surviving`: number of batches that survive. */
const damages: readonly {
  readonly name: string;
  readonly damage: Damage;
  readonly surviving: (batches: number) => number;
  readonly line?: 'error' | 'warn';
}[] = [
  { name: 'intact', damage: (log) => log, surviving: (batches) => batches },
  {
    name: 'its last 100 bytes are zero',
    damage: (log) => Buffer.concat([log.subarray(0, -100), Buffer.alloc(100)]),
    surviving: (batches) => batches - 1,
    line: 'error',
  },
  {
    name: '4 kB of zeros follow',
    damage: (log) => Buffer.concat([log, Buffer.alloc(4096)]),
    surviving: (batches) => batches,
    line: 'error',
  },
  {
    name: 'noise follows',
    damage: (log) => Buffer.concat([log, Buffer.alloc(4096, 'noise')]),
    surviving: (batches) => batches,
    line: 'error',
  },
  {
    name: 'one byte follows',
    damage: (log) => Buffer.concat([log, Buffer.from('x')]),
    surviving: (batches) => batches,
    line: 'warn',
  },
  {
    name: 'it is a byte short',
    damage: (log) => log.subarray(0, -1),
    surviving: (batches) => batches - 1,
    line: 'warn',
  },
  {
    name: 'the head of its last entry is cut',
    damage: (log) => log.subarray(0, -15),
    surviving: (batches) => batches - 1,
    line: 'warn',
  },
  {
    name: 'it ends within the second transaction',
    damage: (log) => log.subarray(0, ends[0]! + 5000),
    surviving: () => 1,
    line: 'warn',
  },
  { name: 'it ends between transactions', damage: (log) => log.subarray(0, ends[2]), surviving: () => 3 },
  { name: 'it ends within the header', damage: (log) => log.subarray(0, 3), surviving: () => 0, line: 'warn' },
  { name: 'it is empty', damage: () => Buffer.alloc(0), surviving: () => 0 },
  { name: 'it is all zeros', damage: (log) => Buffer.alloc(log.length), surviving: () => 0, line: 'error' },
  { name: 'a byte of the header is wrong', damage: flip(() => 0), surviving: () => 0, line: 'error' },
  { name: 'the version says that it is encrypted', damage: flip(() => 5), surviving: () => 0, line: 'error' },
  { name: 'the end of the header is wrong', damage: flip(() => 7, 0x80), surviving: () => 0, line: 'error' },
  {
    name: 'the length of the first entry is too great',
    damage: flip(() => 14, 0x80),
    surviving: () => 0,
    line: 'error',
  },
  {
    name: 'the length of an entry reaches beyond the end',
    damage: flip(() => ends[3]! + 3),
    surviving: () => 4,
    line: 'error',
  },
  {
    name: 'the length of an entry is nothing a process can hold',
    damage: (log) =>
      Buffer.concat([log.subarray(0, ends[3]), Buffer.from('f8ffffffffffffff', 'hex'), log.subarray(ends[3]! + 8)]),
    surviving: () => 4,
    line: 'error',
  },
  {
    name: 'the length of the last flush entry is wrong',
    damage: flip(end(21), 0x10),
    surviving: (batches) => batches - 1,
    line: 'error',
  },
  { name: 'a checksum is wrong', damage: flip(() => ends[4]! + 9), surviving: () => 5, line: 'error' },
  {
    name: 'a byte in the middle of a transaction is wrong',
    damage: flip(() => ends[1]! + 20_000),
    surviving: () => 2,
    line: 'error',
  },
  { name: 'its last byte is wrong', damage: flip(end(1)), surviving: (batches) => batches - 1, line: 'error' },
];

for (const { name, damage, surviving, line } of damages) {
  test(`opens a store whose log is damaged: ${name}`, async (t) => {
    const { folder, path } = await emptyFolder();
    const log = damage(killed.log);
    await put(path, { database: killed.database, log });
    const { store, lines } = await openLogged(path);
    const batches = surviving(killed.batches);
    t.deepEqual(await totals(store), totalsOf(batches));
    t.deepEqual(
      lines.map(({ level }) => level),
      { error: ['warn', 'error'], warn: ['warn'], none: [] }[line ?? 'none'],
    );
    const [moved] = await movedLogs(folder);
    if (line === 'error') {
      t.deepEqual(await readFile(join(folder, moved!)), log);
      t.is((await stat(join(folder, moved!))).mode & 0o777, 0o600);
      const { text } = lines[1]!;
      t.true(text.includes(join(folder, moved!)) && text.includes(`${log.length} bytes`), text);
      t.true(text.includes('npm run import'), text);
      if (batches > 0)
        t.true(text.includes(`from ${new Date([...duckdbBatch(batches).requests][0]!.timeMs).toISOString()}`), text);
    } else t.is(moved, undefined);

    await store.write(duckdbBatch(batches + 1));
    await store.close();
    const reopened = await openLogged(path);
    t.deepEqual(await totals(reopened.store), totalsOf(batches + 1));
    t.deepEqual(reopened.lines, []);
    await reopened.store.close();
    await rm(folder, { recursive: true });
  });
}

test('opens after any damage, keeps everything before it, and stores nothing twice', async (t) => {
  const position = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const anyDamage = fc.oneof(
    fc.record({ kind: fc.constant('flip' as const), at: position, bits: fc.integer({ min: 1, max: 255 }) }),
    fc.record({ kind: fc.constant('flip-end' as const), at: position, bits: fc.integer({ min: 1, max: 255 }) }),
    fc.record({ kind: fc.constant('truncate' as const), at: position }),
    fc.record({ kind: fc.constant('zeros' as const), at: position }),
    fc.record({ kind: fc.constant('append' as const), bytes: fc.uint8Array({ minLength: 1, maxLength: 64 }) }),
  );
  await fc.assert(
    fc.asyncProperty(anyDamage, fc.boolean(), async (damage, isCheckpointed) => {
      const { database, log } = isCheckpointed ? checkpointed : killed;
      const bytes = Buffer.from(log);
      let at = damage.kind === 'append' ? log.length : Math.floor(damage.at * log.length);
      let damaged: Buffer = bytes;
      if (damage.kind === 'flip-end') at = log.length - 1 - Math.floor(damage.at * 200);
      if (damage.kind === 'flip' || damage.kind === 'flip-end') bytes[at]! ^= damage.bits;
      else if (damage.kind === 'zeros') bytes.fill(0, at);
      else if (damage.kind === 'truncate') damaged = bytes.subarray(0, at);
      else damaged = Buffer.concat([bytes, damage.bytes]);
      // Truncated at the end of a transaction, a log does not show that it belongs to an earlier state of the file.
      fc.pre(!isCheckpointed || damage.kind !== 'truncate' || !ends.includes(at));

      const { folder, path } = await emptyFolder();
      await put(path, { database, log: damaged });
      const { store, lines } = await openLogged(path);
      const found = await totals(store);
      const batches = found.requests / requestsPerBatch;
      t.deepEqual(found, totalsOf(batches));
      const intact = isCheckpointed ? killed.batches : ends.filter((position) => position <= at).length;
      t.is(batches, intact, JSON.stringify(damage));
      const isError = lines.some(({ level }) => level === 'error');
      t.true(
        lines.length > 0 ||
          batches === killed.batches ||
          (damage.kind === 'truncate' && (at === 0 || ends.includes(at))),
        JSON.stringify(damage),
      );
      if (isError) t.deepEqual(await readFile(join(folder, (await movedLogs(folder))[0]!)), damaged);
      await store.write(duckdbBatch(batches + 1));
      await store.close();
      const reopened = await openLogged(path);
      t.deepEqual(await totals(reopened.store), totalsOf(batches + 1));
      await reopened.store.close();
      await rm(folder, { recursive: true });
    }),
    { numRuns: 20 },
  );
});

test('does not replay a log that outlived its checkpoint when the checkpoint record at its end is damaged', async (t) => {
  const { database, log } = checkpointed;
  for (const damaged of [
    log,
    log.subarray(0, -1),
    log.subarray(0, killed.log.length + 1),
    flip(end(3))(log),
    Buffer.concat([log.subarray(0, -100), Buffer.alloc(100)]),
    Buffer.concat([log, Buffer.alloc(4096)]),
  ]) {
    const { folder, path } = await emptyFolder();
    await put(path, { database, log: damaged });
    const { store } = await openLogged(path);
    t.deepEqual(await totals(store), totalsOf(killed.batches));
    await store.close();
    await rm(folder, { recursive: true });
  }
});

test('sets aside a log whose database file is missing or empty, which DuckDB would delete', async (t) => {
  for (const database of [undefined, Buffer.alloc(0)]) {
    const { folder, path } = await emptyFolder();
    await put(path, { database, log: killed.log });
    const { store, lines } = await openLogged(path);
    t.deepEqual(await totals(store), totalsOf(0));
    t.regex(lines.at(-1)!.text, /is missing or empty, but its write-ahead log is there/);
    t.deepEqual(await readFile(join(folder, (await movedLogs(folder))[0]!)), killed.log);
    await store.close();
    await rm(folder, { recursive: true });
  }
});

test('sets aside a damaged log that creates the tables, and creates them again', async (t) => {
  const { folder, path } = await emptyFolder();
  const { store: first } = await openLogged(path);
  const copy = join(folder, 'copy.duckdb');
  await copyFile(path, copy);
  await writeFile(`${copy}.wal`, flip(() => 1000)(await readFile(`${path}.wal`)));
  await first.close();
  const { store, lines } = await openLogged(copy);
  t.is(lines.at(-1)!.level, 'error');
  await store.write(duckdbBatch(1));
  t.deepEqual(await totals(store), totalsOf(1));
  await store.close();
  await rm(folder, { recursive: true });
});

test('sets aside an intact log of another database', async (t) => {
  const { folder, path } = await emptyFolder();
  const other = join(folder, 'other.duckdb');
  const instance = await DuckDBInstance.create(other);
  const connection = await instance.connect();
  await connection.run('CREATE TABLE elsewhere (a INTEGER)');
  await connection.run('CHECKPOINT');
  await connection.run('INSERT INTO elsewhere VALUES (1)');
  const log = await readFile(`${other}.wal`);
  connection.closeSync();
  instance.closeSync();
  await put(path, { database: checkpointed.database, log });
  const { store, lines } = await openLogged(path);
  t.is(lines.at(-1)!.level, 'error');
  t.deepEqual(await totals(store), totalsOf(killed.batches));
  await store.close();
  await rm(folder, { recursive: true });
});

test('completes a recovery that was killed at any step', async (t) => {
  const damaged = flip(() => ends[4]! + 9)(killed.log);
  // The steps: the file is linked; the intact part is partly copied; the damaged log is linked; the intact part
  // replaces the log.
  for (const steps of [1, 2, 3, 4]) {
    const { folder, path } = await emptyFolder();
    await put(path, { database: killed.database, log: damaged });
    await link(path, `${path}.probe`);
    if (steps > 1) await writeFile(`${path}.probe.wal`, killed.log.subarray(0, 1000));
    if (steps > 2) await link(`${path}.wal`, `${path}.wal.damaged-20991123T000000Z`);
    if (steps > 3) {
      await rm(`${path}.probe.wal`);
      await rm(`${path}.wal`);
      await writeFile(`${path}.wal`, killed.log.subarray(0, ends[4]));
    }
    const { store } = await openLogged(path);
    t.deepEqual(await totals(store), totalsOf(5));
    await store.close();
    t.deepEqual(
      (await readdir(folder)).filter((name) => !name.includes('.damaged-')),
      ['requests.duckdb'],
    );
    for (const moved of await movedLogs(folder)) t.deepEqual(await readFile(join(folder, moved)), damaged);
    await rm(folder, { recursive: true });
  }
});

test('keeps an intact or torn log when there is not enough memory to replay it, and says what to do', async (t) => {
  for (const log of [killed.log, killed.log.subarray(0, -1)]) {
    const { folder, path } = await emptyFolder();
    await put(path, { database: killed.database, log });
    const error = await t.throwsAsync(openLogged(path, { memoryBytesMax: 1_000_000 }), { instanceOf: StoreError });
    t.is(error.action, 'stop');
    t.regex(error.message, /memory is used up.*Give this program more memory/s);
    t.deepEqual((await readdir(folder)).sort(), ['requests.duckdb', 'requests.duckdb.wal']);
    t.deepEqual(await readFile(`${path}.wal`), log);
    await rm(folder, { recursive: true });
  }
});

test('keeps the log of a damaged database file, damaged or not', async (t) => {
  for (const log of [killed.log, flip(() => 0)(killed.log), flip(end(1))(killed.log)]) {
    const { folder, path } = await emptyFolder();
    await put(path, { database: Buffer.from(killed.database).fill(7, 4096, 20_000), log });
    await t.throwsAsync(openLogged(path), { message: /it is damaged.*Restore a copy/s });
    t.deepEqual((await readdir(folder)).sort(), ['requests.duckdb', 'requests.duckdb.wal']);
    t.deepEqual(await readFile(`${path}.wal`), log);
    await rm(folder, { recursive: true });
  }
});

test('keeps the damaged log of a file that another process has open', async (t) => {
  const { folder, path } = await emptyFolder();
  const writer = spawn(
    process.execPath,
    [fileURLToPath(new URL('../../../test/duckdb-writer.js', import.meta.url)), path],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const gone = once(writer, 'exit');
  await once(createInterface({ input: writer.stdout }), 'line');
  writer.kill('SIGSTOP');
  const log = flip(() => 0)(await readFile(`${path}.wal`));
  await writeFile(`${path}.wal`, log);
  await t.throwsAsync(openLogged(path), { message: /another process/ });
  t.deepEqual(await readFile(`${path}.wal`), log);
  t.deepEqual(await movedLogs(folder), []);
  writer.kill('SIGKILL');
  await gone;
  await rm(folder, { recursive: true });
});

const everything = { fromMs: 0, toMs: Date.UTC(2100), filter: {} };

interface Totals {
  readonly requests: number;
  readonly counted: number;
  readonly counted60: number;
  readonly received: number;
}

async function totals(store: Store): Promise<Totals> {
  const { rows } = await store.rollUpRequests({ ...everything, level: 60, scope: 'all' });
  const requests = aggregateOf(rows).count;
  const counted = aggregateOf(await store.readRollups({ ...everything, level: 10, scope: 'all' })).count;
  const counted60 = aggregateOf(await store.readRollups({ ...everything, level: 60, scope: 'host' })).count;
  const [ledger] = await store.readLedgers({ sinceMs: 0 });
  return { requests, counted, counted60, received: ledger?.received ?? 0 };
}

function totalsOf(batches: number): Totals {
  const requests = batches * requestsPerBatch;
  return { requests, counted: requests, counted60: requests, received: requests };
}

/** Opens a store and collects its log lines. */
async function openLogged(
  path: string,
  { memoryBytesMax }: { memoryBytesMax?: number } = {},
): Promise<{ store: Store; lines: { level: string; text: string }[] }> {
  const lines: { level: string; text: string }[] = [];
  const log = createLog('store', { write: (text) => lines.push({ level: text.split(' ')[1]!, text }) });
  const options = {
    path,
    retention: { requestsMs: 3650 * dayMs, rollupsMs: 3650 * dayMs },
    ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
  };
  return { store: await openDuckdbStore(options, { log }), lines };
}

async function put(path: string, { database, log }: { database: Buffer | undefined; log: Buffer }): Promise<void> {
  if (database !== undefined) await writeFile(path, database);
  await writeFile(`${path}.wal`, log);
}

async function movedLogs(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((name) => name.includes('.wal.damaged-'));
}

async function emptyFolder(): Promise<{ folder: string; path: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'caddy-log-sink-'));
  return { folder, path: join(folder, 'requests.duckdb') };
}
