import test from 'ava';
import { latencyBucketOf } from '../../shared/rollup/rollup.js';
import { createDecoder, type Decoded } from './decode.js';
import { normaliseHost } from './host.js';
import { withoutIdentity } from './fixtures/without-identity.js';

const real = `{"level":"info","ts":1795461210.8232923,"logger":"http.log.access.log1","msg":"handled request","request":{"remote_ip":"127.0.0.1","remote_port":"53462","client_ip":"203.0.113.9","proto":"HTTP/2.0","method":"GET","host":"secure.test:8443","uri":"/s/1?q=ä","headers":{"Authorization":["REDACTED"],"Referer":["https://a.example/"],"User-Agent":["curl/8.7.1"]},"tls":{"resumed":false,"version":772,"cipher_suite":4865,"proto":"h2","server_name":"secure.test","ech":false}},"bytes_read":7,"user_id":"","duration":0.011871543,"size":4559,"status":200,"resp_headers":{"Via":["1.1 Caddy"]}}`;

/** Arrival time of the lines in these tests, in milliseconds since 1970. */
const arrivalMs = 1_795_461_300_000;

test('decodes a line of the default encoder, with all digits of its time', (t) => {
  t.like(decodeLine(real), {
    kind: 'request',
    event: {
      source: 'caddy',
      timeMs: 1_795_461_210_823,
      timeNs: 292_300,
      host: 'secure.test:8443',
      method: 'GET',
      status: 200,
      durationMs: 11.871543,
      size: 4559,
      bytesRead: 7,
      uri: '/s/1?q=ä',
      endpoint: '',
      clientIp: '203.0.113.9',
      userAgent: 'curl/8.7.1',
      referrer: 'https://a.example/',
      protocol: 'HTTP/2.0',
      tls: 'TLS 1.3',
      upstreamMs: null,
      error: '',
      errorId: '',
      upstream: '',
      retries: null,
      contentType: '',
      requestId: '',
    },
    timeOfArrival: false,
  });
});

test('returns no latency for WebSockets over HTTP/2 and 3, event streams and aborted requests, on both paths', (t) => {
  const line = (of: { method?: string; protocol?: string; status?: number; seconds?: number; type?: string }) => {
    const { method = 'GET', protocol = 'HTTP/2.0', status = 200, seconds = 3600.5, type = 'text/html' } = of;
    return real
      .replace('/s/1?q=ä', '/s/1')
      .replace('"GET"', `"${method}"`)
      .replace('"HTTP/2.0"', `"${protocol}"`)
      .replace('0.011871543', String(seconds))
      .replace('"status":200', `"status":${status}`)
      .replace('["1.1 Caddy"]', `["1.1 Caddy"],"Content-Type":["${type}"]`);
  };
  for (const [of, expected] of [
    [{ method: 'CONNECT' }, false],
    [{ method: 'CONNECT', protocol: 'websocket' }, false],
    [{ method: 'CONNECT', protocol: 'HTTP/3.0', status: 502 }, false],
    [{ status: 101, protocol: 'HTTP/1.1' }, false],
    [{ status: 499 }, false],
    [{ status: 0 }, false],
    [{ type: 'text/event-stream' }, false],
    [{ type: 'Text/Event-Stream; charset=utf-8' }, false],
    [{ type: 'text/event-streams' }, true],
    [{ status: 502 }, true],
    [{ seconds: 0.004 }, true],
  ] as const) {
    const text = line(of);
    const bytes = Buffer.from(text);
    const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
    const decoded = decoder.decodeLine(bytes, 0, bytes.length, arrivalMs);
    t.deepEqual(decoded, withoutIdentity(decoder.decode(text, arrivalMs)), text);
    t.is(decoded.kind === 'request' && latencyBucketOf(decoded.event) !== undefined, expected, text);
  }
});

test('does not mistake a number beside the request for a time, in any order of keys', (t) => {
  const { request, ...rest } = JSON.parse(real.replace(/"ts":[\d.]+,/, '')) as Record<string, unknown>;
  for (const [key, number] of [
    ['bytes_read', 0],
    ['size', 4_102_444_800],
    ['duration', 1_795_461_210],
    ['status', 200],
  ] as const) {
    const line = JSON.stringify({ ...rest, status: 200, [key]: number, request }); // these numbers precede the request
    const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
    t.deepEqual(decoder.decode(line, undefined), { kind: 'rejected', reason: 'bad-time' }, key);
    t.like(
      decoder.decode(line, arrivalMs),
      { kind: 'request', timeOfArrival: true, event: { timeMs: arrivalMs } },
      key,
    );
  }
});

test('accepts every access logger, regardless of its name', (t) => {
  for (const name of ['http.log.access', 'http.log.access.log0', 'http.log.access.shop.example']) {
    t.is(decodeLine(withKeys({ logger: name })).kind, 'request', name);
  }
});

test('does not count other lines as requests', (t) => {
  const others = [
    withKeys({ logger: 'http.log.error', err_id: 'x', err_trace: 'y' }),
    withKeys({ logger: 'http.log.error.log2', err_id: 'x', err_trace: 'y' }),
    withKeys({
      logger: 'http.handlers.reverse_proxy',
      level: 'debug',
      msg: 'upstream roundtrip',
      upstream: '127.0.0.1:9',
    }),
    withKeys({ logger: 'http.log.accessories' }),
    '{"level":"debug","ts":1795461210.8,"logger":"http.log.access","msg":"rejecting request with long method","method_trunc":"AAAA"}',
    '{"level":"info","ts":1795464338.7931416,"msg":"serving initial configuration"}',
  ];
  for (const line of others) t.is(decodeLine(line).kind, 'runtime', line);
});

const rejections = test.macro({
  exec(t, line: string, reason: string) {
    t.deepEqual(decodeLine(line), { kind: 'rejected', reason } as Decoded);
  },
  title: (title: string | undefined, line: string, reason: string) => `rejects ${title ?? line} as ${reason}`,
});
test(rejections, 'not json', 'not-json');
test('a truncated line', rejections, real.slice(0, -20), 'not-json');
test(rejections, '[]', 'not-caddy');
test(rejections, 'null', 'not-caddy');
test(rejections, '{"hello":"world"}', 'not-caddy');
test('a status that is a word', rejections, withKeys({ status: 'ok' }), 'bad-status');
test('a missing status', rejections, withKeys({ status: undefined }), 'bad-status');

test('accepts a request with a missing or invalid duration', (t) => {
  for (const duration of [undefined, 'long', -0.1, null]) {
    t.like(decodeLine(withKeys({ duration })), { kind: 'request', event: { status: 200, durationMs: null } });
  }
});
test('a status with four digits', rejections, withKeys({ status: 2000 }), 'bad-status');

test('ignores fields of an unexpected type, and accepts the request', (t) => {
  const decoded = decodeLine(
    withKeys({ size: 1.5, bytes_read: -1, request: { host: 7, method: null, uri: [], headers: 'x', tls: [] } }),
  );
  t.like(decoded, {
    kind: 'request',
    event: {
      host: '',
      method: '',
      uri: '',
      size: 0,
      bytesRead: 0,
      userAgent: '',
      tls: '',
      upstreamMs: null,
      error: '',
      errorId: '',
      upstream: '',
      retries: null,
      contentType: '',
      requestId: '',
    },
  });
});

test('accepts a request regardless of its request object', (t) => {
  for (const request of ['hidden', undefined, null, [], 7]) {
    t.like(decodeLine(withKeys({ request })), {
      kind: 'request',
      event: { status: 200, host: '', method: '', clientIp: '' },
    });
  }
});

test('falls back to the arrival time, and reports that, if the time cannot be read', (t) => {
  for (const ts of ['yesterday', '10:20:30.000', '', -1, 9_999_999_999, 1e300, null, true, undefined]) {
    const decoded = decodeLine(withKeys({ ts }));
    t.like(decoded, { kind: 'request', timeOfArrival: true, event: { timeMs: arrivalMs, timeNs: 0 } }, String(ts));
  }
});

test('rejects a time that cannot be read if there is no arrival time', (t) => {
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  t.deepEqual(decoder.decode(withKeys({ ts: 'yesterday' }), undefined), { kind: 'rejected', reason: 'bad-time' });
  t.is(decoder.decode(real, undefined).kind, 'request');
});

test('reads the fields of Caddy 2.0 to 2.4', (t) => {
  const old = (remote: string): string =>
    withKeys({
      common_log: '203.0.113.9 - - [23/Nov/2026:20:04:57 +0000] "GET / HTTP/1.1" 200 5',
      request: { remote_addr: remote, proto: 'HTTP/1.1', method: 'GET', host: 'shop.test', uri: '/', headers: {} },
    });
  t.like(decodeLine(old('203.0.113.9:53462')), { kind: 'request', event: { clientIp: '203.0.113.9' } });
  t.like(decodeLine(old('[2001:db8::1]:53462')), { kind: 'request', event: { clientIp: '2001:db8::1' } });
});

const hidden = test.macro({
  exec(t, repeated: string, parts: object) {
    t.like(decodeLine(`${real.slice(0, -1)},${repeated}}`), { kind: 'request', event: parts });
  },
  title: (_, repeated: string) => `reads Caddy's own value if log_append repeats ${repeated}, unless that is valid`,
});
test(hidden, '"status":"teapot"', { status: 200 });
test(hidden, '"status":"418"', { status: 418 });
test(hidden, '"duration":null', { durationMs: 11.871543 });
test(hidden, '"duration":"2s"', { durationMs: 2000 });
test(hidden, '"size":"many"', { size: 4559 });
test(hidden, '"ts":"never"', { timeMs: 1_795_461_210_823, timeNs: 292_300 });
test(hidden, '"logger":"mine"', { status: 200 });
test(hidden, '"request":"mine"', { status: 200, host: '' });
test(hidden, '"level":null,"msg":7', { status: 200 });

const upstream = test.macro({
  exec(t, fields: string, upstreamMs: number | null) {
    t.like(decodeLine(`${real.slice(0, -1)},${fields}}`), { kind: 'request', event: { upstreamMs } });
  },
  title: (_, fields: string, upstreamMs: number | null) => `reads ${fields} as an upstream latency of ${upstreamMs} ms`,
});
test(upstream, '"upstream_ms":6.5', 6.5);
test(upstream, '"upstream_ms":"6.5"', 6.5);
test(upstream, '"upstream_latency_ms":6', 6);
test(upstream, '"upstream_duration_ms":0', 0);
test(upstream, '"upstream_latency":0.0065', 6.5);
test(upstream, '"upstream_duration":"6.5ms"', 6.5);
test(upstream, '"upstream_ms":null,"upstream_latency":0.25', 250);
test(upstream, '"upstream_ms":""', null);
test(upstream, '"upstream_ms":-1', null);
test(upstream, '"upstream_ms":1e999', null);
test(upstream, '"upstream_ms":{"a":1}', null);

const ids = test.macro({
  exec(t, fields: string, requestId: string) {
    t.like(decodeLine(`${real.slice(0, -1)},${fields}}`), { kind: 'request', event: { requestId } });
  },
  title: (_, fields: string, requestId: string) => `reads ${fields} as the request id ${JSON.stringify(requestId)}`,
});
test(ids, '"request_id":"a","uuid":"b"', 'a');
test(ids, '"req_id":"","uuid":"b"', 'b');
test(ids, '"uuid":7', '');
test(ids, '"resp_headers":{"X-Request-Id":["c"]}', 'c');

test('preserves the last digit of a nanosecond timestamp, regardless of the rest of the line', (t) => {
  for (const last of ['0', '1', '7', '9']) {
    const line = real
      .replace('1795461210.8232923', `179546121082329230${last}`)
      .replace('/s/1?q=ä', '/:1795461210823292399,');
    t.like(decodeLine(line), {
      kind: 'request',
      timeOfArrival: false,
      event: { timeMs: 1_795_461_210_823, timeNs: 292_300 + Number(last) },
    });
  }
});

const hosts = test.macro({
  exec(t, host: string, normal: string) {
    t.is(normaliseHost(host), normal);
  },
  title: (_, host, normal) => `normalises the host ${JSON.stringify(host)} to ${JSON.stringify(normal)}`,
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
  return JSON.stringify({ ...(JSON.parse(real) as object), ...keys });
}

function decodeLine(line: string): Decoded {
  return createDecoder({ timeZone: 'UTC', durationFormat: 'auto' }).decode(line, arrivalMs);
}
