/** The queries of docs/grafana, on the real InfluxDB, over the sample. */
import { readFile } from 'node:fs/promises';
import { InfluxDB } from '@influxdata/influxdb-client';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { runProgram } from './program.js';
import { readSample } from './sample.js';

interface Dashboard {
  readonly panels: readonly { title: string; targets: readonly { query: string }[] }[];
}
interface Row {
  readonly _value: number | null;
  readonly source?: string;
  readonly status_code?: string;
}

const influxd = influxdOfThisFile();

testWithInfluxd("Every query of the Grafana dashboard gives the sample's numbers.", async (t) => {
  t.timeout(120_000);
  const { url, org, token, createBucket } = await influxd();
  const bucket = await createBucket();
  const sample = readSample();
  const imported = await runProgram(
    ['import', '-'],
    { STORE: 'influxdb', INFLUXDB_URL: url, INFLUXDB_ORG: org, INFLUXDB_BUCKET: bucket, INFLUXDB_TOKEN: token },
    { stdin: sample.bytes },
  );
  t.is(await imported.ended, 0, imported.stderr());

  const { panels } = JSON.parse(await readFile('docs/grafana/caddy-log-sink.json', 'utf8')) as Dashboard;
  // As Grafana does: an option `v` in front of the query.
  const [startMs, stopMs] = [Date.now() - 3 * 3_600_000, Date.now()];
  const variables = `option v = {defaultBucket: ${JSON.stringify(bucket)}, organization: ${JSON.stringify(org)}, timeRangeStart: ${new Date(startMs).toISOString()}, timeRangeStop: ${new Date(stopMs).toISOString()}, windowPeriod: 1m}\n`;
  const api = new InfluxDB({ url, token }).getQueryApi(org);
  const rowsOf = new Map<string, Row[]>();
  for (const { title, targets } of panels) {
    t.is(targets.length, 1, title);
    rowsOf.set(title, await api.collectRows<Row>(variables + targets[0]!.query));
  }
  const sumOf = (title: string): number => rowsOf.get(title)!.reduce((sum, { _value }) => sum + (_value ?? 0), 0);
  const errors = Object.entries(sample.statuses).reduce(
    (sum, [status, count]) => sum + (status.startsWith('5') ? count : 0),
    0,
  );
  t.is(sumOf('Requests'), sample.lines.length);
  t.is(sumOf('Errors (5xx)'), errors);
  t.is(sumOf('Bytes sent'), sample.sizeSum);
  t.is(sumOf('Requests by hour, for long ranges'), sample.lines.length);
  t.deepEqual(
    Object.fromEntries(rowsOf.get('Requests by status')!.map(({ status_code, _value }) => [status_code, _value])),
    sample.statuses,
  );
  const latencies = rowsOf.get('Latency, p95')!.flatMap(({ _value }) => _value ?? []);
  t.true(latencies.length > 0 && latencies.every((ms) => ms > 0 && ms < 10_000));
  t.deepEqual([...rowsOf.keys()].length, 6, 'no panel is without a check');
  t.deepEqual([...new Set([...rowsOf.values()].flat().map(({ source }) => source))], ['caddy']);
});
