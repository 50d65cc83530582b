import test from 'ava';
import fc from 'fast-check';
import type { Retention } from '../rollup/rollup.js';
import { RetentionGuard, type DueDeletion, type RetentionState, type StoredSpan } from './retention-guard.js';

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const startMs = Date.UTC(2026, 10, 29);
const usual: Retention = { requestsMs: 7 * dayMs, rollupsMs: 400 * dayMs };

/** A machine whose clock can be wrong, with a program that checks every ten minutes. */
class Machine {
  /** The correct time. */
  trueMs = startMs;
  /** Error of the machine's clock. */
  offMs = 0;
  state: RetentionState | undefined;
  span: StoredSpan = { oldestRequestMs: startMs - 7 * dayMs, oldestRollupMs: startMs - 400 * dayMs, newestMs: startMs };
  readonly logged: string[] = [];
  #guard: RetentionGuard | undefined;

  get wallMs(): number {
    return this.trueMs + this.offMs;
  }

  async start(retention = usual, delayMs?: number): Promise<DueDeletion> {
    const log = (message: string): void => {
      this.logged.push(message);
    };
    this.#guard = new RetentionGuard({
      retention,
      delayMs,
      log: { debug: log, info: log, warn: log, error: log },
      now: () => this.wallMs,
      monotonicMs: () => this.trueMs - startMs,
      load: async () => (this.state === undefined ? undefined : (JSON.parse(JSON.stringify(this.state)) as unknown)),
      save: async (state) => {
        this.state = state;
      },
      readSpan: async () => this.span,
    });
    return await this.#guard.check();
  }

  /** Runs for a while and returns the last decision. */
  async run(forMs: number): Promise<DueDeletion> {
    let due: DueDeletion | undefined;
    for (let ranMs = 0; ranMs < forMs; ranMs += 10 * minuteMs) {
      this.trueMs += 10 * minuteMs;
      due = await this.#guard!.check();
    }
    return due!;
  }

  /** Takes the messages logged since the last call. */
  takeMessages(): string[] {
    return this.logged.splice(0);
  }
}

test('follows the clock and the settings in normal operation, even across short stops, and logs nothing', async (t) => {
  const machine = new Machine();
  t.deepEqual(await machine.start(), { retention: usual, nowMs: startMs });
  t.deepEqual(await machine.run(2 * dayMs), { retention: usual, nowMs: machine.wallMs });
  for (const offMs of [minuteMs, 23 * hourMs]) {
    machine.trueMs += offMs;
    t.is((await machine.start()).nowMs, machine.wallMs, 'it was off for less than a day');
  }
  machine.offMs = -3000; // corrected by NTP
  t.is((await machine.run(10 * minuteMs)).nowMs, machine.wallMs);
  t.deepEqual(machine.takeMessages(), []);
});

for (const aheadDays of [8, 730]) {
  test(`a start with the clock ${aheadDays} days ahead deletes no more than usual and warns once, until the clock is corrected`, async (t) => {
    const machine = new Machine();
    await machine.start();
    await machine.run(dayMs);
    machine.offMs = aheadDays * dayMs;
    t.is((await machine.start()).nowMs, machine.trueMs, 'the time since the last look counts');
    machine.span = { ...machine.span, newestMs: machine.wallMs }; // new requests have the same wrong time
    t.is((await machine.run(6 * hourMs)).nowMs, machine.trueMs, 'rows that expire meanwhile are deleted');
    t.is((await machine.start()).nowMs, machine.trueMs, 'a restart does not make it more credible');
    const [first, repeated, ...more] = machine.takeMessages();
    t.regex(
      first!,
      new RegExp(
        `${aheadDays}d ahead of the time used for deletion, 2026-11-30T00:00:00Z .*will be deleted when the program has run for 1d with it.*set RETENTION_DELAY=0s`,
      ),
    );
    t.regex(repeated!, /has run for 18h with it/, 'the restart says it again');
    t.deepEqual(more, []);
    machine.offMs = 0;
    t.is((await machine.run(10 * minuteMs)).nowMs, machine.trueMs);
    t.deepEqual(machine.takeMessages(), ["The machine's clock agrees with the time of the last deletion again."]);
  });
}

test('trusts a clock that jumped once it has been steady for the delay; another jump restarts the delay', async (t) => {
  const machine = new Machine();
  await machine.start();
  machine.offMs = 30 * dayMs;
  t.is((await machine.run(20 * hourMs)).nowMs, machine.trueMs);
  machine.offMs = 60 * dayMs;
  t.is((await machine.run(20 * hourMs)).nowMs, machine.trueMs);
  t.is(machine.takeMessages().length, 2);
  t.is((await machine.run(5 * hourMs)).nowMs, machine.wallMs);
  t.regex(
    machine.takeMessages().join('\n'),
    /is now trusted, since RETENTION_DELAY=1d has passed\. Data that is too old by it is deleted now\.$/,
  );
});

test('deletes after months off once the program has run for the delay, even if it is restarted often', async (t) => {
  const machine = new Machine();
  await machine.start();
  machine.trueMs += 90 * dayMs;
  t.is((await machine.start()).nowMs, startMs);
  for (let restarts = 0; restarts < 200; restarts += 1) {
    await machine.run(10 * minuteMs);
    machine.trueMs += 5 * minuteMs;
    await machine.start();
  }
  t.is((await machine.run(10 * minuteMs)).nowMs, machine.wallMs);
});

test('deletes less when the clock is behind, does not wait when it is corrected, and trusts it after the delay', async (t) => {
  const machine = new Machine();
  await machine.start();
  machine.offMs = -20_000 * dayMs; // no battery: 1972
  t.is((await machine.start()).nowMs, machine.wallMs);
  machine.trueMs += hourMs;
  machine.offMs = 0; // NTP
  t.is((await machine.run(10 * minuteMs)).nowMs, machine.wallMs, 'no wait');
  machine.takeMessages();
  machine.offMs = -8 * dayMs;
  t.is((await machine.run(dayMs)).nowMs, machine.wallMs);
  await machine.run(20 * minuteMs);
  t.regex(machine.takeMessages().join('\n'), /8d behind the time used for deletion.*\n.*is now trusted/);
  machine.offMs = 0;
  t.is((await machine.run(10 * minuteMs)).nowMs, machine.trueMs - 8 * dayMs, 'the correction is now a step ahead');
});

test('accepts any clock and retention immediately in an empty store', async (t) => {
  const machine = new Machine();
  machine.span = { oldestRequestMs: undefined, oldestRollupMs: undefined, newestMs: undefined };
  await machine.start();
  machine.offMs = 730 * dayMs;
  t.deepEqual(await machine.start({ requestsMs: dayMs, rollupsMs: dayMs }), {
    retention: { requestsMs: dayMs, rollupsMs: dayMs },
    nowMs: machine.wallMs,
  });
  t.deepEqual(machine.takeMessages(), []);
});

test('announces a shorter retention and applies it after the delay; applies a longer one immediately', async (t) => {
  const machine = new Machine();
  machine.span = { ...machine.span, oldestRequestMs: startMs - 90 * dayMs };
  const long = { requestsMs: 90 * dayMs, rollupsMs: 400 * dayMs };
  await machine.start(long);
  t.deepEqual((await machine.start(usual)).retention, long);
  t.deepEqual(machine.takeMessages(), [
    'RETENTION_REQUESTS is 7d and was 90d: requests from 2026-08-31T00:00:00Z to 2026-11-22T00:00:00Z will be deleted when the program has run for 1d with this setting. To keep them, restore the setting; to delete them immediately, set RETENTION_DELAY=0s.',
  ]);
  t.deepEqual((await machine.run(20 * hourMs)).retention, long);
  t.deepEqual((await machine.start(long)).retention, long, 'the settings file was missing once');
  t.deepEqual((await machine.start(usual)).retention, long);
  t.deepEqual((await machine.run(20 * hourMs)).retention, long, 'it is announced again, with the full delay');
  machine.trueMs += 20 * hourMs;
  t.deepEqual(
    (await machine.start(usual)).retention,
    long,
    'a time in which nobody could see the message does not count',
  );
  machine.takeMessages();
  t.deepEqual((await machine.run(4 * hourMs)).retention, usual);
  t.deepEqual(machine.takeMessages(), [
    'The shorter retention takes effect now (RETENTION_REQUESTS=7d, RETENTION_ROLLUPS=400d). Older data is deleted.',
  ]);
  t.deepEqual((await machine.start(long)).retention, long);
  t.deepEqual((await machine.start(usual, 0)).retention, usual, 'without a delay');
});

test('applies a shorter retention that deletes nothing immediately, while the other one waits', async (t) => {
  const machine = new Machine();
  await machine.start();
  const { retention } = await machine.start({ requestsMs: 14 * dayMs, rollupsMs: 100 * dayMs });
  t.deepEqual(retention, { requestsMs: 14 * dayMs, rollupsMs: 400 * dayMs });
  machine.span = { ...machine.span, oldestRollupMs: startMs - 50 * dayMs };
  t.deepEqual((await machine.run(10 * minuteMs)).retention, { requestsMs: 14 * dayMs, rollupsMs: 100 * dayMs });
});

test('infers a state from the stored data when none was saved: a store of an earlier version, or a lost folder', async (t) => {
  const machine = new Machine();
  machine.span = { oldestRequestMs: startMs - 89.5 * dayMs, oldestRollupMs: startMs - 300 * dayMs, newestMs: startMs };
  machine.offMs = 8 * dayMs;
  t.deepEqual(await machine.start(), { retention: { requestsMs: 90 * dayMs, rollupsMs: 400 * dayMs }, nowMs: startMs });
  t.is(machine.takeMessages().length, 2);
  machine.offMs = 0;
  machine.state = { lookedMs: 'x' } as unknown as RetentionState;
  machine.span = {
    oldestRequestMs: startMs - 7.1 * dayMs,
    oldestRollupMs: startMs - 400.9 * dayMs,
    newestMs: startMs + dayMs,
  };
  t.deepEqual(
    await machine.start(),
    { retention: usual, nowMs: startMs },
    'rows from the future and slightly late deletion prove nothing',
  );
  t.deepEqual(machine.takeMessages(), []);
});

const event = fc.record({
  offDays: fc.constantFrom(-20_000, -8, 0, 0, 8, 730),
  runHours: fc.integer({ min: 1, max: 11 }),
  then: fc.constantFrom('run on', 'restart', 'off for a while'),
});

test('deletes nothing early while the clock is wrong for less than a day, and trusts it once it is steady', async (t) => {
  await t.notThrowsAsync(async () =>
    fc.assert(
      fc.asyncProperty(fc.array(event, { maxLength: 12 }), async (events) => {
        const machine = new Machine();
        await machine.start();
        for (const { offDays, runHours, then } of events) {
          for (const offMs of [offDays * dayMs, 0]) {
            // it is corrected each time
            machine.offMs = offMs;
            if (then === 'off for a while') machine.trueMs += 5 * hourMs;
            if (then !== 'run on') await machine.start();
            const { nowMs } = await machine.run(runHours * hourMs);
            if (nowMs > machine.trueMs) return false;
          }
        }
        machine.offMs = (events.at(-1)?.offDays ?? 0) * dayMs;
        await machine.run(dayMs + 20 * minuteMs);
        return (await machine.run(10 * minuteMs)).nowMs === machine.wallMs;
      }),
      { numRuns: 50 },
    ),
  );
});
