/** How figures differ from those of the previous period. */
import { nbsp, number } from '../format.js';

/** How a figure differs from the same of the previous period. */
export interface Change {
  /** `+12 %` */
  readonly text: string;
  /** `up 12 % on the previous period`, for those who do not see the sign. */
  readonly words: string;
  /** Whether it is a rise of something that should not rise. */
  readonly worse: boolean;
}

/**
 * Latencies that rise by more than this share, and shares of errors that rise by more than `risenPoints`, are marked.
 */
const risenShare = 0.25;
const risenPoints = 0.005;

/** The change of a value by its share; `undefined` where there is nothing to compare with. */
export function changeOf(
  value: number | null,
  before: number | null | undefined,
  evaluated: boolean,
): Change | undefined {
  if (value === null || before === null || before === undefined || before === 0) return undefined;
  const share = value / before - 1;
  const size =
    share >= 9.995
      ? `${number(value / before, 0)} times`
      : `${number(Math.abs(share) * 100, Math.abs(share) < 0.0995 ? 1 : 0)}${nbsp}%`;
  return changeText(
    share,
    share >= 9.995 ? `×${nbsp}${number(value / before, 0)}` : size,
    size,
    evaluated && share > risenShare,
  );
}

/** The change of a share in percentage points. */
export function pointsOf(share: number | null, before: number | null, evaluated: boolean): Change | undefined {
  if (share === null || before === null) return undefined;
  const points = share - before;
  const size = number(Math.abs(points) * 100, 1);
  return changeText(points, `${size}${nbsp}pp`, `${size} percentage points`, evaluated && points > risenPoints);
}

/** `size` is the change in words. Where it rounds to zero, nothing has changed that could be seen. */
function changeText(change: number, text: string, size: string, worse: boolean): Change {
  if (/^0(?![.\d])/.test(size)) return { text: '±0', words: 'as in the previous period', worse: false };
  const sign = text.startsWith('×') ? '' : change > 0 ? '+' : '−';
  return { text: sign + text, words: `${change > 0 ? 'up' : 'down'} ${size} on the previous period`, worse };
}
