import test from 'ava';
import fc from 'fast-check';
import { readSample } from '../../test/sample.js';
import { createDecoder } from './decode.js';
import { realLines } from './fixtures/real-lines.js';
import { createFastPathReader, type FastPathLine } from './fast-path.js';
import { withoutIdentity } from './fixtures/without-identity.js';

const arrivalMs = Date.UTC(2026, 10, 24);
const { lines: sample } = readSample();

test('accepts default lines, and reads them like the general decoder', (t) => {
  const read = readerOfTexts();
  const others = sample.filter((line) => read(line) === undefined);
  t.true(
    others.every((line) => /"ts":(?:\d+|\d+\.\d{7,}),/.test(line)),
    'only times that can be printed in several ways',
  );
  t.true(others.length < sample.length / 100, `${others.length}`);
  const same = compare();
  for (const line of [...sample, ...realLines()]) if (!same(Buffer.from(line))) t.fail(line);
  t.pass();
});

test('reads or rejects mutated lines like the general decoder', (t) => {
  const line = fc.constantFrom(...sample.slice(0, 2000), ...realLines().filter((each) => each.length < 5000));
  const inserted = fc
    .tuple(
      line,
      fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(4), fc.constantFrom(...pieces)), {
        minLength: 1,
        maxLength: 2,
      }),
    )
    .map(([text, changes]) =>
      changes.reduce((each, [place, cut, piece]) => {
        const at = Math.floor(place * each.length);
        return each.slice(0, at) + piece + each.slice(at + cut);
      }, text),
    );
  const replaced = fc
    .tuple(line, fc.constantFrom(...values))
    .map(([text, [pattern, pieces_]]) => pieces_.map((piece) => text.replace(pattern, () => piece)))
    .chain((texts) => fc.constantFrom(...texts));
  const appended = fc
    .tuple(
      line,
      fc.constantFrom('ts', 'status', 'duration', 'upstream_ms', 'uuid', 'request_id', 'traceID', 'a_b', '__proto__'),
      fc.constantFrom('null', '"x"', '"\\u0041"', '1.5', '-0', '01', '[]', '{}', 'true', '""'),
    )
    .map(([text, key, value]) => text.replace(/\}$/, () => `,"${key}":${value}}`));
  const times = fc
    .tuple(line, fc.integer({ min: 1.6e9, max: 2.2e9 }), fc.nat(99_999_999), fc.integer({ min: 1, max: 8 }))
    .map(([text, seconds, fraction, decimals]) =>
      text.replace(/"ts":[\d.]+/, () => `"ts":${seconds}.${String(fraction).padStart(8, '0').slice(-decimals)}`),
    );
  const doubles = fc
    .tuple(line, fc.double({ min: 1.1e9, max: 2.09e9, noNaN: true }))
    .map(([text, seconds]) => text.replace(/"ts":[\d.]+/, () => `"ts":${seconds}`));
  const durations = fc
    .tuple(line, fc.oneof(fc.double({ min: 0, max: 1e4, noNaN: true }), fc.nat(1e9)))
    .map(([text, value]) => text.replace(/"duration":[\d.]+/, () => `"duration":${value}`));
  const headers = fc
    .tuple(
      line,
      fc.constantFrom('User-Agent', 'Referer', 'X-Request-Id'),
      fc.array(fc.string({ unit: fc.constantFrom('"', '\\', 'a', ':', '[', ']', ',', 'é'), maxLength: 8 }), {
        maxLength: 3,
      }),
    )
    .map(([text, name, list]) =>
      text.replace(/"headers":\{/g, (found) => `${found}${JSON.stringify(name)}:${JSON.stringify(list)},`),
    );
  const bytes = fc
    .tuple(
      line,
      fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(255)), { minLength: 1, maxLength: 2 }),
    )
    .map(([text, changes]) => {
      const changed = Buffer.from(text);
      for (const [place, byte] of changes) changed[Math.floor(place * changed.length)] = byte === 0x0a ? 0x0d : byte;
      return changed;
    });
  const same = compare();
  let fast = 0;
  const read = createFastPathReader();
  fc.assert(
    fc.property(
      fc.oneof(
        bytes,
        fc.oneof(inserted, replaced, appended, times, doubles, durations, headers).map((text) => Buffer.from(text)),
      ),
      (mutated) => {
        if (read(mutated, 0, mutated.length) !== undefined) fast += 1;
        return same(mutated);
      },
    ),
    { numRuns: 50_000 },
  );
  t.true(fast > 5000, 'enough lines take the fast path for a meaningful test');
});

test('takes linear time for an unterminated string', (t) => {
  const read = readerOfTexts();
  const beginning = sample[0]!.slice(0, sample[0]!.indexOf('"headers":') + 10);
  for (const piece of ['"a":["b"],', '\\"', 'a', '"', '{', '"a":["', ',"a":null'])
    t.is(read(beginning + `{"x":["${piece.repeat(16_000)}`.slice(0, 16_384 - beginning.length)), undefined);
});

/** Reads each line with both decoders, between other lines as on a connection. Both learn from the same lines. */
function compare(): (line: Buffer) => boolean {
  const options = { timeZone: 'UTC', durationFormat: 'auto' } as const;
  const fast = createDecoder(options);
  const general = createDecoder(options);
  const [before, after] = [sample[0]!, sample[1]!].map((line) => Buffer.from(`${line}\n`)) as [Buffer, Buffer];
  return (line) => {
    const decoded = fast.decodeLine(
      Buffer.concat([before, line, Buffer.from('\n'), after]),
      before.length,
      before.length + line.length,
      arrivalMs,
    );
    return (
      JSON.stringify(withoutIdentity(decoded)) ===
      JSON.stringify(withoutIdentity(general.decode(line.toString(), arrivalMs)))
    );
  };
}

function readerOfTexts(): (line: string) => FastPathLine | undefined {
  const read = createFastPathReader();
  return (line) => read(Buffer.from(line), 0, Buffer.byteLength(line));
}

const pieces = [
  '',
  '"',
  '\\',
  '\\"',
  '\\\\',
  '\\u0041',
  '\\x',
  '\u0001',
  '\t',
  ',',
  '{',
  '}',
  '[',
  ']',
  ':',
  '0',
  '1',
  '.',
  'e5',
  '-',
  ' ',
  'é',
  '\ud800',
  'null',
  ',,',
  '""',
  '"a":["b"],',
  '"User-Agent":["x"],',
  '\\"User-Agent\\":[\\"',
];

const values = [
  [
    /"ts":[\d.]+/,
    [
      '"ts":1795461349',
      '"ts":1795461349.10',
      '"ts":1795461349.0951175',
      '"ts":1795461349.09511756',
      '"ts":1073741823.1234567',
      '"ts":2147483648.1234567',
      '"ts":1795461349.',
      '"ts":01795461349.5',
      '"ts":"1795461349.5"',
    ],
  ],
  [
    /"duration":[\d.]+/,
    [
      '"duration":0',
      '"duration":00',
      '"duration":1e-05',
      '"duration":5',
      '"duration":0.1000000000000000055511151231257827',
      '"duration":123456789012345.5',
      '"duration":-1',
      '"duration":"1s"',
      '"duration":.5',
      '"duration":5.',
    ],
  ],
  [/"status":\d+/, ['"status":0', '"status":007', '"status":1000', '"status":99', '"status":"200"', '"status":200.0']],
  [/"size":\d+/, ['"size":0', '"size":9007199254740993', '"size":999999999999999', '"size":1.5', '"size":-1']],
  [
    /"host":"[^"]*"/,
    ['"host":"Example.COM.:443"', '"host":""', '"host":"[::1]:80"', '"host":"a\\"b"', '"host":"é"', '"host":7'],
  ],
  [
    /"logger":"[^"]*"/,
    [
      '"logger":"http.log.access"',
      '"logger":"http.log.accessories"',
      '"logger":"http.log.access."',
      '"logger":"http.log.error"',
      '"logger":""',
    ],
  ],
  [/"level":"info"/, ['"level":"error"', '"level":"INFO"', '"level":"debug"']],
  [
    /"headers":\{/,
    [
      '"headers":{"User-Agent":[],',
      '"headers":{"User-Agent":["a","b"],',
      '"headers":{"x\\"User-Agent":["a"],',
      '"headers":{"A":["\\"User-Agent\\":[\\"b"],',
      '"headers":{"User-Agent":"text",',
      '"headers":{,',
      '"headers":{"A":["b",],',
    ],
  ],
  [/"client_ip":"[^"]*",/, ['', '"client_ip":"",', '"client_ip":null,']],
] as const satisfies readonly (readonly [RegExp, readonly string[]])[];
