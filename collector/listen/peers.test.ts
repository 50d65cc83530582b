import test from 'ava';
import { allowList, parseCidr, privateRanges } from './peers.js';

test('loopback and private peers are allowed by default, others are not', (t) => {
  const isAllowed = allowList(privateRanges.split(',').map(parseCidr));
  for (const peer of ['127.0.0.1', '127.8.8.8', '::1', '10.1.2.3', '172.31.0.1', '192.168.1.1', '::ffff:192.168.1.1', 'fd00::1', 'fe80::1%eth0']) {
    t.true(isAllowed(peer), peer);
  }
  for (const peer of ['8.8.8.8', '172.32.0.1', '2001:db8::1', '::ffff:8.8.8.8', undefined]) t.false(isAllowed(peer), peer);
});

test('a single address is a range of one', (t) => {
  const isAllowed = allowList([parseCidr('203.0.113.9'), parseCidr('2001:db8::9')]);
  t.deepEqual(['203.0.113.9', '203.0.113.10', '2001:db8::9', '2001:db8::a'].map(isAllowed), [true, false, true, false]);
});

test('what is not a range is refused', (t) => {
  for (const text of ['', '10.0.0.0/33', '10.0.0/8', '::/129', 'example.com', '10.0.0.0/-1', '10.0.0.0/']) t.throws(() => parseCidr(text), undefined, text);
});
