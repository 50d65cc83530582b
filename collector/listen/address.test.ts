import test from 'ava';
import { caddyAddress, formatListenAddress, parseListenAddress, type ListenAddress } from './address.js';

const good = test.macro({
  exec(t, text: string, address: ListenAddress, inCaddyfile: string) {
    t.deepEqual(parseListenAddress(text), address);
    t.deepEqual(parseListenAddress(formatListenAddress(address)), address);
    t.is(caddyAddress(address), inCaddyfile);
  },
  title: (_, text: string, __: ListenAddress, inCaddyfile: string) => `${text} is ${inCaddyfile} in a Caddyfile`,
});
test(good, 'tcp://127.0.0.1:9514', { kind: 'tcp', family: 4, host: '127.0.0.1', port: 9514 }, 'tcp/127.0.0.1:9514');
test(good, 'udp://[::1]:9514', { kind: 'udp', family: 6, host: '::1', port: 9514 }, 'udp/[::1]:9514');
test(good, 'tcp://:9514', { kind: 'tcp', family: 4, host: '', port: 9514 }, 'tcp/localhost:9514');
test(good, 'unix:///run/sink.sock', { kind: 'unix', path: '/run/sink.sock' }, 'unix//run/sink.sock');

test('tcp6 without a host listens on every address of both families', (t) => {
  t.deepEqual(parseListenAddress('tcp6://:9514'), { kind: 'tcp', family: 6, host: '', port: 9514 });
});

const bad = test.macro({
  exec(t, text: string) {
    t.throws(() => parseListenAddress(text));
  },
  title: (_, text: string) => `${JSON.stringify(text.slice(0, 40))} is not an address to listen on`,
});
for (const text of [
  '',
  '9514',
  'tcp://',
  'tcp://127.0.0.1',
  'http://127.0.0.1:80',
  'unix://relative',
  'unix://',
  'tcp://a:b',
  `unix:///${'x'.repeat(200)}`,
])
  test(bad, text);
