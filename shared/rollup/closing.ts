/** When rows and lists of open windows are closed. */
import type { Level } from './rollup.js';

/** An open row, or several that are closed together. */
export interface OpenPart {
  readonly level: Level;
  readonly windowMs: number;
  /** Time of its last change, in milliseconds. */
  readonly changedMs: number;
}

/** Everything that is open, and the time. */
export interface OpenState {
  /** Size of all open parts, and its limit. */
  readonly open: number;
  readonly openMax: number;
  /** Window of the oldest recent request; `-Infinity` if there was none. */
  readonly oldestMs: number;
  readonly nowMs: number;
  /** How long a part stays open after its window ended and it last changed, in milliseconds. Default: 5 minutes. */
  readonly graceMs?: number | undefined;
}

const graceMsDefault = 5 * 60_000;

/**
 * While more than a tenth of `openMax` is open, a part is closed once all requests are newer than its window by this,
 * in milliseconds: an import passes through hours within minutes.
 */
const passedMs = 5 * 60_000;

/** Whether to close a part: it has been idle for long enough, or requests have passed it. */
export function isClosing(
  { windowMs, level, changedMs }: OpenPart,
  { open, openMax, oldestMs, nowMs, graceMs = graceMsDefault }: OpenState,
): boolean {
  const endMs = windowMs + level * 1000;
  return (
    (open > openMax / 10 && oldestMs - endMs > passedMs) || (nowMs - changedMs > graceMs && nowMs - endMs > graceMs)
  );
}

/**
 * Returns the parts to close: those of `isClosing`, and while more than `openMax` stays open, the least recently
 * changed ones until half of that is left.
 */
export function chooseClosing<Part extends OpenPart>(
  parts: readonly Part[],
  sizeOf: (part: Part) => number,
  state: OpenState,
): Part[] {
  const closing: Part[] = [];
  const staying: Part[] = [];
  let left = state.open;
  for (const part of parts) {
    const closes = isClosing(part, state);
    if (closes) left -= sizeOf(part);
    (closes ? closing : staying).push(part);
  }
  if (left <= state.openMax) return closing;
  for (const part of staying.sort((one, other) => one.changedMs - other.changedMs || one.windowMs - other.windowMs)) {
    if (left <= state.openMax / 2) break;
    left -= sizeOf(part);
    closing.push(part);
  }
  return closing;
}
