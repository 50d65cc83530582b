import test from 'ava';
import { createSharedReads } from './shared-reads.js';

function start({ told = false } = {}) {
  let clockMs = 0;
  const reads: { answer: (text: string) => void; fail: (error: Error) => void }[] = [];
  const listeners: (() => void)[] = [];
  const shared = createSharedReads(told ? { listen: (onChange) => { listeners.push(onChange as () => void); }, listenForExchange: () => undefined } : undefined, { clock: () => clockMs });
  return {
    reads,
    get: (toMs: number, query = 'all') => shared('requests', { fromMs: toMs - 1000, toMs }, { query }, () => new Promise<string>((answer, fail) => { reads.push({ answer, fail }); })),
    advance: (ms: number) => { clockMs += ms; },
    change: () => { for (const listener of listeners) listener(); },
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
