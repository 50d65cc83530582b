/** Answers that are too large to hold in memory: rows as JSON or CSV, streamed page by page. */
import { Readable } from 'node:stream';
import { nextTurn } from '../../shared/next-turn.js';
import { csv, type CsvValue } from './csv.js';

type Row = Readonly<Record<string, CsvValue>>;

/** Maximum number of answers streamed at once. Each holds one page of rows until its client has read it. */
const streamsMax = 16;
/**
 * How long a client may read nothing before it is cut off, in milliseconds; shorter when another one needs its slot.
 */
const stalledMsMax = 30_000;
const stalledMsMaxWhenFull = 5000;

/** Limits the number of large answers that are streamed at once to `streamsMax`. */
export class RowStreams {
  readonly #sending = new Set<Sending>();
  readonly #monotonicMs: () => number;

  constructor({ monotonicMs = () => performance.now() } = {}) {
    this.#monotonicMs = monotonicMs;
  }

  /**
   * Occupies a slot until `signal` is aborted. If none is free, cuts off the client that has read nothing for longest,
   * provided that is at least `stalledMsMaxWhenFull`. Returns `undefined` if all others are still being read.
   */
  open(signal: AbortSignal): Sending | undefined {
    const nowMs = this.#monotonicMs();
    if (this.#sending.size >= streamsMax) {
      const slowest = [...this.#sending].reduce((slower, other) => (other.takenMs < slower.takenMs ? other : slower));
      if (nowMs - slowest.takenMs < stalledMsMaxWhenFull) return undefined;
      this.#sending.delete(slowest);
      slowest.cutOff();
    }
    const sending: Sending = { takenMs: nowMs, cutOff: () => undefined, monotonicMs: this.#monotonicMs };
    if (signal.aborted) return sending;
    this.#sending.add(sending);
    signal.addEventListener(
      'abort',
      () => {
        this.#sending.delete(sending);
      },
      { once: true },
    );
    return sending;
  }
}

/** An answer that is being streamed. */
export interface Sending {
  /** When its client last read a part of it, by `monotonicMs`. */
  takenMs: number;
  /** Aborts the answer. */
  cutOff: () => void;
  readonly monotonicMs: () => number;
}

/**
 * Streams pages of rows as the body of an answer. Reads the next page when the client has read the one before. An error
 * in a later page aborts the connection, so that no client mistakes a partial answer for a whole one.
 */
export function rowStream(
  format: 'json' | 'csv',
  columns: readonly string[],
  pages: AsyncIterable<readonly Row[]>,
  sending: Sending,
): Readable {
  const texts = format === 'json' ? jsonOf(pages) : csvOf(columns, pages);
  const stream = Readable.from(texts, { objectMode: false, highWaterMark: 65_536 });
  sending.cutOff = () => {
    stream.destroy(
      Object.assign(new Error('The client has stopped reading a large answer.'), { code: 'ECONNABORTED' }),
    );
  };
  let timer: NodeJS.Timeout | undefined;
  const watch = (): void => {
    sending.takenMs = sending.monotonicMs();
    clearTimeout(timer);
    timer = setTimeout(() => {
      sending.cutOff();
    }, stalledMsMax).unref();
  };
  stream.on('data', watch).pause();
  watch();
  stream.once('close', () => {
    clearTimeout(timer);
  });
  return stream;
}

/** Rows serialised per turn of the event loop. */
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
