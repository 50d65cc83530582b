import test from 'ava';
import fc from 'fast-check';
import { Semaphore } from './semaphore.js';

test('hands a freed permit to the caller that has waited longest', async (t) => {
  const semaphore = new Semaphore({ permits: 1, waitingMax: 10, waitMsMax: 10_000 });
  const release = await semaphore.acquire();
  const order: number[] = [];
  const waiting = [1, 2, 3].map(async (id) => {
    const releaseNext = await semaphore.acquire();
    order.push(id);
    releaseNext?.();
  });
  release?.();
  await Promise.all(waiting);
  t.deepEqual(order, [1, 2, 3]);
});

test('refuses a caller when the queue is full, when it has waited too long, and when it is aborted', async (t) => {
  const semaphore = new Semaphore({ permits: 1, waitingMax: 1, waitMsMax: 20 });
  const release = await semaphore.acquire();
  const late = semaphore.acquire();
  t.is(await semaphore.acquire(), undefined, 'full');
  t.is(await late, undefined, 'too late');
  const gone = new AbortController();
  const aborted = semaphore.acquire(gone.signal);
  gone.abort();
  t.is(await aborted, undefined);
  release?.();
  t.is(typeof (await semaphore.acquire()), 'function', 'a caller that gave up holds no permit');
});

test('never grants more than its permits, and loses none when callers give up', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 4 }),
      fc.array(fc.boolean(), { maxLength: 40 }),
      async (permits, gives) => {
        const semaphore = new Semaphore({ permits, waitingMax: 20, waitMsMax: 10_000 });
        let held = 0;
        await Promise.all(
          gives.map(async (givesUp) => {
            const controller = new AbortController();
            const acquired = semaphore.acquire(controller.signal);
            if (givesUp) controller.abort();
            const release = await acquired;
            if (release === undefined) return;
            held += 1;
            t.true(held <= permits);
            await Promise.resolve();
            held -= 1;
            release();
            release();
          }),
        );
        const all = await Promise.all(Array.from({ length: permits }, () => semaphore.acquire()));
        t.true(
          all.every((release) => release !== undefined),
          'all permits are free again',
        );
      },
    ),
  );
});

test('applies a lower and then a higher number of permits to waiting callers', async (t) => {
  const semaphore = new Semaphore({ permits: 2, waitingMax: 10, waitMsMax: 10_000 });
  const releases = [await semaphore.acquire(), await semaphore.acquire()];
  const acquired: number[] = [];
  const waiting = [1, 2, 3].map(async (id) => {
    const release = await semaphore.acquire();
    acquired.push(id);
    return release;
  });
  semaphore.setPermits(1);
  releases[0]!();
  await Promise.resolve();
  t.deepEqual(acquired, [], 'the other one is still held');
  releases[1]!();
  (await waiting[0])!();
  (await waiting[1])!();
  await waiting[2];
  semaphore.setPermits(2);
  t.truthy(await semaphore.acquire());
  t.deepEqual(acquired, [1, 2, 3]);
});

test('is idle when no permit is held, and not while one is passed on', async (t) => {
  const semaphore = new Semaphore({ permits: 1, waitingMax: 10, waitMsMax: 10_000 });
  t.true(semaphore.isIdle);
  await semaphore.idle();
  const release = await semaphore.acquire();
  const next = semaphore.acquire();
  let isIdle = false;
  const idle = semaphore.idle().then(() => {
    isIdle = true;
  });
  release!();
  const releaseNext = await next;
  t.false(semaphore.isIdle || isIdle);
  semaphore.setPermits(0);
  const held = semaphore.acquire();
  releaseNext!();
  await idle;
  t.true(semaphore.isIdle, 'no permit is granted while there are none');
  semaphore.setPermits(1);
  t.truthy(await held);
});
