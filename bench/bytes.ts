/**
 * What a request takes on the disk: in DuckDB, alone and with a day's totals and lists, and in InfluxDB beside the
 * points that telegraf makes of the same lines.
 */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { createDecoder } from '../collector/decode/decode.js';
import { createLog } from '../shared/log.js';
import type { RequestEvent } from '../shared/request-event.js';
import { seriesKey } from '../shared/rollup/rollup.js';
import { openStore } from '../shared/store/open.js';
import type { StoreSettings } from '../shared/settings/store-settings.js';
import { createUniqueTimes } from '../shared/record/unique-time.js';
import { startInfluxd, type Influxd } from '../test/influxd-server.js';
import { freePorts } from '../test/ports.js';
import { startProgram, temporaryFolder } from '../test/program.js';
import { until } from '../test/until.js';
import { arrived } from './collector.js';
import type { Result } from './compare.js';
import { makeDay } from './day.js';
import { makeLinesFile, sendFile, type LinesFile } from './lines-file.js';
import { startTelegraf } from './telegraf.js';

const bytesMax = 20;
const retention = { requestsMs: 7 * 86_400_000, rollupsMs: 400 * 86_400_000 };
/** So that what has come in is in compacted files soon after, as it is hours later otherwise: see `influxd --help`. */
const compactSoon = [
  '--storage-cache-snapshot-write-cold-duration',
  '3s',
  '--storage-compact-full-write-cold-duration',
  '5s',
];

/** Measures stored bytes per request in both stores. */
export async function benchBytes(say: (text: string) => void): Promise<Result[]> {
  const file = await makeLinesFile(Number(process.env['BENCH_LINES'] ?? 300_000));
  const reported = (what: string, bytes: number, against = ''): Result => {
    say(`${what}: ${bytes.toFixed(1)}`);
    return { what, measured: bytes.toFixed(1), against, wanted: '', holds: undefined };
  };
  const requests = await requestsOf(file);
  const alone = join(await temporaryFolder(), 'requests.duckdb');
  await writeRequests({ kind: 'duckdb', path: alone, retention }, requests);
  const aloneBytes = (await stat(alone)).size / file.lines;
  const day = join(await temporaryFolder(), 'requests.duckdb');
  const dayRequests = await makeDay(day);
  const dayBytes = (await stat(day)).size / dayRequests;
  const influxd = await startInfluxd(process.env, { args: compactSoon });
  try {
    const ours =
      (await bytesIn(influxd, async (bucket) => {
        await writeRequests(
          { kind: 'influxdb', ...influxd, bucket, spoolDir: await temporaryFolder(), spoolBytesMax: 2 ** 30 },
          requests,
        );
      })) / file.lines;
    const whole = (await bytesIn(influxd, (bucket) => collect(influxd, bucket, file))) / file.lines;
    const telegraf = (await bytesIn(influxd, (bucket) => collectByTelegraf(influxd, bucket, file))) / file.lines;
    return [
      {
        ...reported('DuckDB: bytes of a request, alone', aloneBytes),
        wanted: `at most ${bytesMax}`,
        holds: aloneBytes <= bytesMax,
      },
      reported("DuckDB: bytes of a request, with a day's totals and lists at 4 requests a second", dayBytes),
      reported('InfluxDB: bytes of a request, alone', ours, `telegraf: ${telegraf.toFixed(1)}`),
      reported('InfluxDB: bytes of a request, with the totals and lists of ten minutes', whole),
    ];
  } finally {
    await influxd.stop();
  }
}

/** The requests of the lines, as a recorder would hand them to a store. */
async function requestsOf(file: LinesFile): Promise<RequestEvent[]> {
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  const times = createUniqueTimes();
  return (await readFile(file.path, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => {
      const decoded = decoder.decode(line, undefined);
      if (decoded.kind !== 'request') throw new Error(`A line of the sample is no request: ${line.slice(0, 100)}`);
      return { ...decoded.event, ...times.take(seriesKey(decoded.event), decoded.event) };
    });
}

async function writeRequests(settings: StoreSettings, requests: readonly RequestEvent[]): Promise<void> {
  const store = await openStore(settings, {
    log: createLog('bench', { write: () => undefined }),
    spoolName: 'collector',
  });
  for (let from = 0; from < requests.length; from += 5000) {
    await store.write({
      recorder: 'bench',
      writer: 'bench',
      sequence: from + 1,
      requests: requests.slice(from, from + 5000),
      aggregates: [],
      rollups: [],
      topLists: [],
      ledger: undefined,
    });
  }
  await until('all is delivered', () => (store.spool?.own.spooled ?? 0) === 0, { waitMsMax: 120_000 });
  await store.close();
}

async function collect(influxd: Influxd, bucket: string, file: LinesFile): Promise<void> {
  const [port, http] = (await freePorts(2)) as [number, number];
  const program = await startProgram(
    ['collector'],
    {
      STORE: 'influxdb',
      INFLUXDB_URL: influxd.url,
      INFLUXDB_ORG: influxd.org,
      INFLUXDB_BUCKET: bucket,
      INFLUXDB_TOKEN: influxd.token,
      COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`,
      COLLECTOR_HTTP: `127.0.0.1:${http}`,
    },
    [`http://127.0.0.1:${http}/health`],
  );
  await sendFile(file, port);
  await arrived(influxd, bucket, file.lines);
  await program.stop();
}

async function collectByTelegraf(influxd: Influxd, bucket: string, file: LinesFile): Promise<void> {
  const [port] = (await freePorts(1)) as [number];
  const telegraf = await startTelegraf(influxd, bucket, port);
  await sendFile(file, port);
  await arrived(influxd, bucket, file.lines);
  await telegraf.stop();
}

/** What a new bucket takes on the disk when it has been filled and all of it is in compacted files, in bytes. */
async function bytesIn(influxd: Influxd, fill: (bucket: string) => Promise<void>): Promise<number> {
  const bucket = await influxd.createBucket();
  await fill(bucket);
  const id = await bucketId(influxd, bucket);
  let before = 0;
  let sinceMs = performance.now();
  return await until(
    'the bucket is compacted',
    async () => {
      const bytes = await diskBytesOf(influxd, id);
      if (bytes !== before) sinceMs = performance.now();
      before = bytes;
      return bytes > 0 && performance.now() - sinceMs > 20_000 && bytes;
    },
    { waitMsMax: 300_000, pollMs: 1000 },
  );
}

async function bucketId({ url, token }: Influxd, name: string): Promise<string> {
  const response = await fetch(`${url}/api/v2/buckets?name=${name}`, { headers: { authorization: `Token ${token}` } });
  const { buckets } = (await response.json()) as { buckets: { id: string }[] };
  return buckets[0]!.id;
}

/** InfluxDB's own figure: files and log of the bucket's shards. */
async function diskBytesOf({ url, token }: Influxd, id: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`, { headers: { authorization: `Token ${token}` } })).text();
  return [...text.matchAll(/^storage_shard_disk_size\{([^}]*)\} ([\d.e+]+)$/gm)]
    .filter(([, labels]) => labels!.includes(`bucket="${id}"`))
    .reduce((sum, [, , bytes]) => sum + Number(bytes), 0);
}
