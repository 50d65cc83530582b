import test from 'ava';
import { reasonOf, upstreamIn, withoutSecrets, type ClientAddresses } from './reason.js';

const at = (ip: string): ClientAddresses => ({ clientIp: ip, remoteIp: ip, remotePort: '51234' });
const cases: readonly [message: string, reason: string, upstream: string, client?: ClientAddresses][] = [
  [
    'dial tcp 10.0.0.3:8080: connect: connection refused',
    'dial tcp 10.0.0.3:8080: connect: connection refused',
    '10.0.0.3:8080',
  ],
  ['dial tcp [2001:db8::3]:8080: i/o timeout', 'dial tcp [2001:db8::3]:8080: i/o timeout', '[2001:db8::3]:8080'],
  [
    'dial unix /run/app.sock: connect: no such file or directory',
    'dial unix /run/app.sock: connect: no such file or directory',
    '/run/app.sock',
  ],
  [
    'dial tcp: lookup app.internal on 127.0.0.11:53: no such host',
    'dial tcp: lookup app.internal on 127.0.0.11:53: no such host',
    'app.internal',
  ],
  [
    'read tcp 10.0.0.2:53412->10.0.0.3:8080: read: connection reset by peer',
    'read tcp 10.0.0.3:8080: read: connection reset by peer',
    '10.0.0.3:8080',
  ],
  [
    'writing: write tcp 10.0.0.1:443->198.51.100.7:51234: write: broken pipe',
    'writing: write tcp client: write: broken pipe',
    '',
    at('198.51.100.7'),
  ],
  ['write tcp [::1]:443->[2001:db8::7]:51234: i/o timeout', 'write tcp client: i/o timeout', '', at('2001:db8::7')],
  ['refused 198.51.100.7, and not 198.51.100.70', 'refused client, and not 198.51.100.70', '', at('198.51.100.7')],
  [
    '{id=i6n6pshhv} fileserver.(*FileServer).notFound (staticfiles.go:737): HTTP 404',
    'fileserver.(*FileServer).notFound (staticfiles.go:737): HTTP 404',
    '',
  ],
  ['job 8f14e45f-ceea-467f-a8f0-1d2b3c4d5e6f failed after 123456 tries', 'job * failed after * tries', ''],
  ['Get "http://10.0.0.3:8080/health?token=s3cret": EOF', 'Get "http://10.0.0.3:8080/health?…": EOF', ''],
  ['Get "http://admin:hunter2@10.0.0.3/": EOF', 'Get "http://…@10.0.0.3/": EOF', ''],
  ['authorization: Bearer abc.def.ghi', 'authorization: …', ''],
  // A client and an upstream on the same machine.
  [
    'dial tcp 127.0.0.1:9: connect: connection refused',
    'dial tcp 127.0.0.1:9: connect: connection refused',
    '127.0.0.1:9',
    at('127.0.0.1'),
  ],
  ['read tcp 127.0.0.1:40000->127.0.0.1:9: EOF', 'read tcp 127.0.0.1:9: EOF', '127.0.0.1:9', at('127.0.0.1')],
  ['no upstreams available', 'no upstreams available', ''],
  ['', '', ''],
];

for (const [message, reason, upstream, client] of cases)
  test(`reads the reason and the upstream of ${JSON.stringify(message)}`, (t) => {
    t.is(reasonOf(withoutSecrets(message, client)), reason);
    t.is(upstreamIn(message, client), upstream);
  });

test('keeps a long message bounded', (t) => {
  t.is(reasonOf(withoutSecrets('x '.repeat(100_000))).length, 499); // the last space is trimmed
});
