import test from 'ava';
import { attemptAddress, AttemptLimit } from './attempts.js';

test('an address waits after too many failures until a minute after the first; others do not', (t) => {
  let nowMs = 0;
  const limit = new AttemptLimit({ failuresMax: 3, windowMs: 60_000, monotonicMs: () => nowMs });
  for (nowMs = 0; nowMs < 2000; nowMs += 1000) limit.fail('a');
  t.is(limit.waitMs('a'), 0);
  limit.fail('a');
  t.is(limit.waitMs('a'), 58_000);
  t.is(limit.waitMs('b'), 0);
  nowMs = 60_000;
  t.is(limit.waitMs('a'), 0);
  limit.fail('a');
  t.is(limit.waitMs('a'), 0, 'the count is reset');
});

test('steps of the wall clock do not affect the wait', (t) => {
  const { now } = Date;
  let aheadMs = 730 * 86_400_000;
  t.teardown(() => {
    Date.now = now;
  });
  Date.now = () => now() + aheadMs;
  const limit = new AttemptLimit({ failuresMax: 1 });
  limit.fail('a');
  aheadMs = 0;
  t.true(limit.waitMs('a') > 0 && limit.waitMs('a') <= 60_000);
});

test('tracks a limited number of addresses, the most recent failures', (t) => {
  const limit = new AttemptLimit({ failuresMax: 1, addressesMax: 2 });
  for (const address of ['a', 'b', 'a', 'c']) limit.fail(address);
  t.deepEqual(
    ['a', 'b', 'c'].map((address) => limit.waitMs(address) > 0),
    [true, false, true],
  );
});

const address = (remoteAddress: string | undefined, forwarded?: string): string =>
  attemptAddress({
    headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
    socket: { remoteAddress },
  });

test('uses the address of the connection, for IPv6 its /64', (t) => {
  t.is(address('192.0.2.1'), '192.0.2.1');
  t.is(address('::ffff:192.0.2.1'), '192.0.2.1');
  t.is(address('2001:db8::1'), address('2001:db8::ffff:1'));
  t.not(address('2001:db8::1'), address('2001:db8:0:1::1'));
  t.is(address(undefined), '');
});

test('trusts X-Forwarded-For only from a proxy on this machine', (t) => {
  t.is(address('127.0.0.1', '198.51.100.1, 192.0.2.7'), '192.0.2.7');
  t.is(address('::1', '2001:db8::1'), address('2001:db8::2'));
  t.is(address('192.0.2.1', '192.0.2.7'), '192.0.2.1');
  t.is(address('127.0.0.1', 'unknown'), '127.0.0.1');
});
