import type { CaddyEvent } from '../caddy-event.js';
import { windowStart } from '../rollup/rollup.js';

/** Identical events of a minute. A later row with the same window and id replaces it. */
export interface EventRow {
  /** Start of the minute, in milliseconds since 1970. */
  readonly windowMs: number;
  /** Random, less than the nanoseconds of a minute: InfluxDB adds it to the start of the minute. */
  readonly rowId: number;
  readonly count: number;
  /** The first of them, whose time is the first one. */
  readonly event: CaddyEvent;
  /** Time of the last one, in milliseconds since 1970. */
  readonly lastMs: number;
}

/** Length of a window, in seconds. */
export const eventWindow = 60;

/** Maximum number of different events in a minute. The others are counted in one row per level and logger. */
const rowsPerWindowMax = 200;
/** Maximum number of those rows. */
const otherRowsMax = 50;
/** Maximum number of windows that are open. Beyond it, the one that has not changed for longest is closed. */
const windowsMax = 10;

/** Maximum number of rows of closed windows that wait to be written. Beyond it, the oldest are dropped. */
const closedMax = 2000;

/** Interval between writes of a changed row, in milliseconds. */
const writeEveryMs = 1000;

interface OpenRow {
  readonly rowId: number;
  readonly event: CaddyEvent;
  count: number;
  lastMs: number;
  isChanged: boolean;
}

interface OpenWindow {
  readonly rows: Map<string, OpenRow>;
  others: number;
}

/**
 * Folds the events of a minute with the same level, logger, reason, host, upstream and status into one row. Bounds
 * their number.
 */
export class EventFolder {
  readonly #random: () => number;
  /** By start, in order of the last change. */
  readonly #windows = new Map<number, OpenWindow>();
  /** Rows of closed windows that are not written yet. */
  #closed: EventRow[] = [];
  #dueMs = -Infinity;
  #isChanged = false;

  constructor({ random = Math.random } = {}) {
    this.#random = random;
  }

  add(event: CaddyEvent): void {
    const windowMs = windowStart(event.timeMs, eventWindow);
    const window = this.#open(windowMs);
    const key = keyOf(event);
    let row = window.rows.get(key);
    if (row === undefined && window.rows.size - window.others >= rowsPerWindowMax) row = this.#otherRow(window, event);
    else if (row === undefined) window.rows.set(key, (row = this.#newRow(event)));
    if (row === undefined) return;
    row.count += 1;
    row.lastMs = Math.max(row.lastMs, event.timeMs);
    row.isChanged = true;
    this.#isChanged = true;
  }

  /** Returns the changed rows, at most every second of `nowMs` unless `all`. */
  drain(nowMs: number, { all = false } = {}): EventRow[] {
    // A clock that was set back must not delay rows for long.
    if (!this.#isChanged || (!all && nowMs < this.#dueMs && this.#dueMs - nowMs <= writeEveryMs)) return [];
    this.#dueMs = nowMs + writeEveryMs;
    this.#isChanged = false;
    const rows = this.#closed;
    this.#closed = [];
    for (const [windowMs, window] of this.#windows) rows.push(...changedRows(windowMs, window));
    return rows;
  }

  #open(windowMs: number): OpenWindow {
    const found = this.#windows.get(windowMs) ?? { rows: new Map<string, OpenRow>(), others: 0 };
    this.#windows.delete(windowMs);
    this.#windows.set(windowMs, found);
    if (this.#windows.size > windowsMax) {
      const [oldestMs, oldest] = this.#windows.entries().next().value!;
      this.#closed.push(...changedRows(oldestMs, oldest));
      this.#closed.splice(0, this.#closed.length - closedMax); // while the store is down
      this.#windows.delete(oldestMs);
    }
    return found;
  }

  #newRow(event: CaddyEvent): OpenRow {
    const rowId = Math.floor(this.#random() * eventWindow * 1e9);
    return { rowId, event, count: 0, lastMs: event.timeMs, isChanged: true };
  }

  /** The row of the events of a level and logger beyond the limit; `undefined` if there are too many loggers. */
  #otherRow(window: OpenWindow, event: CaddyEvent): OpenRow | undefined {
    const key = `${event.level} ${event.logger}`;
    let row = window.rows.get(key);
    if (row === undefined && window.others < otherRowsMax) {
      const { timeMs, timeNs, level, logger } = event;
      row = this.#newRow({ ...noEvent, timeMs, timeNs, level, logger, message: 'other messages' });
      window.rows.set(key, row);
      window.others += 1;
    }
    return row;
  }
}

const noEvent: Omit<CaddyEvent, 'timeMs' | 'timeNs' | 'level' | 'logger' | 'message'> = {
  error: '',
  reason: '',
  host: '',
  method: '',
  uri: '',
  status: 0,
  errorId: '',
  upstream: '',
  fields: '',
};

function keyOf({ level, logger, message, reason, host, upstream, status }: CaddyEvent): string {
  // The reason stands for a message that contains ports or ids.
  return JSON.stringify([level, logger, reason || message, host, upstream, status]);
}

function changedRows(windowMs: number, { rows }: OpenWindow): EventRow[] {
  const changed: EventRow[] = [];
  for (const row of rows.values()) {
    if (!row.isChanged) continue;
    row.isChanged = false;
    const { rowId, event, count, lastMs } = row;
    changed.push({ windowMs, rowId, count, event, lastMs });
  }
  return changed;
}
