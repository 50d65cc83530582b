import test from 'ava';
import { CoalescedRead, SharedReads } from './coalesce-reads.js';

function start({ told = false } = {}) {
  let clockMs = 0;
  const reads: { answer: (text: string) => void; fail: (error: Error) => void }[] = [];
  const listeners: (() => void)[] = [];
  const shared = new SharedReads(
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
      shared.read(
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

test('shares one read per query among concurrent callers, and starts another one after 200 ms', async (t) => {
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

test('reads again after a batch has been written or a read has failed', async (t) => {
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

test('cancels a read when its last caller leaves, not before', async (t) => {
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

test('does not cancel a read that has a caller without a signal or has ended', async (t) => {
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
