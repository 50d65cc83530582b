import {
  cp,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { until } from '../../../test/until.js';
import { findHeader, headerBytes, readHeader } from './record.js';
import { openSpool, SpoolFullError, spoolPassed, type Spool, type SpoolOptions } from './spool.js';

const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
const tiny = { bytesMax: 1e6, segmentBytesMax: 300, log: quiet };

test('returns records unchanged and in order, and deletes them when they are committed', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  const spool = await openSpoolFor(t, { ...tiny, dir });
  for (let id = 0; id < 50; id += 1) await spool.append(payloadOf(id), 2);
  t.deepEqual(spool.own, { spooled: 100, stored: 0, deadLettered: 0 });
  t.deepEqual(await drain(spool), range(0, 50));
  t.deepEqual(spool.own, { spooled: 0, stored: 100, deadLettered: 0 });
  t.true(spool.isEmpty);
  await spool.close();

  const reopened = await openSpoolFor(t, { ...tiny, dir });
  t.true(reopened.isEmpty);
  t.deepEqual(reopened.earlier, { spooled: 0, stored: 0, deadLettered: 0 });
  await reopened.append(payloadOf(50), 1);
  t.deepEqual(await drain(reopened), [50]);
  await reopened.close();
});

test('waits for a record to read, and returns none when it is closed', async (t) => {
  const spool = await openSpoolFor(t, { ...tiny, dir: await mkdtemp(join(tmpdir(), 'spool-')) });
  const waiting = spool.read(1e6);
  await spool.append(payloadOf(1), 1);
  t.deepEqual(
    (await waiting).map(({ payload }) => idOf(payload)),
    [1],
  );
  const never = spool.read(1e6);
  await spool.close();
  t.deepEqual(await never, []);
});

test('rejects a record beyond the size limit as a whole, and keeps the oldest', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  const spool = await openSpoolFor(t, { dir, bytesMax: 2000, segmentBytesMax: 300, log: quiet });
  let appended = 0;
  const error = await t.throwsAsync(
    async () => {
      for (; ; appended += 1) await spool.append(payloadOf(appended), 1);
    },
    { instanceOf: SpoolFullError },
  );
  t.regex(error.message, /2000/);
  t.true(appended > 10);
  t.true(spool.bytes <= 2000);
  t.deepEqual(await drain(spool), range(0, appended));
  await spool.append(payloadOf(appended), 1);
  t.deepEqual(await drain(spool), [appended], 'there is room again');
  await spool.close();
});

test('returns uncommitted records again after a restart, and counts them as left by an earlier process', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  const first = await openSpoolFor(t, { ...tiny, dir });
  for (let id = 0; id < 10; id += 1) await first.append(payloadOf(id), 3);
  const records = await first.read(1);
  await first.commit(records, 1);
  await first.read(1e6);
  await first.close();
  const second = await openSpoolFor(t, { ...tiny, dir });
  t.deepEqual(second.earlier, { spooled: 27, stored: 0, deadLettered: 0 });
  t.deepEqual(await drain(second), range(1, 10));
  t.deepEqual(second.earlier, { spooled: 0, stored: 27, deadLettered: 0 });
  await second.close();
});

test('resolves when the current records of a spool are delivered', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  t.true(await spoolPassed(dir, 0), 'nothing was ever in it');
  const spool = await openSpoolFor(t, { ...tiny, dir });
  await spool.append(payloadOf(1), 1);
  t.false(await spoolPassed(dir, 0));
  const passed = spoolPassed(dir, 10_000);
  await drain(spool);
  t.true(await passed);
  await spool.close();
  t.true(await spoolPassed(dir, 0));
});

test('loses only damaged records, counts them and sets them aside', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  const first = await openSpoolFor(t, { ...tiny, dir });
  for (let id = 0; id < 30; id += 1) await first.append(payloadOf(id), 2);
  await first.close();
  const [, second, third] = await segmentsOf(dir);
  const places = await recordsOf(dir, second!);
  await flip(join(dir, second!), places[1]!.start + headerBytes + 2, 3); // in a payload
  const lostIds = [places[1]!.id, ...(await recordsOf(dir, third!)).map(({ id }) => id)];
  await unlink(join(dir, third!));
  const spool = await openSpoolFor(t, { ...tiny, dir });
  t.deepEqual(
    await drain(spool),
    range(0, 30).filter((id) => !lostIds.includes(id)),
  );
  t.deepEqual(spool.earlier, { spooled: 0, stored: 60 - 2 * lostIds.length, deadLettered: 2 * lostIds.length });
  t.is(spool.damages, 1);
  t.is((await readdir(join(dir, 'damaged'))).length, 1);
  await spool.close();
});

test('continues when its folder is removed, and loses nothing of the open segment', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'spool-'));
  const dir = join(root, 'parent', 'spool');
  const errors: string[] = [];
  const options = {
    bytesMax: 1e6,
    dir,
    log: {
      ...quiet,
      error: (message: string) => {
        errors.push(message);
      },
    },
  };
  const spool = await openSpoolFor(t, options);
  for (let id = 0; id < 10; id += 1) await spool.append(payloadOf(id), 2);
  const records = await spool.read(1);
  await removeAtOnce(join(root, 'parent'));
  for (let id = 10; id < 20; id += 1) await spool.append(payloadOf(id), 2);
  t.is(errors.length, 1);
  t.regex(errors[0]!, /were removed or replaced while it was in use\. Nothing is lost/);
  await spool.commit(records, 0);
  await t.throwsAsync(openSpool(options), { message: /Another process uses the spool/ }, 'its lock is there again');
  await spool.close();

  const reopened = await openSpoolFor(t, options);
  t.deepEqual(reopened.earlier, { spooled: 38, stored: 0, deadLettered: 0 });
  t.deepEqual(await drain(reopened), range(1, 20));
  await reopened.close();
  await rm(root, { recursive: true });
});

test('counts and logs requests in removed segments as dead-lettered, and delivers all others', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  const errors: string[] = [];
  const spool = await openSpoolFor(t, {
    ...tiny,
    dir,
    log: {
      ...quiet,
      error: (message: string) => {
        errors.push(message);
      },
    },
  });
  for (let id = 0; id < 30; id += 1) await spool.append(payloadOf(id), 2);
  const first = await spool.read(1); // opens the oldest segment
  const perSegment = await Promise.all(
    (await segmentsOf(dir)).map(async (name) => (await recordsOf(dir, name)).map(({ id }) => id)),
  );
  const lostIds = perSegment.slice(1, -1).flat();
  t.true(lostIds.length > 10);
  await removeAtOnce(dir);
  for (let id = 30; id < 40; id += 1) await spool.append(payloadOf(id), 2);
  t.regex(errors[0]!, new RegExp(`${2 * lostIds.length} requests are lost: they are counted as dead-lettered`));
  const { spooled, stored, deadLettered } = spool.own;
  t.is(spooled + stored + deadLettered, 80);
  await spool.commit(first, 0);
  t.deepEqual(
    [...first.map(({ payload }) => idOf(payload)), ...(await drain(spool))],
    range(0, 40).filter((id) => !lostIds.includes(id)),
  );
  t.deepEqual(spool.own, { spooled: 0, stored: 80 - 2 * lostIds.length, deadLettered: 2 * lostIds.length });
  await spool.close();
});

test('writes into a folder that replaced its own, beside the files there', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'spool-'));
  const dir = join(root, 'spool');
  await mkdir(join(root, 'own'));
  await symlink('own', dir);
  const spool = await openSpoolFor(t, { ...tiny, dir });
  await spool.append(payloadOf(0), 1);
  await mkdir(join(root, 'other'));
  await writeFile(join(root, 'other', '2.segment'), 'something else');
  await symlink('other', join(root, 'link'));
  await rename(join(root, 'link'), dir); // at once, unlike a removal followed by a creation
  for (let id = 1; id < 20; id += 1) await spool.append(payloadOf(id), 1);
  t.deepEqual(await drain(spool), range(0, 20));
  t.is(await readFile(join(dir, '2.segment'), 'utf8'), 'something else');
  await spool.close();
  await rm(root, { recursive: true });
});

test('notices soon that its lock or its position is removed, without an append', async (t) => {
  const dir = await mkdtemp(join(tmpdir(), 'spool-'));
  const spool = await openSpoolFor(t, { ...tiny, dir });
  await spool.append(payloadOf(0), 1);
  for (const name of ['lock', 'position']) {
    await unlink(join(dir, name));
    await until(`${name} is there again`, async () => (await readdir(dir)).includes(name));
  }
  await t.throwsAsync(openSpool({ ...tiny, dir }), { message: /Another process uses the spool/ });
  t.deepEqual(await drain(spool), [0]);
  await spool.close();
});

test('accepts nothing while its folder cannot be created, says why, and continues when it can', async (t) => {
  const root = await mkdtemp(join(tmpdir(), 'spool-'));
  const parent = join(root, 'parent');
  await mkdir(join(root, 'real'));
  await symlink('real', parent);
  const spool = await openSpoolFor(t, { ...tiny, dir: join(parent, 'spool') });
  await spool.append(payloadOf(0), 1);
  await writeFile(join(root, 'file'), 'a file in its way');
  await rename(join(root, 'file'), parent); // at once, or the spool would create the folder first
  await t.throwsAsync(spool.append(payloadOf(1), 1), { code: 'ENOTDIR' });
  t.deepEqual(spool.own, { spooled: 1, stored: 0, deadLettered: 0 });
  await unlink(parent);
  await spool.append(payloadOf(1), 1);
  t.deepEqual(await drain(spool), [0, 1]);
  await spool.close();
  await rm(root, { recursive: true });
});

/** `npm run faults` runs more. */
const cases = Number(process.env['SPOOL_CASES'] ?? 300);

test(`opens after any appends, crashes and damage, and loses only damaged records (${cases} cases)`, async (t) => {
  const operation = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant('append' as const),
        count: fc.integer({ min: 1, max: 6 }),
        bytes: fc.integer({ min: 0, max: 120 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('deliver' as const),
        bytesMax: fc.integer({ min: 1, max: 400 }),
        commit: fc.boolean(),
        refused: fc.boolean(),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constantFrom('crash' as const, 'stop' as const),
        at: fc.constant(0),
        bit: fc.constant(0),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constantFrom(
          'flip' as const,
          'tear' as const,
          'unlink' as const,
          'empty' as const,
          'lose position' as const,
          'stale position' as const,
          'damage position' as const,
        ),
        at: fc.double({ min: 0, max: 0.999, noNaN: true }),
        bit: fc.integer({ min: 0, max: 7 }),
      }),
    },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 4, maxLength: 30 }), async (operations) => {
      const root = await mkdtemp(join(tmpdir(), 'spool-'));
      let runs = 0;
      let dir = join(root, '0');
      let spool = await openSpool({ ...tiny, dir });
      let appended = 0;
      let appendedByRun = 0;
      let lastIdOfRun = -1;
      const delivered = new Set<number>();
      const damaged = new Set<number>();
      let stalePosition: Buffer | undefined;
      const reopen = async (whole: boolean, between: () => Promise<void> = async () => {}): Promise<void> => {
        runs += 1;
        if (whole) await spool.close();
        const next = join(root, String(runs));
        await cp(dir, next, { recursive: true, filter: (path) => !path.endsWith('lock') }); // what the operating system has when a process is killed
        if (!whole) await spool.close();
        dir = next;
        await between();
        spool = await openSpool({ ...tiny, dir });
        appendedByRun = 0;
        lastIdOfRun = -1;
      };
      const take = (ids: readonly number[]): void => {
        for (const id of ids) {
          if (id >= appended) throw new Error(`${id} was never appended`);
          if (id <= lastIdOfRun) throw new Error(`${id} came after ${lastIdOfRun}`);
          lastIdOfRun = id;
        }
      };
      const balanced = (): void => {
        const { spooled, stored, deadLettered } = spool.own;
        if (spooled < 0 || spooled + stored + deadLettered !== appendedByRun)
          throw new Error(`${spooled} + ${stored} + ${deadLettered} is not ${appendedByRun}`);
        if (spool.earlier.spooled < 0) throw new Error(`${spool.earlier.spooled} of an earlier process are spooled`);
      };
      const flipped = new Set<string>();
      try {
        for (const each of operations) {
          if (each.do === 'append') {
            for (let count = 0; count < each.count; count += 1) {
              await spool.append(payloadOf(appended, each.bytes), 1);
              appended += 1;
              appendedByRun += 1;
            }
          } else if (each.do === 'deliver') {
            if (spool.isEmpty) continue;
            const reading = spool.read(each.bytesMax);
            // All remaining records may be damaged: then only a new record ends the wait.
            await spool.append(payloadOf(appended, 10), 1);
            appended += 1;
            appendedByRun += 1;
            const records = await reading;
            const ids = records.map(({ payload }) => idOf(payload));
            take(ids);
            if (!each.commit) {
              await reopen(false);
            } else {
              for (const id of ids) delivered.add(id);
              await spool.commit(records, each.refused ? 1 : 0);
            }
          } else if (each.do === 'crash' || each.do === 'stop') {
            stalePosition ??= await readFile(join(dir, 'position'));
            await reopen(each.do === 'stop');
          } else {
            await reopen(false, async () => {
              const names = await segmentsOf(dir);
              const name = names[Math.floor(each.at * names.length)];
              const position = join(dir, 'position');
              if (each.do === 'lose position') await unlink(position);
              else if (each.do === 'damage position') await writeFile(position, 'not a position');
              else if (each.do === 'stale position') await writeFile(position, stalePosition ?? '');
              else if (name !== undefined) {
                const path = join(dir, name);
                const records = await recordsOf(dir, name);
                const { length } = await readFile(path);
                const at = Math.floor(each.at * 7919 * length) % Math.max(1, length);
                const hit = (from: number, to: number): void => {
                  for (const { id, start, end } of records) if (start < to && end > from) damaged.add(id);
                };
                // Flipping a bit twice would repair the damage.
                if (each.do === 'flip' && flipped.has(`${name} ${at} ${each.bit}`)) return;
                if (each.do === 'flip') {
                  flipped.add(`${name} ${at} ${each.bit}`);
                  hit(at, at + 1);
                  await flip(path, at, each.bit);
                } else if (each.do === 'tear') {
                  hit(at, length);
                  await truncate(path, at);
                } else if (each.do === 'unlink') {
                  hit(0, length);
                  await unlink(path);
                } else {
                  hit(0, length);
                  await writeFile(path, '');
                }
              }
            });
          }
          balanced();
        }
        // Two more records: they show what was lost before them.
        await spool.append(payloadOf(appended), 1);
        await spool.append(payloadOf(appended + 1), 1);
        appended += 2;
        appendedByRun += 2;
        const rest = await drain(spool, appended - 1);
        take(rest);
        for (const id of rest) delivered.add(id);
        balanced();
        const { own, earlier } = spool;
        if (own.spooled !== 0 || earlier.spooled !== 0)
          throw new Error(`drained, and ${own.spooled} and ${earlier.spooled} are spooled`);
        const lost = range(0, appended).filter((id) => !delivered.has(id) && !damaged.has(id));
        if (lost.length > 0) throw new Error(`lost without damage: ${lost.join(', ')}`);
      } finally {
        await spool.close();
        await rm(root, { recursive: true });
      }
    }),
    {
      numRuns: cases,
      examples: [
        [
          [
            { do: 'append', count: 1, bytes: 0 },
            { do: 'flip', at: 0, bit: 0 },
            { do: 'append', count: 1, bytes: 0 },
            { do: 'flip', at: 0, bit: 0 },
          ],
        ],
      ],
    },
  );
  t.pass();
});

/** Opens a spool that is closed even if the test fails: its timer would keep the process alive. */
async function openSpoolFor(t: ExecutionContext, options: SpoolOptions): Promise<Spool> {
  const spool = await openSpool(options);
  t.teardown(() => spool.close());
  return spool;
}

/** Removes a folder in one step. `rm` takes several, and fails if the spool repairs its folder in between. */
async function removeAtOnce(path: string): Promise<void> {
  await rename(path, `${path}-removed`);
  await rm(`${path}-removed`, { recursive: true });
}

function payloadOf(id: number, bytes = 30): Buffer {
  return Buffer.concat([Buffer.from(`${id}:`), Buffer.alloc(bytes, 'CLSR x')]);
}

function idOf(payload: Buffer): number {
  return Number.parseInt(payload.toString('latin1'), 10);
}

function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, at) => from + at);
}

/** Delivers until the spool is empty, or until it has delivered the record `untilId`. */
async function drain(spool: Spool, untilId = Infinity): Promise<number[]> {
  const ids: number[] = [];
  while (!spool.isEmpty && ids.at(-1) !== untilId) {
    const records = await spool.read(200);
    ids.push(...records.map(({ payload }) => idOf(payload)));
    await spool.commit(records, 0);
  }
  return ids;
}

async function segmentsOf(dir: string): Promise<string[]> {
  return (await readdir(dir))
    .filter((name) => name.endsWith('.segment'))
    .sort((one, other) => Number.parseInt(one, 10) - Number.parseInt(other, 10));
}

async function recordsOf(dir: string, name: string): Promise<{ id: number; start: number; end: number }[]> {
  const bytes = await readFile(join(dir, name));
  const records = [];
  for (let at = findHeader(bytes, 0); at !== -1; ) {
    const end = at + headerBytes + readHeader(bytes, at)!.payloadBytes;
    records.push({ id: idOf(bytes.subarray(at + headerBytes, end)), start: at, end });
    at = findHeader(bytes, end);
  }
  return records;
}

async function flip(path: string, at: number, bit: number): Promise<void> {
  const handle = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  const { bytesRead } = await handle.read(byte, 0, 1, at);
  if (bytesRead === 1) await handle.write(Buffer.from([byte[0]! ^ (1 << bit)]), 0, 1, at);
  await handle.close();
}
