import test from 'ava';
import { CoalescedRead, createSharedReads } from './coalesce-reads.js';

function start({ told = false } = {}) {
  let clockMs = 0;
  const reads: { answer: (text: string) => void; fail: (error: Error) => void }[] = [];
  const listeners: (() => void)[] = [];
  const shared = createSharedReads(
    told
      ? {
          listen: (onChange) => {
            listeners.push(onChange as () => void);
          },
          listenForExchange: () => undefined,
        }
      : undefined,
    { clock: () => clockMs },
  );
  return {
    reads,
    get: (toMs: number, query = 'all') =>
      shared(
        'requests',
        { fromMs: toMs - 1000, toMs },
        { query },
        () =>
          new Promise<string>((answer, fail) => {
            reads.push({ answer, fail });
          }),
      ),
    advance: (ms: number) => {
      clockMs += ms;
    },
    change: () => {
      for (const listener of listeners) listener();
    },
  };
}

test('a crowd makes one read, of each query, and the next moment another one', async (t) => {
  const { get, reads, advance } = start();
  const crowd = [...Array(100).keys()].map((at) => get(5000 + at));
  const other = get(5000, 'other');
  t.is(reads.length, 2);
  reads[0]!.answer('first');
  reads[1]!.answer('other');
  t.deepEqual(new Set(await Promise.all(crowd)), new Set(['first']));
  t.is(await other, 'other');
  void get(9000);
  t.is(reads.length, 3, 'another range');
  advance(1000);
  void get(9000);
  t.is(reads.length, 4, 'a moment has passed');
});

test('what a batch has overtaken is read anew, and so is what failed', async (t) => {
  const { get, reads, change } = start({ told: true });
  const before = get(5000);
  change();
  const after = get(5000);
  t.is(reads.length, 2);
  reads[0]!.answer('old');
  reads[1]!.fail(new Error('no store'));
  t.is(await before, 'old');
  await t.throwsAsync(after, { message: 'no store' });
  const next = get(5000);
  reads[2]!.answer('new');
  t.is(await next, 'new');
});

test('a read is cancelled when the last of those who wait for it has gone, and not before', async (t) => {
  let cancelled: AbortSignal | undefined;
  const read = new CoalescedRead<string>(
    (signal) =>
      new Promise((_, reject) => {
        cancelled = signal;
        signal.addEventListener('abort', () => {
          reject(new Error('cancelled'));
        });
      }),
  );
  const [first, second] = [new AbortController(), new AbortController()];
  const waiting = [read.join(first.signal), read.join(second.signal)].map((joined) =>
    t.throwsAsync(joined, { message: 'cancelled' }),
  );
  first.abort();
  t.false(cancelled!.aborted);
  second.abort();
  t.true(cancelled!.aborted);
  t.true(read.isCancelled);
  await Promise.all(waiting);
});

test('a read that somebody without a signal waits for is not cancelled, nor one that has ended', async (t) => {
  let answer!: (text: string) => void;
  const read = new CoalescedRead<string>(
    () =>
      new Promise((resolve) => {
        answer = resolve;
      }),
  );
  const gone = new AbortController();
  const stays = read.join();
  void read.join(gone.signal);
  gone.abort();
  t.false(read.isCancelled);
  answer('all');
  t.is(await stays, 'all');
});
