/**
 * Writes small databases in the MMDB format 2.0 (https://maxmind.github.io/MaxMind-DB/), so that no foreign one need be
 * kept here.
 */
import { writeFile } from 'node:fs/promises';
import ipaddr from 'ipaddr.js';

/** Texts and what is made of them: all that these databases hold. */
type MmdbValue = string | { readonly [key: string]: MmdbValue };

/** Numbers are of the type that the metadata has to have. */
interface Unsigned {
  readonly bytes: 2 | 4 | 8;
  readonly value: number;
}

/** What `writeMmdb` is given besides the networks. */
export interface MmdbOptions {
  readonly ipVersion?: 4 | 6;
  readonly type?: string;
}

/** Two networks for documentation, and what GeoLite2 would say of them. */
export const documentedCountries: Readonly<Record<string, MmdbValue>> = {
  '192.0.2.0/25': { country: { iso_code: 'DE', names: { en: 'Germany' } } },
  '192.0.2.128/25': { country: { iso_code: 'FR', names: { en: 'France' } } },
  '2001:db8::/33': { country: { iso_code: 'JP' } },
};

/** Writes a database with a value for each network. An IPv6 one has IPv4 networks below `::/96`, as the format says. */
export async function writeMmdb(
  path: string,
  networks: Readonly<Record<string, MmdbValue>>,
  { ipVersion = 6, type = 'Test-Country' }: MmdbOptions = {},
): Promise<void> {
  // A record is the number of a node, that of nodes where nothing is known, or beyond it a place in the data.
  const nodes: [Entry, Entry][] = [[undefined, undefined]];
  const data: Buffer[] = [];
  let dataLength = 0;
  for (const [network, value] of Object.entries(networks)) {
    const [address, length] = ipaddr.parseCIDR(network);
    const isShort = address.kind() === 'ipv4' && ipVersion === 6;
    const bits = [...(isShort ? new Array<number>(12).fill(0) : []), ...address.toByteArray()]
      .map((byte) => byte.toString(2).padStart(8, '0'))
      .join('')
      .slice(0, length + (isShort ? 96 : 0));
    let node = 0;
    for (const bit of bits.slice(0, -1)) {
      const side = Number(bit) as 0 | 1;
      const next = nodes[node]![side]?.node ?? nodes.push([undefined, undefined]) - 1;
      nodes[node]![side] = { node: next };
      node = next;
    }
    nodes[node]![Number(bits.at(-1)) as 0 | 1] = { data: dataLength };
    const encoded = encode(value);
    data.push(encoded);
    dataLength += encoded.length;
  }
  const recordOf = (entry: Entry): number =>
    entry?.node ?? (entry?.data === undefined ? nodes.length : nodes.length + 16 + entry.data);
  const tree = nodes.flat().map((entry) => {
    const record = Buffer.alloc(4);
    record.writeUInt32BE(recordOf(entry));
    return record;
  });
  const metadata = encode({
    binary_format_major_version: { bytes: 2, value: 2 },
    binary_format_minor_version: { bytes: 2, value: 0 },
    build_epoch: { bytes: 8, value: 1_700_000_000 },
    database_type: type,
    ip_version: { bytes: 2, value: ipVersion },
    node_count: { bytes: 4, value: nodes.length },
    record_size: { bytes: 2, value: 32 },
  });
  await writeFile(
    path,
    Buffer.concat([...tree, Buffer.alloc(16), ...data, Buffer.from('\xab\xcd\xefMaxMind.com', 'latin1'), metadata]),
  );
}

type Entry = { readonly node?: number; readonly data?: number } | undefined;

function encode(value: MmdbValue | Readonly<Record<string, MmdbValue | Unsigned>>): Buffer {
  if (typeof value === 'string') return Buffer.concat([control(2, Buffer.byteLength(value)), Buffer.from(value)]);
  const entries = Object.entries(value);
  return Buffer.concat([
    control(7, entries.length),
    ...entries.flatMap(([key, each]) => [encode(key), isUnsigned(each) ? unsigned(each) : encode(each)]),
  ]);
}

function isUnsigned(value: MmdbValue | Unsigned): value is Unsigned {
  return typeof value !== 'string' && typeof value.value === 'number';
}

function unsigned({ bytes, value }: Unsigned): Buffer {
  const number = Buffer.alloc(8);
  number.writeBigUInt64BE(BigInt(value));
  return Buffer.concat([control({ 2: 5, 4: 6, 8: 9 }[bytes], bytes), number.subarray(8 - bytes)]);
}

/** Types beyond 7 have a byte of their own. All here is shorter than 29. */
function control(type: number, size: number): Buffer {
  return type > 7 ? Buffer.from([size, type - 7]) : Buffer.from([(type << 5) | size]);
}
