/**
 * The sample, repeated and spread evenly over some hours: a log of any length. `node dist/test/shifted-sample.js LINES
 * HOURS` writes it to standard output; the last line is an hour old.
 */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { readSample } from './sample.js';

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [count, hours] = process.argv.slice(2).map(Number) as [number, number];
  const endMs = Date.now() - 3_600_000;
  for (const part of shiftedSample(count, { startMs: endMs - hours * 3_600_000, endMs })) {
    if (!process.stdout.write(part)) await once(process.stdout, 'drain');
  }
}

/** `count` lines with times from `startMs` up to `endMs`, in parts of some thousand lines. */
export function* shiftedSample(
  count: number,
  { startMs, endMs }: { startMs: number; endMs: number },
): Generator<string> {
  const { lines } = readSample();
  const parts = lines.map((line) => line.split(/(?<="ts":)[\d.]+/) as [string, string]);
  let text = '';
  for (let at = 0; at < count; at += 1) {
    const [before, behind] = parts[at % parts.length]!;
    text += `${before}${Number(((startMs + (at * (endMs - startMs)) / count) / 1000).toFixed(6))}${behind}\n`;
    if (at % 2000 === 1999 || at === count - 1) {
      yield text;
      text = '';
    }
  }
}
