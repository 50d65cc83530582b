import test from 'ava';
import { ConfiguredHosts } from './configured-hosts.js';

test('covers configured hosts at any port, and hosts that match a wildcard', (t) => {
  const hosts = new ConfiguredHosts(['shop.example', '*.shop.example', 'api.*.example', '*']);
  t.true(hosts.has('shop.example'));
  for (const covered of [
    'shop.example',
    'shop.example:8443',
    'a.shop.example',
    'a.shop.example:8443',
    'api.eu.example',
    'localhost',
  ])
    t.true(hosts.covers(covered), covered);
  for (const other of ['b.a.shop.example', 'shop.example.org', 'web.eu.example', 'example.org'])
    t.false(hosts.covers(other), other);
  for (const other of ['a.shop.example', '*.shop.example', 'shop.example:8443', 'localhost'])
    t.false(hosts.has(other), other);
});

test('replaces the hosts, and changes the version only if they differ', (t) => {
  const hosts = new ConfiguredHosts();
  const { version } = hosts;
  hosts.set(['a.example', '*.example']);
  const changed = hosts.version;
  t.not(changed, version);
  hosts.set(['*.example', 'a.example']);
  t.is(hosts.version, changed);
  hosts.set(['b.example']);
  t.not(hosts.version, changed);
  t.deepEqual([hosts.has('a.example'), hosts.covers('c.example'), hosts.has('b.example')], [false, false, true]);
});
