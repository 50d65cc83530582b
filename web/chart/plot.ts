/** The plot of a chart: its size in pixels, its scales and their ticks. */
import { scaleLinear, scaleLog, scaleUtc } from 'd3-scale';

/** Size of a chart without its legend. */
export const width = 640;
/** See `width`. */
export const height = 150;
/** Edges of the plot within a chart. */
export const plot = { left: 58, right: width - 14, top: 8, bottom: height - 22 };

/** The smallest positive value, and the maximum. */
export interface Span {
  readonly min: number;
  readonly max: number;
}

/** From times and values to positions. */
export interface Scales {
  readonly x: (timeMs: number) => number;
  readonly y: (value: number) => number;
}

/** Returns the scale of the time axis. */
export function xScale(fromMs: number, toMs: number) {
  return scaleUtc().domain([fromMs, toMs]).range([plot.left, plot.right]);
}

/** Returns the scale of the values and its ticks. A logarithmic one is linear if there are no positive values. */
export function yScale(
  scale: 'linear' | 'log',
  { min, max }: Span,
): { y: (value: number) => number; ticks: readonly number[] } {
  if (scale === 'log' && max > 0) {
    // The lowest value is slightly above the axis.
    const domain: [number, number] = [min * 0.8, Math.max(max, min * 1.5)];
    return { y: scaleLog().domain(domain).range([plot.bottom, plot.top]).clamp(true), ticks: logTicks(...domain) };
  }
  const y = scaleLinear()
    .domain([0, max === 0 ? 1 : max])
    .nice(3)
    .range([plot.bottom, plot.top])
    .clamp(true);
  return { y, ticks: y.ticks(3) };
}

/** Powers of ten, or finer ticks if there are too few. The ticks of d3 are too many. */
function logTicks(min: number, max: number): number[] {
  const ticksOf = (...mantissas: number[]): number[] => {
    const found: number[] = [];
    for (let power = Math.floor(Math.log10(min)); 10 ** power <= max; power += 1)
      found.push(...mantissas.map((mantissa) => Number((mantissa * 10 ** power).toPrecision(1))));
    return found.filter((tick) => tick >= min && tick <= max);
  };
  const powers = ticksOf(1);
  if (powers.length > 4) return powers.filter((_, at) => at % 2 === (powers.length - 1) % 2);
  if (powers.length >= 3) return powers;
  const finer = ticksOf(1, 3);
  return finer.length >= 3 ? finer : ticksOf(1, 2, 5);
}

/** Escapes text for XML. */
export function escape(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
