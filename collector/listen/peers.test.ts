import test from 'ava';
import { allowList, ConnectionLimit, parseCidr, privateRanges, type LimitedConnection } from './peers.js';

test('allows loopback and private peers by default, and no others', (t) => {
  const isAllowed = allowList(privateRanges.split(',').map(parseCidr));
  for (const peer of [
    '127.0.0.1',
    '127.8.8.8',
    '::1',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.1.1',
    '::ffff:192.168.1.1',
    'fd00::1',
    'fe80::1%eth0',
  ]) {
    t.true(isAllowed(peer), peer);
  }
  for (const peer of ['8.8.8.8', '172.32.0.1', '2001:db8::1', '::ffff:8.8.8.8', undefined])
    t.false(isAllowed(peer), peer);
});

test('accepts a single address as a range of one', (t) => {
  const isAllowed = allowList([parseCidr('203.0.113.9'), parseCidr('2001:db8::9')]);
  t.deepEqual(['203.0.113.9', '203.0.113.10', '2001:db8::9', '2001:db8::a'].map(isAllowed), [true, false, true, false]);
});

test('refuses text that is not a range', (t) => {
  for (const text of ['', '10.0.0.0/33', '10.0.0/8', '::/129', 'example.com', '10.0.0.0/-1', '10.0.0.0/'])
    t.throws(() => parseCidr(text), undefined, text);
});

test('allows one address three quarters of all connections, and evicts its own silent ones beyond that', (t) => {
  const { limit, evicted, connect } = limitOf(8);
  for (let at = 0; at < 6; at += 1) t.is(connect('a', `a${at}`), undefined);
  t.is(connect('a', 'a6'), 'too-many-of-peer', 'none is marked as silent yet');
  for (let at = 0; at < 6; at += 1) limit.silent(named.get(`a${at}`)!);
  limit.sent(named.get('a0')!);
  limit.silent(named.get('a1')!); // it was active most recently
  t.is(connect('a', 'a7'), undefined);
  t.deepEqual(evicted, ['a2']);
  t.is(limit.count, 6);
  t.is(connect('b', 'b0'), undefined, 'room is left for others');
  t.deepEqual(evicted, ['a2']);
});

test('reserves a tenth for peers that have sent lines; evicts the longest idle connection, and none if all have sent lines', (t) => {
  const { limit, evicted, connect } = limitOf(10);
  t.is(connect('known', 'k0'), undefined);
  limit.sent(named.get('k0')!);
  for (let at = 0; at < 8; at += 1) {
    t.is(connect(`s${at}`, `s${at}`), undefined);
    limit.silent(named.get(`s${at}`)!);
  }
  t.is(connect('new', 'n0'), undefined);
  t.deepEqual(evicted, ['s0'], 'the reserved connection is not for a new peer');
  t.is(connect('known', 'k1'), undefined);
  t.is(limit.count, 10);
  t.deepEqual(evicted, ['s0']);
  for (const name of ['n0', 'k1', ...Array.from({ length: 7 }, (_, at) => `s${at + 1}`)]) limit.sent(named.get(name)!);
  t.is(connect('known', 'k2'), 'too-many-connections');
  t.is(connect(undefined, 'unix'), 'too-many-connections');
  limit.leave(named.get('k0')!);
  t.is(connect('known', 'k3'), undefined);
});

test('does not limit peers of a unix socket by address, but evicts them like others', (t) => {
  const { limit, evicted, connect } = limitOf(4);
  for (let at = 0; at < 4; at += 1) {
    t.is(connect(undefined, `u${at}`), undefined);
    limit.silent(named.get(`u${at}`)!);
  }
  t.is(connect('a', 'a0'), undefined);
  t.deepEqual(evicted, ['u0']);
  t.is(limit.count, 4);
});

const named = new Map<string, LimitedConnection>();

function limitOf(connectionsMax: number) {
  const limit = new ConnectionLimit(connectionsMax);
  const evicted: string[] = [];
  named.clear();
  const connect = (peer: string | undefined, name: string) => {
    const connection: LimitedConnection = {
      peer,
      evict: () => {
        evicted.push(name);
      },
    };
    named.set(name, connection);
    return limit.enter(connection);
  };
  return { limit, evicted, connect };
}
