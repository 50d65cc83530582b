import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { documentedCountries, writeMmdb } from '../../test/mmdb.js';
import { countriesFrom } from './countries.js';
import { UsageError } from '../errors.js';
import { createLog } from '../log.js';

test('looks up the country of IPv4, IPv6 and IPv4-mapped IPv6 addresses', async (t) => {
  const { path } = await folder(t);
  await writeMmdb(path, documentedCountries);
  const { countryOf, logged } = open(path);
  const countries = [
    '192.0.2.1',
    '192.0.2.127',
    '192.0.2.128',
    '::ffff:192.0.2.200',
    '2001:db8::1',
    '2001:0DB8:0:0::1',
  ].map(countryOf);
  t.deepEqual(countries, ['DE', 'DE', 'FR', 'FR', 'JP', 'JP']);
  t.deepEqual(
    ['', '-', 'example.com', '192.0.3.1', '198.51.100.7', '2001:db8:8000::1', '::1', 'fe80::1%eth0'].map(countryOf),
    ['', '', '', '', '', '', '', ''],
  );
  t.deepEqual(logged, []);
});

test('returns no country for an IPv6 address from an IPv4-only database', async (t) => {
  const { path } = await folder(t);
  await writeMmdb(path, { '32.0.0.0/4': { country_code: 'US' } }, { ipVersion: 4 });
  const { countryOf } = open(path);
  t.deepEqual(['32.1.13.184', '2001:db8::1', '::ffff:32.1.1.1'].map(countryOf), ['US', '', 'US']);
});

test('ignores country codes that do not have two letters', async (t) => {
  const { path } = await folder(t);
  await writeMmdb(path, {
    '192.0.2.0/25': { country: 'Germany', country_code: 'DE' },
    '192.0.2.128/25': { country_code: '<b>' },
    '198.51.100.0/24': { registered_country: { iso_code: 'DE' } },
  });
  t.deepEqual(['192.0.2.1', '192.0.2.129', '198.51.100.1'].map(open(path).countryOf), ['DE', '', '']);
});

test('looks up nothing without a database', (t) => {
  t.is(countriesFrom({ GEOIP_DATABASE: undefined, CLIENT_IP: 'off' }, createLog('test')), undefined);
});

test('rejects an unusable database with its name and the requirements', async (t) => {
  const { path } = await folder(t);
  const message = (clientIp: 'off' | 'full' = 'full'): string =>
    t.throws(() => countriesFrom({ GEOIP_DATABASE: path, CLIENT_IP: clientIp }, createLog('test')), {
      instanceOf: UsageError,
    }).message;
  t.regex(
    message(),
    /^GEOIP_DATABASE is ".*countries\.mmdb": it must be an MMDB file with countries, such as GeoLite2-Country\.mmdb .*\(ENOENT/,
  );
  for (const content of ['', 'not a database', '<html>404</html>'.repeat(1000)]) {
    await writeFile(path, content);
    t.regex(
      message(),
      /^GEOIP_DATABASE is ".*countries\.mmdb": it must be an MMDB file with countries, .*uncompressed/,
      JSON.stringify(content.slice(0, 20)),
    );
  }
  await writeMmdb(
    path,
    {
      '192.0.2.0/24': { autonomous_system_organization: 'Example' },
      '2001:db8::/32': { autonomous_system_organization: 'Example' },
    },
    { type: 'GeoLite2-ASN' },
  );
  t.regex(
    message(),
    /GEOIP_DATABASE is .* must be an MMDB file with countries.*, but this one \("GeoLite2-ASN"\) has no countries\./,
  );
  await writeMmdb(path, documentedCountries);
  t.regex(
    message('off'),
    /^GEOIP_DATABASE is set, but CLIENT_IP is "off", .*Set CLIENT_IP=truncated, or unset GEOIP_DATABASE/,
  );
  const content = await readFile(path);
  await writeFile(path, content.subarray(0, content.length / 2));
  t.regex(message(), /uncompressed/, 'a download that ended early');
});

test('returns no country from a damaged database, and logs it once', async (t) => {
  const { path } = await folder(t);
  await writeMmdb(path, documentedCountries);
  const bytes = await readFile(path);
  const at = bytes.indexOf('JP') - 1;
  t.is(bytes[at], 0x42, 'the length of the text');
  bytes[at] = 0x3f; // a pointer to far beyond the end
  await writeFile(path, bytes);
  const { countryOf, logged } = open(path);
  t.deepEqual(['192.0.2.1', '2001:db8::1', '2001:db8::2'].map(countryOf), ['DE', '', '']);
  t.is(logged.length, 1);
  t.regex(logged[0]!, /countries\.mmdb, which is damaged: .*Replace the file/);
});

function open(path: string) {
  const logged: string[] = [];
  return {
    countryOf: countriesFrom(
      { GEOIP_DATABASE: path, CLIENT_IP: 'truncated' },
      createLog('test', { write: (line) => logged.push(line) }),
    )!,
    logged,
  };
}

async function folder(t: ExecutionContext): Promise<{ path: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'countries-'));
  t.teardown(() => rm(directory, { recursive: true }));
  return { path: join(directory, 'countries.mmdb') };
}
