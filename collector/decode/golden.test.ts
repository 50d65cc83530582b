import { readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import { createDecoder, type Decoded } from './decode.js';
import type { Facts } from './fixtures/make.js';
import { scenarios } from './fixtures/scenarios.js';
import { normaliseHost } from './host.js';
import { withoutIdentity } from './fixtures/without-identity.js';

const folder = new URL('../../../collector/decode/fixtures/', import.meta.url);
const names = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name);

const golden = test.macro({
  exec(t, name: string) {
    const { lines, facts, expected } = readFixture(name);
    const decoder = createDecoder({ timeZone: facts.timeZone, durationFormat: 'auto' });
    const decoded = lines.map((line) => asJson(withoutIdentity(decoder.decode(line, facts.toMs))));
    for (const [at, line] of lines.entries()) t.deepEqual(decoded[at], expected[at], line);
    t.deepEqual([{ durationFormats: decoder.durationFormats() }], expected.slice(lines.length));
  },
  title: (_, name: string) => `decodes fixtures/${name} to its expected.json`,
});

/** Compares the requests that the client made with the decoded lines. */
const facts = test.macro({
  exec(t, name: string) {
    const {
      lines,
      facts: { requests, copies, altered, timesOfArrival, timeZone, fromMs, toMs },
    } = readFixture(name);
    const decoder = createDecoder({ timeZone, durationFormat: 'auto' });
    const found = lines.map((line) => decoder.decode(line, toMs)).filter((decoded) => decoded.kind === 'request');
    const known = (key: 'method' | 'host' | 'uri', value: string): string => (altered.includes(key) ? '' : value);
    const asked = requests.flatMap((request) => Array.from({ length: copies }, () => request));
    t.deepEqual(
      found
        .map(({ event }) =>
          [event.status, known('method', event.method), known('host', event.host), known('uri', event.uri)].join(' '),
        )
        .sort(),
      asked
        .map(({ status, method, host, uri }) =>
          [status, known('method', method), known('host', normaliseHost(host)), known('uri', uri)].join(' '),
        )
        .sort(),
    );
    t.is(found.filter(({ timeOfArrival }) => timeOfArrival).length, timesOfArrival);
    for (const { event } of found) {
      // Some formats have no fraction.
      t.true(
        event.timeMs >= fromMs - 999 && event.timeMs <= toMs,
        `ended at ${event.timeMs}, between ${fromMs} and ${toMs}`,
      );
      t.true(event.timeNs >= 0 && event.timeNs <= 999_999);
      const slowMs = requests.find(({ uri }) => uri === event.uri)?.slowMs ?? 0;
      const { durationMs, upstreamMs } = event;
      t.is(durationMs === null, name === 'filter-without-status-or-duration');
      if (durationMs === null) continue;
      t.true(durationMs >= slowMs - 1 && durationMs <= toMs - fromMs, `took ${durationMs} ms, at least ${slowMs}`);
      if (slowMs === 0 && event.status === 200) t.true(durationMs < 20, `took ${durationMs} ms`);
      if (upstreamMs !== null) t.true(upstreamMs <= durationMs + 1 && upstreamMs >= slowMs - 1);
    }
  },
  title: (_, name: string) => `decodes the requests that were made for fixtures/${name}, at their times`,
});

for (const name of names) {
  test(golden, name);
  test(facts, name);
}

test('has a folder for each scenario, and a scenario for each folder', (t) => {
  t.deepEqual(names.toSorted(), Object.keys(scenarios).toSorted());
});

test('does not count lines of errors, proxies or the start as requests', (t) => {
  const { lines } = readFixture('runtime');
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  for (const sign of [
    '"logger":"http.log.error',
    '"msg":"upstream roundtrip"',
    '"msg":"rejecting request with long method"',
    '"logger":"admin"',
  ]) {
    const others = lines.filter((line) => line.includes(sign));
    t.true(others.length > 0, sign);
    for (const line of others) t.is(decoder.decode(line, 0).kind, 'runtime', line);
  }
});

test('decodes interleaved lines of all fixtures to the same requests', (t) => {
  const fixtures = names.map(readFixture).filter((fixture) => fixture.facts.timeZone === 'UTC');
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  const longest = Math.max(...fixtures.map(({ lines }) => lines.length));
  for (let at = 0; at < longest; at += 1) {
    for (const {
      lines,
      expected,
      facts: { toMs },
    } of fixtures) {
      if (at >= lines.length) continue;
      const decoded = decoder.decode(lines[at]!, toMs);
      t.is(decoded.kind, (expected[at] as Decoded).kind);
      if (decoded.kind === 'request') t.is(decoded.event.timeNs, (expected[at] as typeof decoded).event.timeNs);
    }
  }
});

function readFixture(name: string): { lines: string[]; facts: Facts; expected: unknown[] } {
  const read = (file: string): string => readFileSync(new URL(`${name}/${file}`, folder), 'utf8');
  return {
    lines: read('input.ndjson')
      .split('\n')
      .map((line) => line.replace(/\r$/, ''))
      .filter((line) => line !== ''),
    facts: JSON.parse(read('requests.json')) as Facts,
    expected: JSON.parse(read('expected.json')) as unknown[],
  };
}

/** As in a file of JSON: without what is `undefined`. */
function asJson(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value)) as unknown;
}
