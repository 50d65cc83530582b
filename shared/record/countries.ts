/** The country of an address, from a database in the MMDB format that the operator gives. */
import { readFileSync } from 'node:fs';
import ipaddr from 'ipaddr.js';
import { Reader, type Response } from 'mmdb-lib';
import type { ClientIpPolicy } from './bounds.js';
import { messageOf, UsageError } from '../errors.js';
import { rateLimitedWarn, type Log } from '../log.js';

/** The ISO 3166 code of the country of an address, such as `DE`; `''` where it is not known. Never throws. */
export type CountryOf = (address: string) => string;

/**
 * A database without a country in so many networks, which is a part of the first few millions of addresses, has none.
 */
const networksTriedMax = 10_000;

/**
 * Opens the database that the settings name. Throws a `UsageError` when it cannot be used; `undefined` when none is
 * named.
 */
export function countriesFrom(
  { GEOIP_DATABASE: path, CLIENT_IP: clientIp }: { GEOIP_DATABASE: string | undefined; CLIENT_IP: ClientIpPolicy },
  log: Log,
): CountryOf | undefined {
  if (path === undefined) return undefined;
  if (clientIp === 'off')
    throw new UsageError(
      'GEOIP_DATABASE is set, and CLIENT_IP is "off": nothing is kept of addresses then, and so no country. Set CLIENT_IP=truncated, or leave GEOIP_DATABASE out.',
    );
  const wanted = 'it must be an MMDB file with countries, such as GeoLite2-Country.mmdb or dbip-country-lite.mmdb';
  let reader: Reader<Response>;
  try {
    reader = new Reader(readFileSync(path));
  } catch (error) {
    throw new UsageError(
      `GEOIP_DATABASE is ${JSON.stringify(path)}: ${wanted}, unpacked, that this user can read (${messageOf(error)}).`,
      { cause: error },
    );
  }
  if (!hasCountries(reader))
    throw new UsageError(
      `GEOIP_DATABASE is ${JSON.stringify(path)}: ${wanted}, and this one (${JSON.stringify(reader.metadata.databaseType)}) has none.`,
    );
  const warn = rateLimitedWarn(log.warn);
  return (address) => {
    if (!ipaddr.isValid(address)) return '';
    const known = ipaddr.process(address); // an IPv4-mapped IPv6 address becomes IPv4
    if (known.kind() === 'ipv6' && reader.metadata.ipVersion === 4) return '';
    try {
      return countryIn(reader.get(known.toString()));
    } catch (error) {
      warn(
        'countries',
        `Cannot look up the country of an address in ${path}, which is damaged: ${messageOf(error)}. Get the file anew, and restart.`,
      );
      return '';
    }
  };
}

/** Goes from network to network until one has a country. */
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
        return false; // its data is not where the tree says
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
