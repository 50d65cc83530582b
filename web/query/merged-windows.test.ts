import test from 'ava';
import { MergeCache } from './merged-windows.js';

const digestOf = (value: number) => ({ value });

function mergedOf(weightMax: number) {
  let merges = 0;
  const merged = new MergeCache<{ value: number }, number>({ estimatedSize: ({ value }) => value, weightMax });
  return {
    /** The merged value, and whether it was merged again. */
    sum(key: string, digests: { value: number }[]) {
      const before = merges;
      const sum = merged.of(key, digests, () => {
        merges += 1;
        return digests.reduce((all, { value }) => all + value, 0);
      });
      return [sum, merges > before] as const;
    },
  };
}

test('merges the same windows once, and different, fewer or more windows again', (t) => {
  const { sum } = mergedOf(100);
  const [a, b, c] = [digestOf(1), digestOf(2), digestOf(3)] as const;
  t.deepEqual(sum('hour', [a, b]), [3, true]);
  t.deepEqual(sum('hour', [a, b]), [3, false]);
  t.deepEqual(sum('day', [a, b]), [3, true], 'another query');
  t.deepEqual(sum('hour', [a, c]), [4, true]);
  t.deepEqual(sum('hour', [a, c, b]), [6, true]);
  t.deepEqual(sum('hour', [a]), [1, true]);
  t.deepEqual(sum('hour', [digestOf(1)]), [1, true], 'a window that was read again');
  t.deepEqual(sum('hour', []), [0, true]);
});

test('evicts the least recently used entries beyond the weight limit', (t) => {
  const { sum } = mergedOf(13);
  const digests = [digestOf(5)];
  sum('one', digests);
  sum('two', digests);
  t.deepEqual(sum('one', digests), [5, false]);
  sum('three', digests);
  t.deepEqual(sum('one', digests), [5, false]);
  t.deepEqual(sum('two', digests), [5, true], 'it had to go');
  t.deepEqual(sum('two', [digestOf(13)]), [13, true], 'an entry above the limit is merged, but not cached');
  t.deepEqual(sum('three', digests), [5, true]);
});
