import test from 'ava';
import { createLog, rateLimitedWarn, type LogConfig } from './log.js';

const nowMs = Date.UTC(2026, 10, 30, 9, 5);

/** The lines that a log writes for one message of each level. */
function written(config: Partial<LogConfig>, message = 'Closed.'): string[] {
  const lines: string[] = [];
  const log = createLog('collector', {
    write: (line) => lines.push(line),
    now: () => nowMs,
    config: { LOG_LEVEL: 'info', LOG_FORMAT: 'text', ...config },
  });
  for (const level of ['debug', 'info', 'warn', 'error'] as const) log[level](message, { peer: 'a "b"', lines: 3 });
  return lines;
}

test('writes a readable line for each message', (t) => {
  t.deepEqual(
    written({}),
    ['info', 'warn', 'error'].map(
      (level) => `2026-11-30T09:05:00.000Z ${level} collector: Closed. peer="a \\"b\\"" lines=3\n`,
    ),
  );
});

test('writes a JSON object for each message', (t) => {
  t.is(
    written({ LOG_FORMAT: 'json' })[0],
    '{"time":"2026-11-30T09:05:00.000Z","level":"info","part":"collector","message":"Closed.","peer":"a \\"b\\"","lines":3}\n',
  );
});

test('writes messages of LOG_LEVEL and above', (t) => {
  for (const [LOG_LEVEL, count] of [
    ['debug', 4],
    ['info', 3],
    ['warn', 2],
    ['error', 1],
  ] as const) {
    t.is(written({ LOG_LEVEL }).length, count, LOG_LEVEL);
    t.is(written({ LOG_LEVEL, LOG_FORMAT: 'json' }).length, count, LOG_LEVEL);
  }
});

test('keeps text of a peer on the line, and its control characters out of the terminal', (t) => {
  const text = 'a\nb\r\n2026-11-30T09:05:00.000Z error web: forged\t\u001b[2J\u009b31m\u007f\u2028\u202e';
  for (const LOG_FORMAT of ['text', 'json'] as const) {
    const lines: string[] = [];
    const log = createLog('web', { write: (line) => lines.push(line), config: { LOG_LEVEL: 'info', LOG_FORMAT } });
    log.warn(text, { peer: text });
    t.is(lines.length, 1);
    // eslint-disable-next-line no-control-regex -- matches control characters
    t.notRegex(lines[0]!.replace(/\n$/, ''), /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/, LOG_FORMAT);
    if (LOG_FORMAT === 'json') t.like(JSON.parse(lines[0]!), { message: text, peer: text });
    else t.true(lines[0]!.includes(String.raw`a\u000ab\u000d\u000a2026-11-30`));
  }
});

test('replaces no member of the JSON object with a field of the same name', (t) => {
  const lines: string[] = [];
  const log = createLog('web', {
    write: (line) => lines.push(line),
    config: { LOG_LEVEL: 'info', LOG_FORMAT: 'json' },
  });
  log.warn('Refused.', { level: 'info', message: 'other', path: '/' });
  t.like(JSON.parse(lines[0]!), { level: 'warn', message: 'Refused.', path: '/' });
});

test('writes the first message of a key, then one per interval with the number of suppressed ones', (t) => {
  const written: unknown[] = [];
  let timeMs = 0;
  const warn = rateLimitedWarn(
    (...message) => {
      written.push(message);
    },
    { intervalMs: 1000, monotonicMs: () => timeMs },
  );
  for (timeMs = 0; timeMs <= 1000; timeMs += 250) warn('a', 'text', { peer: 'x' });
  warn('b', 'other');
  t.deepEqual(written, [
    ['text', { peer: 'x' }],
    ['text', { peer: 'x', alsoSinceLastReport: 3 }],
    ['other', undefined],
  ]);
});

test('suppresses no message when the clock is set back', (t) => {
  const written: string[] = [];
  const { now } = Date;
  let aheadMs = 730 * 86_400_000;
  t.teardown(() => {
    Date.now = now;
  });
  Date.now = () => now() + aheadMs;
  const warn = rateLimitedWarn(
    (message) => {
      written.push(message);
    },
    { intervalMs: 0 },
  );
  warn('a', 'before');
  aheadMs = 0;
  warn('a', 'after');
  t.deepEqual(written, ['before', 'after']);
});
