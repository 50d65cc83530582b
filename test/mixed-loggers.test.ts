/** One real Caddy with nine loggers of different encoders, which share one connection. */
import { request } from 'node:http';
import { startCaddy, testWithCaddy } from './caddy.js';
import { collectorOfTest } from './collector.js';
import { freePort } from './ports.js';
import { until } from './until.js';

const formats = [
  'json',
  'json {\n time_format unix_nano\n duration_format ns\n }',
  'json {\n time_format rfc3339_nano\n duration_format string\n level_format upper\n }',
  'json {\n time_format iso8601\n duration_format ms\n message_key text\n level_key severity\n time_key time\n name_key who\n }',
  'json {\n time_format wall_milli\n level_key ""\n name_key ""\n }',
  'console',
  'console {\n time_format common_log\n level_format color\n }',
  'filter {\n request>headers delete\n request>remote_ip ip_mask 16\n duration delete\n }',
  'append {\n fields {\n region north\n }\n }',
];

testWithCaddy('nine loggers of mixed encoders on one connection are counted exactly', async (t) => {
  const collector = await collectorOfTest(t);
  const port = await freePort();
  const sites = formats.map(
    (format, at) =>
      `http://site${at}.test:${port} {\n log {\n output net ${collector.address} {\n soft_start\n }\n format ${format}\n }\n respond "hello" 200\n }`,
  );
  const caddy = await startCaddy(`{\n auto_https off\n }\n${sites.join('\n')}`);
  try {
    for (let at = 0; at < 40; at += 1) {
      await Promise.all(formats.map((_, site) => visit(port, `site${site}.test:${port}`)));
    }
    await until('every line is stored', () => collector.ledger().stored === 40 * formats.length);
    const { received, accepted, runtime, rejected, dropped } = collector.ledger();
    t.deepEqual({ accepted, rejected, dropped }, { accepted: 360, rejected: {}, dropped: {} });
    t.is(received, accepted + runtime);
  } finally {
    await caddy.stop();
  }
});

function visit(port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, headers: { host }, agent: false }, (response) => {
      response.resume().on('end', resolve);
    })
      .on('error', reject)
      .end();
  });
}
