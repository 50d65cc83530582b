import test from 'ava';
import { createProgress, type ProgressStream } from './progress.js';

/** The output for ten seconds at 1,000 lines and 100 of 1,000 bytes per second. */
function written(stream: Omit<ProgressStream, 'write'>, bytesTotal: number | undefined): string[] {
  const texts: string[] = [];
  let timeMs = 0;
  const progress = createProgress({ ...stream, write: (text) => texts.push(text) }, { now: () => timeMs });
  for (let second = 1; second <= 10; second += 1) {
    timeMs = second * 1000;
    progress.show({ file: 'access.log', lines: second * 1000, bytesRead: second * 100, bytesTotal });
  }
  progress.clear();
  return texts;
}

test('writes a plain line every five seconds to a pipe', (t) => {
  t.deepEqual(written({}, 1000), [
    'access.log  5,000 lines  1,000/s  50 %  0:05 left\n',
    'access.log  10,000 lines  1,000/s  100 %  0:00 left\n',
  ]);
});

test('shows neither a share nor the time left without a known length', (t) => {
  t.is(written({}, undefined)[0], 'access.log  5,000 lines  1,000/s\n');
});

test('draws a bar in place on a terminal, within its width, and removes it at the end', (t) => {
  const texts = written({ isTTY: true, columns: 200 }, 1000);
  t.is(texts.length, 11);
  t.is(texts[2], '\r\u001b[Kaccess.log  3,000 lines  1,000/s  ██████░░░░░░░░░░░░░░  30 %  0:07 left');
  t.is(texts.at(-1), '\r\u001b[K');
  t.true(written({ isTTY: true, columns: 20 }, 1000).every((text) => text.length <= 19 + '\r\u001b[K'.length));
});
