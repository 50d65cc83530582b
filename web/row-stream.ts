/** Answers that are too large to be held: rows as JSON or CSV, page by page. */
import { Readable } from 'node:stream';
import { nextTurn } from '../shared/next-turn.js';
import { csv, type CsvValue } from './dashboard/csv.js';

type Row = Readonly<Record<string, CsvValue>>;

/** A client that takes nothing for so long is cut off, in milliseconds. */
const stalledMsMax = 30_000;

/**
 * The body of an answer over pages of rows. Its next page is asked for when the client has taken the one before. An error in
 * a later page breaks the answer off, so that no client takes a part for the whole.
 */
export function rowStream(format: 'json' | 'csv', columns: readonly string[], pages: AsyncIterable<readonly Row[]>): Readable {
  const texts = format === 'json' ? jsonOf(pages) : csvOf(columns, pages);
  const stream = Readable.from(texts, { objectMode: false, highWaterMark: 65_536 });
  let timer: NodeJS.Timeout | undefined;
  const watch = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => { stream.destroy(Object.assign(new Error('The client takes nothing of a large answer.'), { code: 'ECONNABORTED' })); }, stalledMsMax).unref();
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
