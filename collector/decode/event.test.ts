import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { decodeEvent, type DecodedEvent } from './event.js';
import { readEntry } from './split-encoding.js';

const timeMs = Date.UTC(2026, 10, 29);

function decode(line: string): DecodedEvent {
  const entry = readEntry(line);
  if (typeof entry === 'string') throw new Error(`${entry}: ${line}`);
  return decodeEvent(entry, { timeMs, timeNs: 0 });
}

const request =
  '"request":{"remote_ip":"198.51.100.7","remote_port":"49192","client_ip":"198.51.100.7","proto":"HTTP/1.1","method":"GET","host":"Dead.Example","uri":"/b?token=s3cret","headers":{"Cookie":["a=1"]}}';

test('decodes an error line with its request and reason', (t) => {
  const { event, report } = decode(
    `{"level":"error","ts":1795916776.3,"logger":"http.log.error.log0","msg":"dial tcp 10.0.0.3:8080: connect: connection refused",${request},"duration":0.0005,"status":502,"err_id":"hrgs1kzyk","err_trace":"reverseproxy.statusError (reverseproxy.go:1626)"}`,
  );
  t.deepEqual(event, {
    timeMs,
    timeNs: 0,
    level: 'error',
    logger: 'http.log.error.log0',
    message: 'dial tcp 10.0.0.3:8080: connect: connection refused',
    error: '',
    reason: 'dial tcp 10.0.0.3:8080: connect: connection refused',
    host: 'dead.example',
    method: 'GET',
    uri: '/b?…',
    status: 502,
    errorId: 'hrgs1kzyk',
    upstream: '10.0.0.3:8080',
    fields: '{"duration":0.0005}',
  });
  t.deepEqual(report?.identity, {
    remoteIp: '198.51.100.7',
    remotePort: '49192',
    method: 'GET',
    host: 'Dead.Example',
    uri: '/b?token=s3cret',
    status: 502,
    duration: 0.0005,
  });
  t.like(report, { error: 'dial tcp 10.0.0.3:8080: connect: connection refused', isFinal: true });
});

test('decodes lines of the proxy, its health checker and certificates', (t) => {
  t.like(
    decode(
      `{"level":"warn","ts":1,"logger":"http.handlers.reverse_proxy","msg":"aborting with incomplete response","upstream":"10.0.0.3:80","duration":0.0018,${request},"error":"reading: unexpected EOF"}`,
    ),
    {
      event: { reason: 'reading: unexpected EOF', upstream: '10.0.0.3:80', level: 'warn' },
      report: { identity: { duration: 0 }, isFinal: true },
    },
  );
  t.like(
    decode(
      '{"level":"info","ts":1,"logger":"http.handlers.reverse_proxy.health_checker.active","msg":"HTTP request failed","host":"10.0.0.3:80","error":"Get \\"http://10.0.0.3:80/health?key=s3cret\\": dial tcp 10.0.0.3:80: connect: connection refused"}',
    ),
    {
      event: {
        upstream: '10.0.0.3:80',
        host: '',
        reason: 'Get "http://10.0.0.3:80/health?…": dial tcp 10.0.0.3:80: connect: connection refused',
      },
      report: undefined,
    },
  );
  t.like(
    decode(
      '{"level":"error","ts":1,"logger":"tls.obtain","msg":"will retry","error":"[a.example] no route","identifier":"a.example","attempt":3,"headers":{"Authorization":["x"]},"api_key":"k"}',
    ).event,
    { host: 'a.example', reason: '[a.example] no route', fields: '{"attempt":3}' },
  );
});

test('a debug line of an attempt names the upstream, and is no event', (t) => {
  const { event, report } = decode(
    `{"level":"debug","ts":1,"logger":"http.handlers.reverse_proxy","msg":"upstream roundtrip","upstream":"10.0.0.3:80","duration":0.0002,${request},"error":"dial tcp 10.0.0.3:80: connect: connection refused"}`,
  );
  t.is(event, undefined);
  t.like(report, { identity: { duration: undefined }, isFinal: false, upstream: '10.0.0.3:80' });
});

test('stores no address of a client, no credentials, and no status that no store accepts', (t) => {
  const line = (msg: string, others = ''): string =>
    `{"level":"error","ts":1,"logger":"http.log.error","msg":${JSON.stringify(msg)},${request},"status":502${others}}`;
  const stored = (text: string): string => JSON.stringify(decode(text).event);
  for (const text of [
    line('writing: write tcp 10.0.0.1:443->198.51.100.7:49192: write: broken pipe'),
    line(
      'refused 198.51.100.7',
      ',"remote":"198.51.100.7:49192","remote_ip":"198.51.100.7","error":"from 198.51.100.7"',
    ),
    line('write tcp 10.0.0.1:443->198.51.100.7:49192: EOF')
      .replace('"remote_port":"49192",', '')
      .replace(/"198[^"]*"/g, '""'),
    '{"level":"warn","ts":1,"logger":"http.stdlib","msg":"http: TLS handshake error from 198.51.100.7:4711: EOF"}',
  ])
    t.false(stored(text).includes('198.51.100.7'), text);
  for (const secret of [
    '{"token":"hunter2","password":"hunter2"}',
    "sent 'api_key': 'hunter2'",
    'Get "https://user:p@hunter2@a.example/x": EOF',
    'Get "https://a.example/x?sig=hunter2": EOF',
  ])
    t.false(
      stored(line(secret, `,"session_key":"hunter2","jwt":"hunter2","note":${JSON.stringify(secret)}`)).includes(
        'hunter2',
      ),
      secret,
    );
  for (const status of ['100000', '1e300', '-1', '1.5', '"x"'])
    t.is(decode(line('EOF').replace('"status":502', `"status":${status}`)).event?.status, 0);
});

test('reads a megabyte of a hostile message and target in bounded time', (t) => {
  for (const part of ['a', '-', '/token-', 'a.b:', '@', 'x=', '1', '.']) {
    const text = part.repeat(1_000_000 / part.length);
    for (let times = 0; times < 20; times += 1) {
      const { event } = decode(
        `{"level":"error","ts":1,"logger":"http.log.error","msg":"${text}","error":"${text}","request":{"remote_ip":"1.2.3.4","host":"${text}","uri":"/${text}","method":"${text}"},"status":502}`,
      );
      t.true(JSON.stringify(event).length < 5000);
    }
  }
});

test('reads the level, logger and message of the console encoder', (t) => {
  t.like(
    decode('2026/11/29 01:46:14.512\tERROR\ttls.obtain\twill retry\t{"error": "no route", "identifier": "a.example"}')
      .event,
    { level: 'error', logger: 'tls.obtain', message: 'will retry', host: 'a.example' },
  );
  t.like(decode('2026/11/29 01:46:14.512\tINFO\tserving initial configuration').event, {
    level: 'info',
    logger: '',
    message: 'serving initial configuration',
  });
});

test('reads every line of the samples that is not an access line, and gives every 5xx of Caddy its reason', (t) => {
  for (const name of ['caddy-2.11.4-errors', 'caddy-2.11.4-errors-debug']) {
    const lines = readFileSync(join('test', 'samples', `${name}.ndjson`), 'utf8').split('\n');
    const events = lines.filter((line) => line !== '' && !line.includes('"logger":"http.log.access')).map(decode);
    const errors = events.flatMap(({ event }) => (event?.logger === 'http.log.error' ? [event] : []));
    t.deepEqual(
      [...new Set(errors.map(({ reason }) => reason))].sort(),
      [
        'EOF',
        'dial tcp 127.0.0.1:9: connect: connection refused',
        'error 503 without a message',
        'net/http: timeout awaiting response headers',
        'no upstreams available',
      ],
      name,
    );
    t.true(events.some(({ event }) => event?.message === 'server running'));
    t.false(events.some(({ event }) => event?.logger.startsWith('tls.cache')));
  }
});
