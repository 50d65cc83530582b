import test from 'ava';
import fc from 'fast-check';
import { beginningOf, redact } from './redact.js';

const redacted = test.macro({
  exec(t, line: string, shown: string) {
    t.is(redact(line), shown);
  },
  title: (_, line: string) => `redacts ${line}`,
});
test(
  redacted,
  '{"headers":{"Authorization":["Basic Ym9i"],"Accept":["*/*"]},"status":200}',
  '{"headers":{"Authorization":"…","Accept":["*/*"]},"status":200}',
);
test(redacted, '{"Cookie":["a=1; b=]2","c"],"Set-Cookie":["d=3"],"X":1}', '{"Cookie":"…","Set-Cookie":"…","X":1}');
test(
  redacted,
  '{"X-Api-Key":"abc","access_token":"d\\"ef","my_password":12,"client_ip":"203.0.113.9"}',
  '{"X-Api-Key":"…","access_token":"…","my_password":"…","client_ip":"…"}',
);
test(
  redacted,
  '{"uri":"/a?token=abc&q=\\"x\\"","Referer":["https://a.example/?b"]}',
  '{"uri":"/a?…","Referer":["https://a.example/?…"]}',
);
test(redacted, '{"Authorization":["Basic Ym9', '{"Authorization":"…"');
test(redacted, 'GET /reset?key=abc HTTP/1.1', 'GET /reset?… HTTP/1.1');
test(redacted, 'Cookie: a=1; b=2', 'Cookie: …');
test(redacted, 'curl -H "X: Bearer abc.def"', 'curl -H "X: Bearer …"');
test(redacted, 'id=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc', '…');
test(redacted, 'a\u0000b\u001b[31mc\ud800', 'a\uFFFDb\uFFFD[31mc\uFFFD');
test(
  redacted,
  '{"log":"{\\"request\\":{\\"client\\":\\"203.0.113.9\\",\\"headers\\":{\\"Cookie\\":[\\"a=1\\"]},\\"uri\\":\\"/a?b=c\\"}}\\n","stream":"stderr"}',
  '{"log":"{\\"request\\":{\\"client\\":\\"…\\",\\"headers\\":{\\"Cookie\\":\\"…\\"},\\"uri\\":\\"/a?…\\"}}\\n","stream":"stderr"}',
);
test(
  redacted,
  '203.0.113.9 - bob [08/Apr/2021:01:50:28 +0000] "GET /reset/hunter2?x=1 HTTP/2.0" x 65',
  '… - … [08/Apr/2021:01:50:28 +0000] "GET /reset/…?… HTTP/2.0" x 65',
);
test(redacted, '.log0", "remote_ip": "::579", "host": "a.example"', '.log0", "remote_ip": "…", "host": "a.example"'); // the first quote is missing
test(redacted, 'agent a0-d-zdw-mHVQHCE-rBIj_VNVs', 'agent …');
test(
  redacted,
  'php-1 | 2024/08/02 10:27:48.100 INFO hello bob@example.com 2001:db8::1',
  'php-1 | 2024/08/02 10:27:48.100 INFO hello … …',
);
test(
  redacted,
  '{"@timestamp":"2025-03-26T12:45:36.000Z","log.logger":"http.log.access.log0","status":404,"duration":0.00123}',
  '{"@timestamp":"2025-03-26T12:45:36.000Z","log.logger":"http.log.access.log0","status":404,"duration":0.00123}',
);
test(
  redacted,
  '{"url":{"path":"/x","query":"summerholiday"},"user":{"name":"bobuser"},"source":{"address":"myhost-bob"}}',
  '{"url":{"path":"/x","query":"…"},"user":{"name":"…"},"source":{"address":"…"}}',
);
test(redacted, "{'Cookie': 'summerholiday'}", "{'Cookie: …");
test(
  redacted,
  '{"rawHeaders":["Authorization","summerholiday","Accept","text"]}',
  '{"rawHeaders":["Authorization","…","Accept","text"]}',
);
test(
  redacted,
  '{"Sec-WebSocket-Protocol":["bearer, summerholiday"],"pwd":"summer"}',
  '{"Sec-WebSocket-Protocol":"…","pwd":"…"}',
);
test(redacted, 'curl -u bob:summer with sk_live_abcdefabcdef from alice＠corp.example', 'curl -u … with … from …');

const lower = 'abcdefghijklmnopqrstuvwxyz0123456789';
const mixed = `${lower}ABCDEFGHIJKLMNOPQRSTUVWXYZ-_`;
const of = (alphabet: string, minLength: number, maxLength = minLength): fc.Arbitrary<string> =>
  fc.string({ unit: fc.nat(alphabet.length - 1).map((at) => alphabet[at]!), minLength, maxLength });
/** Secrets that are recognised anywhere. */
const anywhere = fc.oneof(
  fc.ipV4(),
  fc.ipV6().filter((address) => address.length > 4),
  fc.uuid(),
  of('0123456789abcdef', 32),
  of(mixed, 24, 44),
  fc.tuple(of(lower, 3, 12), of(lower, 3, 12)).map(([name, host]) => `${name}.x@${host}.example`),
  fc
    .tuple(of(mixed, 20), of(mixed, 40), of(mixed, 43))
    .map(([head, body, signature]) => `eyJ${head}.eyJ${body}.${signature}`),
);
/** A secret that is only recognised by its position: short, and letters only. */
const placed = of('abcdefghijklmnopqrstuvwxyz', 7, 12).map((word) => `q${word}z`);

/** Fields of a request with a secret at each position. */
function fieldsWith(secret: string, hiddenByPlace: string): Record<string, unknown> {
  return {
    level: 'info',
    ts: 1795464297.5,
    logger: 'http.log.access.log0',
    msg: 'handled request',
    request: {
      remote_ip: secret,
      client: secret,
      method: 'GET',
      host: 'a.example',
      uri: `/reset/${hiddenByPlace}/x?token=${hiddenByPlace}&b=${secret}`,
      other: [`/files/${secret}/a`],
      headers: {
        Cookie: [`a=1; session=${hiddenByPlace}`, hiddenByPlace],
        Authorization: [`Basic ${hiddenByPlace}`],
        'X-Note': [secret, `Bearer ${hiddenByPlace}`],
        'X-Api-Key': [hiddenByPlace],
        Referer: [`https://b.example/?q=${hiddenByPlace}`],
      },
    },
    [secret]: 1,
    text: `sent to ${secret}, for session=${hiddenByPlace}`,
    status: 200,
    resp_headers: { 'Set-Cookie': [`sid=${hiddenByPlace}; Path=/`] },
  };
}

const shapes: readonly ((fields: Record<string, unknown>, secret: string, byPlace: string) => string)[] = [
  (fields) => JSON.stringify(fields),
  (fields) => JSON.stringify(fields, undefined, 1).replaceAll('\n', ''),
  (_, secret, byPlace) =>
    `${secret} - ${byPlace} [23/Nov/2026:20:04:57 +0000] "GET /reset/${byPlace}?a=${byPlace} HTTP/1.1" 200 5 "https://a.example/?${byPlace}" "agent ${secret}"`,
  (_, secret, byPlace) =>
    `level=info msg="for ${secret}" cookie="${byPlace}" uri=/a?b=${byPlace} ip=${secret} user=${byPlace}`,
  (_, secret, byPlace) => `GET /invite/${byPlace}?x=${byPlace} from ${secret} Cookie: a=${byPlace}; b=${byPlace}`,
  (_, secret, byPlace) => `Authorization: Bearer ${byPlace} for ${secret}`,
];
const wraps: readonly ((line: string) => string)[] = [
  (line) => line,
  (line) => `<14>1 2026-11-23T20:04:57+01:00 edge caddy - - [meta id="3"] ${line}`,
  (line) => JSON.stringify({ log: `${line}\n`, stream: 'stderr', time: '2026-11-23T20:04:57.5Z' }),
  (line) => JSON.stringify({ message: JSON.stringify({ log: line }), level: 'info' }),
  (line) => JSON.stringify(line),
];
const encodings: readonly ((secret: string) => string)[] = [
  (secret) => secret,
  (secret) => secret.replace(/[^A-Za-z0-9]/g, (character) => `%${character.charCodeAt(0).toString(16)}`),
  (secret) => secret.replace(/[^A-Za-z0-9]/g, (character) => `%25${character.charCodeAt(0).toString(16)}`),
  (secret) => secret.replace(/./g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`),
];

test('reveals no planted secret, for any line, wrapping, encoding and truncation', (t) => {
  const planted = fc.record({
    secret: anywhere,
    byPlace: placed,
    shape: fc.constantFrom(...shapes),
    wrap: fc.constantFrom(...wraps),
    encode: fc.constantFrom(...encodings),
    unicode: fc.boolean(),
    from: fc.nat(300),
    to: fc.integer({ min: 40, max: 2500 }),
    isCut: fc.boolean(),
  });
  fc.assert(
    fc.property(planted, ({ secret, byPlace, shape, wrap, encode, unicode, from, to, isCut }) => {
      const [written, writtenByPlace] = [encode(secret), encode(byPlace)];
      let line = shape(fieldsWith(written, writtenByPlace), written, writtenByPlace);
      if (unicode) line = line.replace(/[&=@/]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`);
      line = wrap(line);
      const shown = [redact(beginningOf(line)), redact(line), ...(isCut ? [redact(line.slice(0, to))] : [])];
      // Without the beginning, only secrets that are recognised anywhere can be found.
      if (isCut) shown.push(redact(line.slice(from)).replaceAll(byPlace, ''));
      for (const example of shown) {
        for (const text of [example, unescaped(example)]) {
          if (
            text.includes(secret) ||
            text.includes(byPlace) ||
            text.includes(written) ||
            text.includes(writtenByPlace)
          )
            return t.fail(`${secret} or ${byPlace} is in ${example} of ${line}`);
        }
      }
      return true;
    }),
    { numRuns: Number(process.env['REDACT_CASES'] ?? 5000) },
  );
  t.pass();
});

function unescaped(text: string): string {
  return text.replace(/%([\da-f]{2})/gi, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
}

test('keeps only the beginning of a long line', (t) => {
  t.is(beginningOf('x'.repeat(10_000)).length, 501);
  t.is(beginningOf('short'), 'short');
});
