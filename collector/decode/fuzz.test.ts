import test from 'ava';
import fc from 'fast-check';
import { createDecoder } from './decode.js';
import { realLines } from './fixtures/real-lines.js';
import { beginningOf, redact } from './redact.js';

const arrivalMs = Date.UTC(2026, 10, 24);

test('never throws, and decodes the next valid line', (t) => {
  const lines = realLines();
  const good = lines.find((line) => line.startsWith('{"level":"info"') && line.includes('"logger":"http.log.access.'))!;
  const goodBytes = Buffer.from(good);
  const decoder = createDecoder({ timeZone: 'Europe/Berlin', durationFormat: 'auto' });
  let inputs = 0;
  const take = (line: string): void => {
    inputs += 1;
    const lineBytes = Buffer.from(line);
    const decoded = decoder.decodeLine(lineBytes, 0, lineBytes.length, inputs % 2 === 0 ? arrivalMs : undefined);
    if (decoded.kind === 'rejected') redact(beginningOf(line));
    if (decoded.kind === 'request') {
      const { timeMs, timeNs, status, durationMs, size, bytesRead, upstreamMs } = decoded.event;
      const numbers = [timeMs, timeNs, status, durationMs ?? 0, size, bytesRead, upstreamMs ?? 0];
      if (!numbers.every((value) => value >= 0 && value <= Number.MAX_SAFE_INTEGER * 1000))
        t.fail(`${JSON.stringify(decoded)} of ${line}`);
    }
    if (decoder.decodeLine(goodBytes, 0, goodBytes.length, undefined).kind !== 'request')
      t.fail(`The good line was not counted after ${line}`);
  };

  for (const line of extremes(good)) take(line);

  const anyReal = fc.constantFrom(...lines);
  const noise = fc.oneof(fc.string({ unit: 'binary', maxLength: 6 }), fc.constantFrom(...pieces));
  const mutated = fc
    .tuple(
      anyReal,
      fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(12), noise), { minLength: 1, maxLength: 3 }),
    )
    .map(([line, changes]) =>
      changes.reduce((text, [place, cut, piece]) => {
        const at = Math.floor(place * text.length);
        return text.slice(0, at) + piece + text.slice(at + cut);
      }, line),
    );
  const bytes = fc.uint8Array({ maxLength: 200 }).map((array) => Buffer.from(array).toString('utf8'));
  const glued = fc.tuple(anyReal, anyReal, fc.nat(600)).map(([first, second, at]) => first.slice(0, at) + second);
  const replaced = fc
    .tuple(
      anyReal,
      fc.constantFrom(
        'ts',
        'duration',
        'status',
        'request',
        'logger',
        'size',
        'level',
        'msg',
        'upstream_ms',
        'upstream_latency',
        'uuid',
      ),
      fc.jsonValue(),
    )
    .map(([line, key, value]) =>
      line.endsWith('}') ? `${line.slice(0, -1)},${JSON.stringify(key)}:${JSON.stringify(value)}}` : line,
    );
  const mixed = fc.oneof(
    { weight: 10, arbitrary: mutated },
    { weight: 3, arbitrary: bytes },
    { weight: 2, arbitrary: glued },
    { weight: 3, arbitrary: replaced },
    { weight: 1, arbitrary: fc.json() },
  );
  fc.assert(fc.property(mixed, take), { numRuns: 100_000 - inputs });

  t.is(inputs, 100_000);
  t.log(`${inputs} inputs`);
});

const pieces = [
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '\t',
  '\t{',
  '\u0000',
  '\ud800',
  '\udfff\ud800',
  '\u001b[31m',
  '<6>',
  '1e999',
  '-0',
  '1e-400',
  '9'.repeat(400),
  '"ts":',
  '"status":',
  '"duration":"1.1.1s"',
  '"__proto__":{"status":200}',
  '"constructor":',
  'null',
  'NaN',
  '-1',
  '\\u0000',
  '\\ud800',
  '?',
  '1.7e+09',
];

/** Inputs that are too large for 100,000 runs. */
function extremes(good: string): string[] {
  const long = 10 * 1024 * 1024;
  const withUri = (uri: string): string => good.replace(/"uri":"[^"]*"/, () => `"uri":"${uri}"`);
  return [
    '',
    ' ',
    '\u0000',
    '\ud800',
    '{}',
    'null',
    '{',
    '"',
    'x'.repeat(long),
    '\t'.repeat(long),
    '{'.repeat(long),
    '\t{'.repeat(long / 2),
    ':1234567890123456'.repeat(long / 17),
    '['.repeat(long),
    `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
    `{"request":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)},"status":200,"size":1}`,
    '"ts":'.repeat(long / 5),
    '"duration":1,"size":1,'.repeat(long / 22),
    `${good.slice(0, -1)},"ts":${'9'.repeat(100_000)}}`,
    `${good.slice(0, -1)},"ts":1e999,"duration":1e999,"size":1e999}`,
    withUri('/'.repeat(long)),
    withUri('\\u0000'.repeat(100_000)),
    withUri('\\ud800'.repeat(100_000)),
    withUri('?'.repeat(long)),
    good + ' '.repeat(long),
    ' '.repeat(long) + good,
    good + '}'.repeat(long),
    good.replace(/"host":"[^"]*"/, () => `"host":"${'['.repeat(long)}"`),
    good.replace(/"host":"[^"]*"/, () => `"host":"${'.'.repeat(long)}"`),
    good.replace(/"ts":[\d.]+/, () => `"ts":"${'1'.repeat(long)}"`),
    good.replace(/"duration":[\d.]+/, () => `"duration":"${'1h'.repeat(long / 2)}"`),
    `{${Array.from({ length: 200_000 }, (_, at) => `"k${at}":${at}`).join(',')}}`,
    good.slice(0, long),
    `<6>${good}`,
    `<6>${'<6>'.repeat(1000)}${good}`,
  ];
}
