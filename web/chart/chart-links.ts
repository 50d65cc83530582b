/** Links over the parts of a chart. */
import { escape, height, plot, width, xScale } from './plot.js';

/** A clickable part of a chart. */
export interface ChartLink {
  readonly fromMs: number;
  readonly toMs: number;
  readonly href: string;
}

/**
 * Returns a function that creates a layer of links over a chart, given the tooltip of each link. Layers are for
 * pointers only: hidden from screen readers and not in the tab order; the table of the chart has the same links. The
 * style sheet shows one of two layers: `narrow` links for a mouse, or `wide` ones for touch.
 */
export function chartLinks(
  { fromMs, toMs }: { readonly fromMs: number; readonly toMs: number },
  links: readonly ChartLink[],
  size: 'narrow' | 'wide',
): (words: readonly string[]) => string {
  const x = xScale(fromMs, toMs);
  const areas = links.map((one) => {
    const left = x(Math.max(fromMs, one.fromMs));
    return `<a href="${escape(one.href)}" tabindex="-1"><rect x="${left.toFixed(1)}" width="${(x(Math.min(toMs, one.toMs)) - left).toFixed(1)}" y="${plot.top}" height="${plot.bottom - plot.top}"/><title>`;
  });
  return (words) =>
    `<svg class="chart-links ${size}" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" aria-hidden="true">${areas.map((area, at) => `${area}${escape(words[at]!)}</title></a>`).join('')}</svg>`;
}
