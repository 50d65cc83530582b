import test from 'ava';
import { createRandom } from '../../demo/random.js';
import { ConfiguredHosts } from './configured-hosts.js';
import { HostLimit } from './host-limit.js';

const dayMs = 86_400_000;
const limitOf = (options: ConstructorParameters<typeof HostLimit>[0]): HostLimit => {
  const random = createRandom(7);
  return new HostLimit(options, () => random.next());
};

test('counts hosts beyond the limit as _other, until an admitted one has been idle for a day of the log', (t) => {
  const limit = limitOf({ hostsMax: 2 });
  const at =
    (timeMs: number) =>
    (host: string): string =>
      limit.admit(host, { status: 200, timeMs });
  t.deepEqual(['a', 'a', 'b', 'b', 'c', 'a'].map(at(0)), ['a', 'a', 'b', 'b', '_other', 'a']);
  t.is(at(0.9 * dayMs)('a'), 'a');
  t.is(at(1.1 * dayMs)('c'), 'c');
  t.is(at(1.1 * dayMs)('a'), 'a');
});

test('counts real sites by name, however many hosts a scanner has made up before', (t) => {
  for (const status of [404, 200]) {
    const limit = limitOf({ hostsMax: 100 });
    for (let made = 0; made < 10_000; made += 1) limit.admit(`made-up-${made}.example`, { status, timeMs: made });
    const sites = Array.from({ length: 50 }, (_, at) => `site-${at}.example`);
    for (let round = 0; round < 20; round += 1) {
      for (const site of sites) limit.admit(site, { status: 200, timeMs: 10_000 + round });
      for (let made = 0; made < 500; made += 1)
        limit.admit(`later-${round}-${made}.example`, { status, timeMs: 10_000 + round });
    }
    t.deepEqual(
      sites.filter((site) => limit.admit(site, { status: 502, timeMs: 20_000 }) !== site),
      [],
      `answered with ${status}`,
    );
  }
});

test('always counts configured hosts by name', (t) => {
  const limit = limitOf({ hostsMax: 1, configured: new ConfiguredHosts(['mine.example']) });
  limit.admit('busy.example', { status: 200, timeMs: 0 });
  t.is(limit.admit('mine.example', { status: 502, timeMs: 0 }), 'mine.example');
  t.is(limit.admit('busy.example', { status: 200, timeMs: 0 }), 'busy.example');
});

test('frees a slot when a host is configured later', (t) => {
  const configured = new ConfiguredHosts();
  const limit = limitOf({ hostsMax: 1, configured });
  const at = (host: string): string => limit.admit(host, { status: 200, timeMs: 0 });
  at('mine.example');
  configured.set(['mine.example']);
  t.deepEqual(['other.example', 'mine.example', 'third.example'].map(at), ['other.example', 'mine.example', '_other']);
});

test('prefers hosts below a configured wildcard to all others, within the limit, as soon as it is configured', (t) => {
  const configured = new ConfiguredHosts();
  const limit = limitOf({ hostsMax: 100, configured });
  const at = (host: string, status = 200): string => limit.admit(host, { status, timeMs: 0 });
  const tenants = Array.from({ length: 50 }, (_, tenant) => `tenant-${tenant}.example.com`);
  for (const tenant of tenants) at(tenant, 404);
  configured.set(['*.example.com']);
  for (let made = 0; made < 10_000; made += 1) at(`made-up-${made % 2000}.example`);
  t.deepEqual(
    tenants.filter((tenant) => at(tenant, 404) !== tenant),
    [],
  );
  const below = new Set(Array.from({ length: 1000 }, (_, made) => at(`made-up-${made}.example.com`)));
  t.true(below.has('_other') && below.size <= 101, 'strangers can make up names below it, too');
});
