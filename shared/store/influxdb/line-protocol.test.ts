import test from 'ava';
import { flux, InfluxDB } from '@influxdata/influxdb-client';
import fc from 'fast-check';
import { influxdOfThisFile, quietLog, spoolOfTest, testWithInfluxd, type Influxd } from '../../../test/influxd.js';
import { Histogram } from '../../sketch/histogram.js';
import type { RequestEvent } from '../../request-event.js';
import { packCells, unpackCells } from '../../rollup/cells.js';
import type { Cell } from '../../rollup/rollup.js';
import { fluxText } from './flux-text.js';
import { openInfluxdbStore } from './influxdb-store.js';
import { ledgerLines, rollupLine } from './line-protocol.js';
import { parseTimestamp, tagText, textOfTag, textOfUri, uriText } from './line-values.js';
import { createRequestLines, parseRequestLine, requestLine } from './request-line.js';
import { TextBuffer } from './text-buffer.js';

const influxd = influxdOfThisFile();

const event: RequestEvent = {
  source: 'caddy',
  timeMs: Date.UTC(2026, 10, 23, 20),
  timeNs: 42,
  host: 'shop.example',
  method: 'GET',
  status: 200,
  durationMs: 6.31,
  size: 1234,
  bytesRead: 5,
  uri: '/a?b="c"',
  endpoint: '',
  clientIp: '192.0.2.0',
  userAgent: '',
  referrer: '',
  protocol: 'HTTP/2.0',
  tls: '',
  upstreamMs: null,
  error: '',
  errorId: '',
  upstream: '',
  retries: null,
  contentType: '',
  requestId: '',
};

test('writes a request as one line, with sorted tags, and without empty tags or texts', (t) => {
  t.is(
    requestLine(event, 'edge-1'),
    String.raw`request_metrics,host=shop.example,method=GET,recorder=edge-1,source=caddy,status_code=200 uri="/a?b=\"c\"",size=1234i,bytes_read=5i,duration_ms=6.31,client_ip="192.0.2.0",protocol="HTTP/2.0" 1795464000000000042`,
  );
  t.is(
    requestLine(
      {
        ...event,
        host: '',
        uri: '',
        clientIp: '',
        protocol: '',
        endpoint: '/a b,c=d\\',
        durationMs: null,
        upstreamMs: 1.5,
        error: '',
        errorId: '',
        upstream: '',
        retries: null,
        contentType: '',
        requestId: 'a"b',
      },
      '',
    ),
    String.raw`request_metrics,endpoint=/a\ b\,c\=d\.,method=GET,source=caddy,status_code=200 uri="-",size=1234i,bytes_read=5i,upstream_ms=1.5,request_id="a\"b" 1795464000000000042`,
  );
});

test('parses a line into the request that it was written from', (t) => {
  const name = fc.string({ unit: fc.constantFrom('\\', '.', 'a', ',', '=', ' ', '"', 'é') });
  const text = fc.string({ unit: fc.constantFrom('\\', '-', 'a', ',', '=', ' ', '"', '\n', '😀', '1i') });
  const requests = fc.record({
    source: name,
    host: name,
    method: name,
    endpoint: name,
    uri: text,
    clientIp: text,
    userAgent: text,
    referrer: text,
    protocol: text,
    tls: text,
    requestId: text,
    error: text,
    errorId: text,
    upstream: text,
    retries: fc.option(fc.nat()),
    contentType: text,
    timeMs: fc.integer({ min: 1, max: 4e12 }),
    timeNs: fc.integer({ min: 0, max: 999_999 }),
    status: fc.integer({ min: 0, max: 999 }),
    durationMs: fc.option(fc.double({ min: 0, max: 1e9, noNaN: true })),
    upstreamMs: fc.option(fc.double({ min: 0, max: 1e-9, noNaN: true })),
    size: fc.nat(),
    bytesRead: fc.nat(),
  });
  fc.assert(
    fc.property(requests, name, (request, recorder) => {
      t.deepEqual(parseRequestLine(requestLine(request, recorder)), request);
    }),
  );
  fc.assert(
    fc.property(fc.array(requests, { maxLength: 30 }), name, (several, recorder) => {
      const addLine = createRequestLines(recorder);
      const text = new TextBuffer();
      for (const request of several.flatMap((each) => [each, { ...each, status: 200 }, each])) {
        text.clear();
        addLine(request, text);
        t.is(text.bytes.toString(), requestLine(request, recorder));
      }
    }),
  );
  t.is(parseRequestLine('request_rollup,host=a count=1i 5'), undefined);
});

const cellOf = (method: string, status: number, count: number): Cell => ({
  method,
  status,
  count,
  sampledOut: 0,
  durationSumMs: 3.5 * count,
  durationMaxMs: 3,
  sizeSum: 9,
  histogram: new Histogram(),
});

test('writes a rollup row as one line, with the window and the id as its time', (t) => {
  const row = {
    level: 60,
    windowMs: Date.UTC(2026, 10, 23, 20),
    rowId: 2 ** 33 - 1,
    source: 'caddy',
    host: undefined,
    cells: [cellOf('GET', 200, 2), cellOf('_other', 503, 1), cellOf('GET', 0, 1)],
  } as const;
  t.is(
    rollupLine(row),
    'request_rollup,level=1m,source=caddy count=4i,duration_sum_ms=14,duration_max_ms=3,size_sum=27i,status_2xx=2i,status_5xx=1i,status_other=1i,' +
      'cells="GET 200 2  9 7 3 AA==,_other 503 1  9 3.5 3 AA==,GET 0 1  9 3.5 3 AA==" 1795464008589934591',
  );
  t.regex(rollupLine({ ...row, host: 'a b' }), /^request_rollup,host=a\\ b,level=1m,scope=host,source=caddy count=4i/);
  t.regex(rollupLine({ ...row, host: '', source: '' }), /^request_rollup,level=1m,scope=host count=4i/);
  t.regex(
    rollupLine({ ...row, cells: [{ ...cellOf('GET', 200, 2), sampledOut: 1 }] }),
    /,sampled_out=1i,status_2xx=2i,cells="GET 200 2 1 9 7 3 AA==" /,
  );
  t.regex(
    rollupLine({ ...row, cells: [] }),
    / count=0i,duration_sum_ms=0,duration_max_ms=0,size_sum=0i,sampled_out=0i,status_1xx=0i,.*,status_other=0i,cells="" /,
  );
});

test('packs cells that subtract a request', (t) => {
  const histogram = new Histogram();
  histogram.add(12.5);
  const cells: Cell[] = [
    {
      method: 'GET',
      status: 200,
      count: -1,
      sampledOut: 0,
      durationSumMs: -12.5,
      durationMaxMs: 0,
      sizeSum: -9,
      histogram: histogram.negated(),
    },
    {
      method: 'GET',
      status: 101,
      count: -1,
      sampledOut: 0,
      durationSumMs: 0,
      durationMaxMs: 0,
      sizeSum: -9,
      histogram: new Histogram(),
    },
  ];
  t.deepEqual(
    unpackCells(packCells(cells)).map(({ histogram: { total }, ...numbers }) => ({ total, ...numbers })),
    cells.map(({ histogram: { total }, ...numbers }) => ({ total, ...numbers })),
  );
  histogram.merge(unpackCells(packCells(cells))[0]!.histogram);
  t.is(histogram.quantile(0.5), null);
});

test('writes a ledger as one point per count, all with the same time', (t) => {
  const lines = ledgerLines({
    collector: 'edge 1',
    timeMs: 1000,
    received: 9,
    accepted: 1,
    runtime: 2,
    events: 1,
    rejected: { 'not-json': 3 },
    dropped: { 'disk-full': 4 },
    stored: 5,
    spooled: 6,
    inMemory: 7,
    deadLettered: 8,
    warnings: { 'datagrams-lost': 10 },
    lastLineMs: 999,
  });
  t.deepEqual(lines, [
    'collector_ledger,account=received,collector=edge\\ 1 lines=9i 1000000000',
    'collector_ledger,account=accepted,collector=edge\\ 1 lines=1i 1000000000',
    'collector_ledger,account=runtime,collector=edge\\ 1 lines=2i 1000000000',
    'collector_ledger,account=events,collector=edge\\ 1 lines=1i 1000000000',
    'collector_ledger,account=stored,collector=edge\\ 1 lines=5i 1000000000',
    'collector_ledger,account=spooled,collector=edge\\ 1 lines=6i 1000000000',
    'collector_ledger,account=in_memory,collector=edge\\ 1 lines=7i 1000000000',
    'collector_ledger,account=dead_lettered,collector=edge\\ 1 lines=8i 1000000000',
    'collector_ledger,account=rejected,collector=edge\\ 1,reason=not-json lines=3i 1000000000',
    'collector_ledger,account=dropped,collector=edge\\ 1,reason=disk-full lines=4i 1000000000',
    'collector_ledger,account=warnings,collector=edge\\ 1,reason=datagrams-lost lines=10i 1000000000',
    'collector_ledger,account=last_line,collector=edge\\ 1 time_ms=999i 1000000000',
  ]);
});

test('decodes tags and uris to the values that they were encoded from', (t) => {
  const text = fc.string({ unit: fc.constantFrom('\\', '.', '-', 'a', ',', '=', ' ') });
  fc.assert(
    fc.property(text, text, (one, other) => {
      t.is(textOfTag(tagText(one)), one);
      t.is(textOfUri(uriText(one)), one);
      t.is(tagText(one) === tagText(other), one === other);
      t.is(uriText(one) === uriText(other), one === other);
      t.notRegex(tagText(one), /\\([,= ]|$)/);
      t.not(uriText(one), '');
    }),
  );
});

test('parses timestamps to the nanosecond, with any number of decimals', (t) => {
  const timeMs = Date.UTC(2026, 10, 23, 20);
  t.deepEqual(parseTimestamp('2026-11-23T20:00:00Z'), { timeMs, timeNs: 0 });
  t.deepEqual(parseTimestamp('2026-11-23T20:00:00.5Z'), { timeMs: timeMs + 500, timeNs: 0 });
  t.deepEqual(parseTimestamp('2026-11-23T20:00:00.000000001Z'), { timeMs, timeNs: 1 });
  t.deepEqual(parseTimestamp('2026-11-23T20:00:00.123456789Z'), { timeMs: timeMs + 123, timeNs: 456_789 });
  t.deepEqual(parseTimestamp('2026-11-23T20:00:00.99999Z'), { timeMs: timeMs + 999, timeNs: 990_000 });
});

testWithInfluxd('writes lines from which InfluxDB creates exactly one series per combination of tags', async (t) => {
  const server = await influxd();
  const tag = fc.string({
    unit: fc.constantFrom('\\', ',', '=', ' ', '.', '"', "'", '#', 'a', '€', '🙂'),
    maxLength: 6,
  });
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(
        fc.oneof({ weight: 9, arbitrary: fc.tuple(tag, tag, tag, tag) }, fc.constant(['', '', '', ''] as const)),
        { minLength: 1, maxLength: 60, selector: (tags) => JSON.stringify(tags) },
      ),
      async (all) => {
        const bucket = await server.createBucket();
        try {
          const requests = all.map(([source, host, method, endpoint]) => ({
            ...event,
            source,
            host,
            method,
            endpoint,
          }));
          await writeTo(server, bucket, requests);
          t.deepEqual(await tagsIn(server, bucket), all.map((tags) => JSON.stringify(tags)).toSorted());
        } finally {
          await server.deleteBucket(bucket);
        }
      },
    ),
    { numRuns: 10 },
  );
});

if (process.env['INFLUXDB_URL'] === undefined) {
  testWithInfluxd('writes tags that InfluxDB reads unchanged after a kill and after a restart', async (t) => {
    const server = await influxd();
    const bucket = await server.createBucket();
    const parts = [
      '',
      '\\',
      '\\\\',
      '\\.',
      'a\\',
      'a\\,b',
      '\\,',
      ',\\',
      '\\ ',
      ' \\',
      '\\=',
      '=\\',
      'a\\\\,',
      ',',
      '=',
      ' ',
      '"',
      '#',
    ];
    const tags = parts.flatMap((source) => parts.map((host) => [source, host, '', '\\'] as const));
    await writeTo(
      server,
      bucket,
      tags.map(([source, host, method, endpoint]) => ({ ...event, source, host, method, endpoint })),
    );
    const expected = tags.map((values) => JSON.stringify(values)).toSorted();
    t.deepEqual(await tagsIn(server, bucket), expected);
    await server.kill();
    await server.restart();
    t.deepEqual(await tagsIn(server, bucket), expected);
    await server.restart();
    t.deepEqual(await tagsIn(server, bucket), expected);
  });
}

async function writeTo({ url, org, token }: Influxd, bucket: string, requests: readonly RequestEvent[]): Promise<void> {
  const store = await openInfluxdbStore({ url, org, bucket, token, ...spoolOfTest() }, { log: quietLog });
  await store.write({
    recorder: 'test',
    writer: 'test',
    sequence: 1,
    requests,
    aggregates: [],
    rollups: [],
    topLists: [],
    ledger: undefined,
  });
  await store.close();
}

/**
 * Returns the tags of all points, sorted. Includes one that is never empty, since rows without any column are not
 * returned.
 */
async function tagsIn({ url, org, token }: Influxd, bucket: string): Promise<string[]> {
  const rows = await new InfluxDB({ url, token })
    .getQueryApi(org)
    .collectRows<Record<string, string | undefined>>(flux`from(bucket: ${fluxText(bucket)})
  |> range(start: 2026-11-23T00:00:00Z, stop: 2026-11-24T00:00:00Z)
  |> filter(fn: (r) => r._field == "uri")
  |> keep(columns: ["recorder", "source", "host", "method", "endpoint"])`);
  return rows
    .map(({ source, host, method, endpoint }) =>
      JSON.stringify([source, host, method, endpoint].map((value) => textOfTag(value))),
    )
    .toSorted();
}
