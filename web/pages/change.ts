/** Changes of figures compared with the previous period. */
import { nbsp, number } from '../format.js';

/** The change of a figure from the previous period. */
export interface Change {
  /** `+12 %` */
  readonly text: string;
  /** `up 12 % on the previous period`, for screen readers. */
  readonly words: string;
  /** Whether to highlight it as a deterioration. */
  readonly worse: boolean;
}

/** Relative increase of a latency above which it is highlighted. */
const worseShareMin = 0.25;
/** Increase of an error share above which it is highlighted. */
const worsePointsMin = 0.005;

/** The relative change of a value; `undefined` if there is nothing to compare with. */
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
    evaluated && share > worseShareMin,
  );
}

/** The change of a share in percentage points. */
export function pointsOf(share: number | null, before: number | null, evaluated: boolean): Change | undefined {
  if (share === null || before === null) return undefined;
  const points = share - before;
  const size = number(Math.abs(points) * 100, 1);
  return changeText(points, `${size}${nbsp}pp`, `${size} percentage points`, evaluated && points > worsePointsMin);
}

/** `size` is the change in words. A change that rounds to zero counts as none. */
function changeText(change: number, text: string, size: string, worse: boolean): Change {
  if (/^0(?![.\d])/.test(size)) return { text: '±0', words: 'unchanged from the previous period', worse: false };
  const sign = text.startsWith('×') ? '' : change > 0 ? '+' : '−';
  return { text: sign + text, words: `${change > 0 ? 'up' : 'down'} ${size} on the previous period`, worse };
}
