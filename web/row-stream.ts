/** Answers that are too large to be held: rows as JSON or CSV, page by page. */
import { Readable } from 'node:stream';
import { nextTurn } from '../shared/next-turn.js';
import { csv, type CsvValue } from './dashboard/csv.js';

type Row = Readonly<Record<string, CsvValue>>;

/** Answers that are being sent in pages. Each holds one page of rows, for as long as its client takes. */
const streamsMax = 16;
/** A client that takes nothing for so long is cut off, in milliseconds; and how long where another waits for its place. */
const stalledMsMax = 30_000;
const stalledMsMaxWhenFull = 5000;

/** Keeps the number of large answers that are being sent at once within `streamsMax`. */
export class RowStreams {
  readonly #sending = new Set<Sending>();
  readonly #monotonicMs: () => number;

  constructor({ monotonicMs = () => performance.now() } = {}) {
    this.#monotonicMs = monotonicMs;
  }

  /**
   * Takes a place until `signal` is aborted. Where none is free, the client that has taken nothing for the longest time is cut off, after
   * `stalledMsMaxWhenFull` at the earliest. Returns `undefined` where all others are being read.
   */
  open(signal: AbortSignal): Sending | undefined {
    const nowMs = this.#monotonicMs();
    if (this.#sending.size >= streamsMax) {
      const slowest = [...this.#sending].reduce((slower, other) => other.takenMs < slower.takenMs ? other : slower);
      if (nowMs - slowest.takenMs < stalledMsMaxWhenFull) return undefined;
      this.#sending.delete(slowest);
      slowest.cutOff();
    }
    const sending: Sending = { takenMs: nowMs, cutOff: () => undefined, monotonicMs: this.#monotonicMs };
    if (signal.aborted) return sending;
    this.#sending.add(sending);
    signal.addEventListener('abort', () => { this.#sending.delete(sending); }, { once: true });
    return sending;
  }
}

/** An answer that is being sent. */
export interface Sending {
  /** When its client last took a part of it, by `monotonicMs`. */
  takenMs: number;
  /** Breaks it off. */
  cutOff: () => void;
  readonly monotonicMs: () => number;
}

/**
 * The body of an answer over pages of rows. Its next page is asked for when the client has taken the one before. An error in
 * a later page breaks the answer off, so that no client takes a part for the whole.
 */
export function rowStream(format: 'json' | 'csv', columns: readonly string[], pages: AsyncIterable<readonly Row[]>, sending: Sending): Readable {
  const texts = format === 'json' ? jsonOf(pages) : csvOf(columns, pages);
  const stream = Readable.from(texts, { objectMode: false, highWaterMark: 65_536 });
  sending.cutOff = () => { stream.destroy(Object.assign(new Error('The client takes nothing of a large answer.'), { code: 'ECONNABORTED' })); };
  let timer: NodeJS.Timeout | undefined;
  const watch = (): void => {
    sending.takenMs = sending.monotonicMs();
    clearTimeout(timer);
    timer = setTimeout(() => { sending.cutOff(); }, stalledMsMax).unref();
  };
  stream.on('data', watch).pause();
  watch();
  stream.once('close', () => { clearTimeout(timer); });
  return stream;
}

/** Rows that become text in one turn of the event loop. */
const rowsPerTurn = 256;

async function* jsonOf(pages: AsyncIterable<readonly Row[]>): AsyncGenerator<string> {
  let before = '[';
  for await (const rows of inTurns(pages)) {
    yield before + JSON.stringify(rows).slice(1, -1);
    before = ',';
  }
  yield before === '[' ? '[]' : ']';
}

async function* csvOf(columns: readonly string[], pages: AsyncIterable<readonly Row[]>): AsyncGenerator<string> {
  const header = csv(columns, []);
  yield header;
  for await (const rows of inTurns(pages)) yield csv(columns, rows).slice(header.length);
}

async function* inTurns(pages: AsyncIterable<readonly Row[]>): AsyncGenerator<readonly Row[]> {
  for await (const page of pages) {
    for (let from = 0; from < page.length; from += rowsPerTurn) {
      if (from > 0) await nextTurn();
      yield page.slice(from, from + rowsPerTurn);
    }
  }
}
