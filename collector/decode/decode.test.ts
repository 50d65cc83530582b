import { readFileSync } from 'node:fs';
import test from 'ava';
import fc from 'fast-check';
import { decodeLine } from './decode.js';
import { normaliseHost } from './host.js';

const real = `{"level":"info","ts":1795461210.8232923,"logger":"http.log.access.log1","msg":"handled request","request":{"remote_ip":"127.0.0.1","remote_port":"53462","client_ip":"203.0.113.9","proto":"HTTP/2.0","method":"GET","host":"secure.test:8443","uri":"/s/1?q=ä","headers":{"Authorization":["REDACTED"],"Referer":["https://a.example/"],"User-Agent":["curl/8.7.1"]},"tls":{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"secure.test","ech":false}},"bytes_read":7,"user_id":"","duration":0.011871543,"size":4559,"status":200,"resp_headers":{"Via":["1.1 Caddy"]}}`;

test('a line of the default encoder becomes a request, its time to the last digit', (t) => {
  t.deepEqual(decodeLine(real), {
    kind: 'request',
    event: {
      source: 'caddy', timeMs: 1_795_461_210_823, timeNs: 292_300, host: 'secure.test:8443', method: 'GET', status: 200,
      durationMs: 11.871543, size: 4559, bytesRead: 7, uri: '/s/1?q=ä', endpoint: '', clientIp: '203.0.113.9',
      userAgent: 'curl/8.7.1', referrer: 'https://a.example/', protocol: 'HTTP/2.0', tls: 'TLS 1.3', upstreamMs: null, requestId: '',
    },
  });
});

test('every logger of access logs is taken, whatever its name', (t) => {
  for (const name of ['http.log.access', 'http.log.access.log0', 'http.log.access.shop.example']) {
    t.is(decodeLine(withKeys({ logger: name })).kind, 'request', name);
  }
});

test('what is not a request is not counted as one', (t) => {
  const others = [
    withKeys({ logger: 'http.log.error', err_id: 'x', err_trace: 'y' }),
    withKeys({ logger: 'http.log.error.log2', err_id: 'x', err_trace: 'y' }),
    withKeys({ logger: 'http.handlers.reverse_proxy', level: 'debug', msg: 'upstream roundtrip', upstream: '127.0.0.1:9' }),
    withKeys({ logger: 'http.log.accessories' }),
    '{"level":"debug","ts":1795461210.8,"logger":"http.log.access","msg":"rejecting request with long method","method_trunc":"AAAA"}',
    '{"level":"info","ts":1795464338.7931416,"msg":"serving initial configuration"}',
  ];
  for (const line of others) t.deepEqual(decodeLine(line), { kind: 'runtime' }, line);
});

test('every line that Caddy wrote beside its access log is a runtime line', (t) => {
  const lines = sample('runtime', 'caddy-2.11.4.ndjson');
  t.true(lines.some((line) => line.includes('"http.log.error.')));
  for (const line of lines) t.deepEqual(decodeLine(line), { kind: 'runtime' }, line);
});

test('every access line that Caddy wrote is a request', (t) => {
  for (const line of sample('access', 'caddy-2.11.4.ndjson')) t.is(decodeLine(line).kind, 'request', line);
});

const rejections = test.macro({
  exec(t, line: string, reason: string) {
    t.deepEqual(decodeLine(line), { kind: 'rejected', reason } as ReturnType<typeof decodeLine>);
  },
  title: (given: string | undefined, line: string, reason: string) => `${given ?? line} is rejected as ${reason}`,
});
test(rejections, 'not json', 'not-json');
test('a line cut short', rejections, real.slice(0, -20), 'not-json');
test(rejections, '[]', 'not-caddy');
test(rejections, 'null', 'not-caddy');
test(rejections, '{"hello":"world"}', 'not-caddy');
test('a request without a request', rejections, withKeys({ request: 'GET /' }), 'bad-request');
test('a time that is text', rejections, withKeys({ ts: 'yesterday' }), 'bad-time');
test('a time before 1970', rejections, withKeys({ ts: -1 }), 'bad-time');
test('a time far in the future', rejections, withKeys({ ts: 9_999_999_999 }), 'bad-time');
test('a missing time', rejections, withKeys({ ts: undefined }), 'bad-time');
test('a negative duration', rejections, withKeys({ duration: -0.1 }), 'bad-duration');
test('a duration that is text', rejections, withKeys({ duration: '5ms' }), 'bad-duration');
test('a status that is text', rejections, withKeys({ status: 'ok' }), 'bad-status');
test('a status with four digits', rejections, withKeys({ status: 2000 }), 'bad-status');

test('fields of another type than Caddy writes are left out, and the request is counted', (t) => {
  const decoded = decodeLine(withKeys({ size: '12', bytes_read: -1, request: { host: 7, method: null, uri: [], headers: 'x', tls: [] } }));
  t.like(decoded, { kind: 'request', event: { host: '', method: '', uri: '', size: 0, bytesRead: 0, userAgent: '', tls: '' } });
});

test('no text throws out of the decoder', (t) => {
  const anyLine = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.json(),
    fc.tuple(fc.nat(real.length), fc.nat(20), fc.string({ unit: 'binary', maxLength: 5 })).map(([at, cut, text]) => real.slice(0, at) + text + real.slice(at + cut)),
    fc.constantFrom('ts', 'duration', 'status', 'request', 'logger', 'size').chain((key) => fc.jsonValue().map((value) => withKeys({ [key]: value }))),
  );
  fc.assert(fc.property(anyLine, (line) => ['request', 'runtime', 'rejected'].includes(decodeLine(line).kind)), { numRuns: 20_000 });
  t.is(decodeLine('['.repeat(1e5)).kind, 'rejected');
});

const hosts = test.macro({
  exec(t, host: string, normal: string) { t.is(normaliseHost(host), normal); },
  title: (_, host, normal) => `the host ${JSON.stringify(host)} is counted as ${JSON.stringify(normal)}`,
});
test(hosts, 'Example.COM', 'example.com');
test(hosts, 'example.com:443', 'example.com');
test(hosts, 'example.com.:80', 'example.com');
test(hosts, 'example.com:8443', 'example.com:8443');
test(hosts, 'example.com:', 'example.com');
test(hosts, '[2001:DB8::1]', '2001:db8::1');
test(hosts, '[2001:db8::1]:443', '2001:db8::1');
test(hosts, '[2001:db8::1]:8443', '[2001:db8::1]:8443');
test(hosts, '2001:db8::1', '2001:db8::1');
test(hosts, '', '');
test(hosts, 'a:b:c', 'a:b:c');

function withKeys(keys: Readonly<Record<string, unknown>>): string {
  return JSON.stringify({ ...JSON.parse(real) as object, ...keys });
}

/** Lines that real Caddy wrote: see the fixtures' README. */
function sample(kind: string, name: string): string[] {
  const file = new URL(`../../../collector/decode/fixtures/${kind}/${name}`, import.meta.url);
  return readFileSync(file, 'utf8').trimEnd().split('\n');
}
