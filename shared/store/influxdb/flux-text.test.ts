import test from 'ava';
import { flux, InfluxDB } from '@influxdata/influxdb-client';
import fc from 'fast-check';
import { influxdOfThisFile, testWithInfluxd } from '../../../test/influxd.js';
import { fluxAnyOf, fluxText, fluxWholeOrStart } from './flux-text.js';

const special = fc.constantFrom(
  '$',
  '{',
  '}',
  '"',
  '\\',
  '\n',
  '\r',
  '\0',
  '`',
  'x',
  '4',
  '1',
  '/',
  '?',
  '*',
  '[',
  ']',
  '(',
  ')',
  '|',
  '^',
  '.',
  '+',
  '-',
);
const text = fc
  .string({ unit: fc.oneof(special, fc.string({ unit: 'binary', minLength: 1, maxLength: 1 })), maxLength: 50 })
  .map((value) => value.toWellFormed());

const influxd = influxdOfThisFile();

test('leaves plain text unchanged and escapes everything else as bytes', (t) => {
  t.is(flux`${fluxText('shop.example:8080/a_b-c d')}`.toString(), '"shop.example:8080/a_b-c d"');
  t.is(flux`${fluxText('$"\\\n€')}`.toString(), String.raw`"\x24\x22\x5c\x0a\xe2\x82\xac"`);
  t.is(flux`${fluxText('')}`.toString(), '""');
});

testWithInfluxd('escapes every text so that Flux reads it unchanged', async (t) => {
  const { url, org, token } = await influxd();
  const query = new InfluxDB({ url, token }).getQueryApi(org);
  await fc.assert(
    fc.asyncProperty(fc.array(text, { minLength: 1, maxLength: 40 }), async (texts) => {
      const lengths = texts.map((value) => flux`{json: string(v: json.encode(v: ${fluxText(value)}))}`);
      const rows = await query.collectRows<{ json: string }>(flux`import "array"
import "json"
array.from(rows: ${lengths})`);
      t.deepEqual(
        rows.map(({ json }) => JSON.parse(json) as string),
        texts,
      );
    }),
    { numRuns: 15, examples: [[['$"', '$\\', '$\\"', '$${', '${', '$', '$") |> drop() //']]] },
  );
});

testWithInfluxd('matches exactly the texts that are equal or have the prefix', async (t) => {
  const { url, org, token } = await influxd();
  const query = new InfluxDB({ url, token }).getQueryApi(org);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(text, text, text), { minLength: 1, maxLength: 20 }), async (samples) => {
      const cases = samples.flatMap(([whole, start, other]) =>
        [whole, start, other, `${whole}x`, `${start}x`, `x${whole}`, ''].map((tried) => ({ whole, start, tried })),
      );
      const values = cases.map(
        ({ whole, start, tried }) => flux`{found: ${fluxText(tried)} =~ ${fluxWholeOrStart(whole, start)}}`,
      );
      const rows = await query.collectRows<{ found: boolean }>(flux`import "array"
array.from(rows: ${values})`);
      t.deepEqual(
        rows.map(({ found }) => found),
        cases.map(({ whole, start, tried }) => tried === whole || tried.startsWith(start)),
      );
    }),
    {
      numRuns: 10,
      examples: [
        [
          [
            ['/', '/?', '/?a'],
            ['.*', '\\E', '$'],
            ['\n', 'a\nb', 'a'],
            ['€', '🙂?', '[^a]'],
            ['', '?', '-'],
          ],
        ],
      ],
    },
  );
});

testWithInfluxd('matches exactly the given texts', async (t) => {
  const { url, org, token } = await influxd();
  const query = new InfluxDB({ url, token }).getQueryApi(org);
  await fc.assert(
    fc.asyncProperty(
      fc.array(text, { minLength: 1, maxLength: 20 }),
      fc.array(text, { maxLength: 20 }),
      async (texts, others) => {
        const tried = [...texts, ...others, ...texts.flatMap((each) => [`${each}x`, `x${each}`, `${each}\n`])];
        const rows = await query.collectRows<{ found: boolean }>(flux`import "array"
array.from(rows: ${tried.map((each) => flux`{found: ${fluxText(each)} =~ ${fluxAnyOf(texts)}}`)})`);
        t.deepEqual(
          rows.map(({ found }) => found),
          tried.map((each) => texts.includes(each)),
        );
      },
    ),
    {
      numRuns: 10,
      examples: [
        [
          ['a|b', '(', '.*', '$', '\\E', '€', '🙂'],
          ['a', 'b', 'c'],
        ],
      ],
    },
  );
});
