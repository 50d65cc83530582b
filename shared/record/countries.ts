/** Looks up the country of an address in an MMDB file. */
import { readFileSync } from 'node:fs';
import ipaddr from 'ipaddr.js';
import { Reader, type Response } from 'mmdb-lib';
import type { ClientIpPolicy } from './bounds.js';
import { messageOf, UsageError } from '../errors.js';
import { rateLimitedWarn, type Log } from '../log.js';

/** Returns the ISO 3166 code of an address, such as `DE`; `''` if it is unknown. Never throws. */
export type CountryOf = (address: string) => string;

/** Maximum number of networks to examine for a country. Enough for the first few million addresses. */
const networksTriedMax = 10_000;

/** Opens the database of the settings; returns `undefined` if none is set. Throws a `UsageError` if it is unusable. */
export function countriesFrom(
  { GEOIP_DATABASE: path, CLIENT_IP: clientIp }: { GEOIP_DATABASE: string | undefined; CLIENT_IP: ClientIpPolicy },
  log: Log,
): CountryOf | undefined {
  if (path === undefined) return undefined;
  if (clientIp === 'off')
    throw new UsageError(
      'GEOIP_DATABASE is set, but CLIENT_IP is "off", so no country would be stored. Set CLIENT_IP=truncated, or unset GEOIP_DATABASE.',
    );
  const requirement = 'it must be an MMDB file with countries, such as GeoLite2-Country.mmdb or dbip-country-lite.mmdb';
  let reader: Reader<Response>;
  try {
    reader = new Reader(readFileSync(path));
  } catch (error) {
    throw new UsageError(
      `GEOIP_DATABASE is ${JSON.stringify(path)}: ${requirement}, uncompressed and readable by this user (${messageOf(error)}).`,
      { cause: error },
    );
  }
  if (!hasCountries(reader))
    throw new UsageError(
      `GEOIP_DATABASE is ${JSON.stringify(path)}: ${requirement}, but this one (${JSON.stringify(reader.metadata.databaseType)}) has no countries.`,
    );
  const warn = rateLimitedWarn(log.warn);
  return (address) => {
    if (!ipaddr.isValid(address)) return '';
    const known = ipaddr.process(address); // converts IPv4-mapped IPv6 to IPv4
    if (known.kind() === 'ipv6' && reader.metadata.ipVersion === 4) return '';
    try {
      return countryIn(reader.get(known.toString()));
    } catch (error) {
      warn(
        'countries',
        `Cannot look up the country of an address in ${path}, which is damaged: ${messageOf(error)}. Replace the file and restart.`,
      );
      return '';
    }
  };
}

/** Searches the networks in order until one has a country. */
function hasCountries(reader: Reader<Response>): boolean {
  const { ipVersion } = reader.metadata;
  let left = networksTriedMax;
  for (const bits of ipVersion === 4 ? [32] : [32, 128]) {
    for (let address = 0n; address < 1n << BigInt(bits) && left > 0; left -= 1) {
      let found: Response | null;
      let prefixLength: number;
      try {
        [found, prefixLength] = reader.getWithPrefixLength(addressOf(address, bits));
      } catch {
        return false; // damaged
      }
      if (countryIn(found) !== '') return true;
      address += 1n << BigInt(bits - prefixLength);
    }
  }
  return false;
}

function addressOf(value: bigint, bits: number): string {
  return ipaddr.fromByteArray([...Buffer.from(value.toString(16).padStart(bits / 4, '0'), 'hex')]).toString();
}

/** MaxMind and DB-IP have `country.iso_code`, IPinfo and others `country_code`. */
function countryIn(found: unknown): string {
  const { country, country_code: flat } = (found ?? {}) as {
    country?: { iso_code?: unknown } | null;
    country_code?: unknown;
  };
  const code = country?.iso_code ?? flat;
  return typeof code === 'string' && /^[A-Z]{2}$/.test(code) ? code : '';
}
