import test from 'ava';
import { isSplit, joinCells, splitCells } from './split-cells.js';

test('splits packed cells over fields of less than 64 KiB', (t) => {
  const partsOf = (packed: string): Map<number, string> =>
    new Map(splitCells(packed).map((part, at) => [at + 1, part]));
  for (const length of [0, 1, 60_000, 60_001, 120_000, 200_000]) {
    const packed = 'GET 200 1,'.repeat(length / 10 + 1).slice(0, length);
    const parts = partsOf(packed);
    t.true([...parts.values()].every((part) => part.length < 65_536));
    t.is(parts.size, Math.max(1, Math.ceil(length / 60_000)));
    t.is(isSplit(parts.get(1)!), length > 60_000);
    t.is(joinCells(parts), packed);
    t.is(joinCells(new Map([...parts, [parts.size + 1, 'of an earlier version']])), packed);
  }
  const [before, after] = [partsOf('a'.repeat(130_000)), partsOf('b'.repeat(130_000))];
  t.is(joinCells(new Map([...after, [2, before.get(2)!]])), undefined);
  t.is(joinCells(new Map([...after].slice(0, 2))), undefined);
  t.is(joinCells(new Map([...after].slice(1))), '');
});
