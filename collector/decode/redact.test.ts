import test from 'ava';
import { beginningOf, redact } from './redact.js';

const redacted = test.macro({
  exec(t, line: string, shown: string) { t.is(redact(line), shown); },
  title: (_, line: string) => `nothing secret is left of ${line}`,
});
test(redacted, '{"headers":{"Authorization":["Basic Ym9i"],"Accept":["*/*"]},"status":200}', '{"headers":{"Authorization":"…","Accept":["*/*"]},"status":200}');
test(redacted, '{"Cookie":["a=1; b=]2","c"],"Set-Cookie":["d=3"],"X":1}', '{"Cookie":"…","Set-Cookie":"…","X":1}');
test(redacted, '{"X-Api-Key":"abc","access_token":"d\\"ef","my_password":12,"client_ip":"203.0.113.9"}', '{"X-Api-Key":"…","access_token":"…","my_password":"…","client_ip":"…"}');
test(redacted, '{"uri":"/a?token=abc&q=\\"x\\"","Referer":["https://a.example/?b"]}', '{"uri":"/a?…","Referer":["https://a.example/?…"]}');
test(redacted, '{"Authorization":["Basic Ym9', '{"Authorization":"…"');
test(redacted, 'GET /reset?key=abc HTTP/1.1', 'GET /reset?… HTTP/1.1');
test(redacted, 'Cookie: a=1; b=2', 'Cookie: …');
test(redacted, 'curl -H "X: Bearer abc.def"', 'curl -H "X: Bearer …"');
test(redacted, 'id=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc', '…');
test(redacted, 'a\u0000b\u001b[31mc\ud800', 'a\uFFFDb\uFFFD[31mc\uFFFD');

test('only the beginning of a long line is kept', (t) => {
  t.is(beginningOf('x'.repeat(10_000)).length, 501);
  t.is(beginningOf('short'), 'short');
});
