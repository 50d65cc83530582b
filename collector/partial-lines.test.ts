import test from 'ava';
import { createDecoder } from './decode/decode.js';
import { PartialLines } from './partial-lines.js';

const long = JSON.stringify({
  level: 'info',
  ts: 1795464297.5,
  logger: 'http.log.access.log0',
  msg: 'handled request',
  request: { remote_ip: '203.0.113.9', method: 'GET', host: 'a.example', uri: `/{"${'x'.repeat(200)}"}`, headers: {} },
  duration: 0.1,
  size: 5,
  status: 200,
  resp_headers: {},
});
const docker = (log: string, stream = 'stderr'): string =>
  JSON.stringify({ log, stream, time: '2026-11-23T20:04:57.6Z' });
const cri = (text: string, tag: 'P' | 'F'): string => `2026-11-23T20:04:57.626123456Z stderr ${tag} ${text}`;

/** Returns the results of lines, read as the collector reads them. */
function read(lines: readonly string[], partial = new PartialLines(10_000)): string[] {
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  return lines.flatMap((line) => {
    const decoded = decoder.decode(line, undefined);
    if (decoded.kind !== 'rejected') return [decoded.kind];
    const part = partial.add(line, 0);
    if (part.kind === 'incomplete') return [];
    return [part.kind === 'complete' ? decoder.decode(part.line, undefined).kind : part.kind];
  });
}

test('assembles the parts of a line, at any split point and in any envelope', (t) => {
  for (let size = 40; size < long.length; size += 7) {
    const parts = long.match(new RegExp(`.{1,${size}}`, 'g'))!;
    t.deepEqual(
      read([...parts.slice(0, -1).map((part) => docker(part)), docker(`${parts.at(-1)!}\n`)]),
      ['request'],
      `docker, ${size}`,
    );
    t.deepEqual(read(parts.map((part) => docker(part))), ['request'], `without line breaks, ${size}`);
    t.deepEqual(
      read(parts.map((part, at) => cri(part, at === parts.length - 1 ? 'F' : 'P'))),
      ['request'],
      `cri, ${size}`,
    );
  }
});

test('assembles the parts of each stream separately and reads complete lines in between', (t) => {
  const [head, tail] = [long.slice(0, 100), long.slice(100)];
  t.deepEqual(
    read([
      docker(head),
      docker(head, 'stdout'),
      docker(`${long}\n`),
      long,
      docker(`${tail}\n`),
      docker(`${tail}\n`, 'stdout'),
    ]),
    ['request', 'request', 'request', 'request'],
  );
});

test('does not buffer text that is not a part of a line', (t) => {
  t.deepEqual(
    read([
      'hello',
      docker('hello'),
      docker('{"a":1}'),
      docker('GET /{x'),
      cri('hello', 'F'),
      '{"log":5}',
      long.slice(0, 50),
    ]),
    Array.from({ length: 7 }, () => 'not-a-part'),
  );
});

test('discards parts that are too long, exceed the memory or have expired, and releases their memory', (t) => {
  const memory = { bytes: 0, bytesMax: 1000 };
  const partial = new PartialLines(300, memory);
  t.deepEqual(read([docker(long.slice(0, 200)), docker('y'.repeat(200))], partial), ['too-long']);
  t.is(memory.bytes, 0);
  t.deepEqual(
    read(
      [docker(long.slice(0, 200)), docker(long.slice(0, 200), 'stdout'), docker(long.slice(0, 200), 'third')],
      partial,
    ),
    ['memory-full'],
  );
  t.is(partial.expire(60_000), 0);
  t.is(partial.expire(60_001), 2);
  t.is(memory.bytes, 0);
  read([docker(long.slice(0, 200))], partial);
  t.is(partial.end(), 1);
  t.is(memory.bytes, 0);
});

test('reads an object that spans several lines of a file as one line, and discards the lines of an unterminated one', (t) => {
  const pretty = JSON.stringify(JSON.parse(long), undefined, 2);
  const one = (text: string): string[] => {
    const partial = new PartialLines(10_000);
    const found = text.split('\n').flatMap((line) => {
      let part = partial.addFileLine(line);
      const discarded = part.kind === 'not-a-part' ? part.discarded : 0;
      if (discarded > 0) part = partial.addFileLine(line);
      return [
        ...Array.from({ length: discarded }, () => 'discarded'),
        ...(part.kind === 'incomplete'
          ? []
          : [part.kind === 'complete' ? JSON.stringify(JSON.parse(part.line)) : line]),
      ];
    });
    return [...found, ...Array.from({ length: partial.end() }, () => 'unterminated')];
  };
  t.deepEqual(one(pretty), [long]);
  t.deepEqual(one(JSON.stringify([JSON.parse(long), JSON.parse(long)], undefined, '\t')), [long, long]);
  t.deepEqual(one(`${pretty}\n${pretty}\nplain`), [long, long, 'plain']);
  t.deepEqual(one(`{\n  "a": 1,\nplain\n${pretty}`), ['discarded', 'discarded', 'plain', long]);
  t.deepEqual(one(`{\n  "a": 1,\n${pretty}`), ['discarded', 'discarded', long]);
  t.deepEqual(one('{\n  "a": 1'), ['unterminated']);
});
