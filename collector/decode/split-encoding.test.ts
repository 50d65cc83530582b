import test from 'ava';
import fc from 'fast-check';
import { readSample } from '../../test/sample.js';
import { createDecoder, type Decoded } from './decode.js';
import { realLines } from './fixtures/real-lines.js';

const arrivalMs = Date.UTC(2026, 10, 24);
const { lines: sample } = readSample();
const timed = [...sample.slice(0, 500), ...realLines()].filter((line) => line.length < 5000 && hasOwnTime(line));
const json = timed.filter((line) => line.startsWith('{'));
const consoleLines = timed.filter((line) => /^\d{4}\/[^{]*\thttp\.log\.access/.test(line));

/** Prefixes of real tools. */
const prefixes = [
  '',
  'caddy-1  | ',
  '\u001b[36mcaddy-1  | \u001b[0m',
  'web.1.x8s7d@node-2    | ',
  '[pod/caddy-7c9f/caddy] ',
  '<14>',
  '<6>',
  '<30>Nov 23 20:04:57 edge caddy[812]: ',
  'Nov 23 20:04:57 edge-1.example.com caddy[812]: ',
  '2026-11-23T20:04:57.626123+01:00 edge caddy[812]: ',
  '<14>1 2026-11-23T20:04:57+01:00 edge.example.com caddy 812 - [meta sequenceId="353"][x@1 a="b \\" c"] ',
  '2026-11-23T20:04:57.626Z stderr F ',
  '2026-11-23T20:04:57Z {container="caddy",stream="stderr"} ',
  '1795464297626000000\t2026-11-23T20:04:57.626Z\t',
  `${'x'.repeat(500)} `,
  '\uFEFF',
];
const endings = ['', ' ', '\r', '\u001b[0m', '\n', ',', '---'];

/** Envelopes of log shippers: one level of JSON around a line. */
const envelopes: readonly ((line: string) => string)[] = [
  (log) => JSON.stringify({ log: `${log}\n`, stream: 'stderr', time: '2026-11-23T20:04:57.6Z' }),
  (message) =>
    JSON.stringify({
      container_name: 'caddy',
      host: 'web1',
      level: 'info',
      message,
      timestamp: '2026-11-23T20:04:57.6Z',
    }),
  (log) => JSON.stringify({ date: 1_795_464_297.626, log, kubernetes: { pod_name: 'caddy-0' } }),
  (MESSAGE) => JSON.stringify({ __REALTIME_TIMESTAMP: '1795464297626000', PRIORITY: '6', _HOSTNAME: 'edge', MESSAGE }),
  (line) => JSON.stringify({ _HOSTNAME: 'edge', MESSAGE: [...Buffer.from(line)] }),
  (line) => JSON.stringify({ labels: { container: 'caddy' }, line, timestamp: '2026-11-23T20:04:57.6Z' }),
  (message) =>
    JSON.stringify({
      '@timestamp': '2026-11-23T20:04:57.6Z',
      '@metadata': { beat: 'filebeat' },
      agent: { name: 'edge' },
      message,
    }),
  (event) => JSON.stringify({ time: 1_795_464_297, sourcetype: '_json', event }),
];
const objectEnvelopes: readonly ((fields: unknown) => string)[] = [
  (event) => JSON.stringify({ time: 1_795_464_297, host: 'edge', event }),
  (jsonPayload) =>
    JSON.stringify({ insertId: 'a', jsonPayload, severity: 'INFO', timestamp: '2026-11-23T20:04:57.6Z' }),
  (log_processed) => JSON.stringify({ log_processed, stream: 'stderr' }),
];

test('reads the same request after any prefix and in any envelope', (t) => {
  const one = fc.constantFrom(...json, ...consoleLines);
  fc.assert(
    fc.property(
      one,
      fc.constantFrom(...prefixes),
      fc.constantFrom(...endings),
      fc.option(fc.constantFrom(...envelopes)),
      fc.constantFrom('', '<14>1 2026-11-23T20:04:57Z h a - - - '),
      (line, prefix, ending, wrap, before) => {
        const inner = `${prefix}${line}${ending}`;
        const wrapped = wrap === null ? inner : `${before}${wrap(inner)}`;
        return same(decode(wrapped), decode(line)) || t.fail(wrapped);
      },
    ),
    { numRuns: 2000 },
  );
  for (const line of json.slice(0, 50))
    for (const wrap of objectEnvelopes)
      t.true(same(decode(wrap(JSON.parse(line))), decode(line)), wrap(JSON.parse(line)));
  for (const line of json.slice(0, 50)) t.true(same(decode(JSON.stringify(line)), decode(line)), line);
  t.true(consoleLines.length > 0);
});

test('reads console columns separated by spaces', (t) => {
  for (const line of consoleLines) {
    for (const prefix of prefixes)
      t.true(same(decode(prefix + line.replaceAll('\t', '  ')), decode(line)), prefix + line);
  }
});

test('reads keys in any order, and the time under any common name', (t) => {
  const name = fc.constantFrom('ts', 'timestamp', 'time', '@timestamp', 'date', 'datetime');
  fc.assert(
    fc.property(
      fc.constantFrom(...json.filter((line) => /"ts":\d{10}\.\d/.test(line)).slice(0, 300)),
      name,
      fc.infiniteStream(fc.nat()),
      (line, time, order) => {
        const fields = Object.entries(JSON.parse(line) as object).map(
          ([key, value]) => [key === 'ts' ? time : key, value as unknown] as const,
        );
        const shuffled = fields
          .map((field) => ({ field, at: order.next().value as number }))
          .sort((a, b) => a.at - b.at)
          .map(({ field }) => field);
        return (
          same(decode(JSON.stringify(Object.fromEntries(shuffled))), decode(line)) ||
          t.fail(JSON.stringify(Object.fromEntries(shuffled)))
        );
      },
    ),
  );
  t.pass();
});

test('does not mistake another number for the time', (t) => {
  for (const bytes of [0, 1_700_000_000, 1_700_000_000_000]) {
    const fields = { ...(JSON.parse(json[0]!) as Record<string, unknown>), ts: undefined };
    t.deepEqual(
      decodeOfFile(JSON.stringify({ bytes_read: bytes, duration: 1_700_000_000.5, size: bytes, ...fields })),
      { kind: 'rejected', reason: 'bad-time' },
    );
  }
});

test('does not read client-controlled values as lines', (t) => {
  const forged = json[0]!;
  const quoted = JSON.stringify(forged);
  for (const line of [
    `203.0.113.9 - - [23/Nov/2026:20:04:57 +0000] "GET /${forged} HTTP/1.1" 200 5 "-" "${forged}"`,
    `203.0.113.9 - - [23/Nov/2026:20:04:57 +0000] "GET / HTTP/1.1" 404 5 "-" "x" 1.2.3.4 - - [23/Nov/2026:20:04:57 +0000] "GET /forged HTTP/1.1" 200 5 "-" "y"`,
    `GET / "${forged}"`,
    `203.0.113.9 GET / agent=${quoted}`,
    `{"level":"debug","ts":1795464297.6,"logger":"tls.handshake","msg":"choosing certificate","identifier":${quoted}}`,
    `{"level":"error","ts":1795464297.6,"logger":"http.log.error","message":${quoted},"msg":${quoted},"request":{"host":"a","uri":"/"},"duration":1,"status":502,"err_id":"a"}`,
    `{"level":"info","ts":1795464297.6,"logger":"tls","msg":${quoted}}`,
  ]) {
    const decoded = decode(line);
    t.false(
      decoded.kind === 'request' &&
        (decoded.event.uri === (JSON.parse(forged) as { request: { uri: string } }).request.uri ||
          decoded.event.uri === '/forged'),
      line,
    );
  }
});

test('reads Common and Combined Log Format, also after a prefix and in an envelope', (t) => {
  const combined =
    '203.0.113.9 - bob [23/Nov/2026:21:04:57 +0100] "GET /a?x=1 HTTP/2.0" 499 65 "https://www.example.com/" "Mozilla/5.0 (X11; \\"x\\") y"';
  const parts = {
    timeMs: Date.UTC(2026, 10, 23, 20, 4, 57),
    host: '',
    method: 'GET',
    uri: '/a?x=1',
    protocol: 'HTTP/2.0',
    status: 499,
    size: 65,
    durationMs: null,
    clientIp: '203.0.113.9',
    referrer: 'https://www.example.com/',
    userAgent: 'Mozilla/5.0 (X11; "x") y',
  };
  for (const prefix of prefixes)
    t.like(decode(prefix + combined), { kind: 'request', timeOfArrival: false, event: parts }, prefix);
  for (const wrap of envelopes) t.like(decode(wrap(combined)), { kind: 'request', event: parts });
  t.like(decode('2001:db8::9 - - [23/Nov/2026:20:04:57 +0000] "POST /login HTTP/1.1" 302 -'), {
    kind: 'request',
    event: { clientIp: '2001:db8::9', method: 'POST', status: 302, size: 0, userAgent: '', referrer: '' },
  });
  t.like(decode('- -  [23/Nov/2026:20:04:57 +0000] "-" 400 0'), {
    kind: 'request',
    event: { clientIp: '', method: '', uri: '', status: 400 },
  });
  for (const cut of [combined.slice(0, -1), combined.replace('499', 'x'), combined.replace('Nov', 'Foo')])
    t.not(decodeOfFile(cut).kind, 'request', cut);
});

test('rejects a request of an unsupported encoder as unknown-encoder, never as another log line', (t) => {
  for (const line of [
    '{"log.level":"info","@timestamp":"2026-11-23T20:04:57.000Z","log.logger":"http.log.access","message":"handled request","ecs.version":"1.6.0","http":{"response":{"status_code":200}}}',
    '{"log":{"level":"info","logger":"http.log.access"},"ecs":{"version":"8.0"},"@timestamp":"2026-11-23T20:04:57.000Z","message":"handled request"}',
    '{"version":"1.1","host":"edge","short_message":"handled request","timestamp":1795464297.6,"level":6,"_logger":"http.log.access"}',
    '{"severity":"info","when":"2026-11-23T20:04:57.000Z","text":"handled request","req":{"host":"a"},"code":200}',
    'level=info ts=1795464297.6 logger=http.log.access.log0 msg="handled request" status=200',
  ])
    t.deepEqual(decode(line), { kind: 'rejected', reason: 'unknown-encoder' }, line);
});

/** Whether it is a request with a readable time. */
function hasOwnTime(line: string): boolean {
  const decoded = decode(line);
  return decoded.kind === 'request' && !decoded.timeOfArrival;
}

function same(one: Decoded, other: Decoded): boolean {
  return JSON.stringify(one) === JSON.stringify(other);
}

function decode(line: string): Decoded {
  return createDecoder({ timeZone: 'UTC', durationFormat: 'auto' }).decode(line, arrivalMs);
}

function decodeOfFile(line: string): Decoded {
  return createDecoder({ timeZone: 'UTC', durationFormat: 'auto' }).decode(line, undefined);
}
