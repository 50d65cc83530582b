import { grouped } from './summary.js';

/** Shows the progress of an import. */
export interface Progress {
  /** `bytesTotal` is `undefined` if unknown. */
  show(state: {
    readonly file: string;
    readonly lines: number;
    readonly bytesRead: number;
    readonly bytesTotal: number | undefined;
  }): void;
  /** Removes the bar from the terminal, before something else is written. */
  clear(): void;
}

/** Output for the progress, a terminal or not. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

const barMsMin = 100;
const lineMsMin = 5000;
const barWidth = 20;

/** Creates a progress bar, updated at most ten times a second. Without a terminal, writes a line every five seconds. */
export function createProgress(stream: ProgressStream, { now = () => performance.now() } = {}): Progress {
  const startMs = now();
  const intervalMs = stream.isTTY ? barMsMin : lineMsMin;
  let shownMs = startMs;
  let drawn = false;
  return {
    show(state) {
      const timeMs = now();
      if (timeMs - shownMs < intervalMs) return;
      shownMs = timeMs;
      const text = progressText(state, timeMs - startMs, { bar: stream.isTTY === true });
      drawn = stream.isTTY === true;
      stream.write(drawn ? `\r\u001b[K${text.slice(0, (stream.columns ?? 80) - 1)}` : `${text}\n`);
    },
    clear() {
      if (drawn) stream.write('\r\u001b[K');
      drawn = false;
    },
  };
}

/** For example `access.log  1,234,567 lines  98,000/s  62 %  0:41 left`. */
function progressText(
  { file, lines, bytesRead, bytesTotal }: Parameters<Progress['show']>[0],
  elapsedMs: number,
  { bar }: { bar: boolean },
): string {
  const parts = [file, `${grouped(lines)} lines`, `${grouped(Math.round(lines / (elapsedMs / 1000)))}/s`];
  if (bytesTotal !== undefined && bytesTotal > 0 && bytesRead > 0) {
    const share = Math.min(1, bytesRead / bytesTotal);
    const filled = Math.floor(share * barWidth);
    if (bar) parts.push('█'.repeat(filled) + '░'.repeat(barWidth - filled));
    parts.push(`${Math.floor(share * 100)} %`, `${durationText(elapsedMs * (1 / share - 1))} left`);
  }
  return parts.join('  ');
}

/** `0:41`, `12:05`, `1:02:03`. */
function durationText(durationMs: number): string {
  const seconds = Math.round(durationMs / 1000);
  const two = (value: number): string => String(value).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes}:${two(seconds % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}
