/**
 * Makes ranks from 1 to `ranksMax` of which rank `r` comes in proportion to `1 / r^exponent`, as paths and addresses
 * do. `random` gives numbers from 0 to 1.
 */
export function createZipf({
  exponent,
  ranksMax,
  random,
}: {
  exponent: number;
  ranksMax: number;
  random: () => number;
}): () => number {
  const sums: number[] = [];
  let sum = 0;
  for (let rank = 1; rank <= ranksMax; rank += 1) sums.push((sum += 1 / rank ** exponent));
  return () => {
    const at = random() * sum;
    let [low, high] = [0, ranksMax - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sums[middle]! <= at) low = middle + 1;
      else high = middle;
    }
    return low + 1;
  };
}
