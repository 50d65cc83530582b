import { setImmediate as turn } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { until } from '../test/until.js';
import { rowStream, RowStreams, type Sending } from './row-stream.js';

const columns = ['id', 'name'];
const pagesOf = async function* (count: number, rowsPerPage: number, onPage: () => void = () => undefined) {
  for (let page = 0; page < count; page += 1) {
    onPage();
    yield Array.from({ length: rowsPerPage }, (_, at) => ({ id: page * rowsPerPage + at, name: '=x;"y"' }));
  }
};

/** Takes all places with streams that nobody reads. */
function fill(streams: RowStreams): { stalled: Sending[]; signals: AbortController[] } {
  const stalled: Sending[] = [];
  const signals: AbortController[] = [];
  for (;;) {
    const signal = new AbortController();
    const sending = streams.open(signal.signal);
    if (sending === undefined) return { stalled, signals };
    stalled.push(sending);
    signals.push(signal);
  }
}

test('an answer in pages is the same as one that is held', async (t) => {
  const sending = (): Sending => new RowStreams().open(new AbortController().signal)!;
  const rows = JSON.parse(await text(rowStream('json', columns, pagesOf(3, 300), sending()))) as { id: number }[];
  t.deepEqual(rows.map(({ id }) => id), Array.from({ length: 900 }, (_, id) => id));
  t.is(await text(rowStream('json', columns, pagesOf(0, 0), sending())), '[]');
  const lines = (await text(rowStream('csv', columns, pagesOf(3, 300), sending()))).split('\r\n');
  t.is(lines.length, 902);
  t.is(lines[0], '"id","name"');
  t.is((await text(rowStream('csv', columns, pagesOf(0, 0), sending()))), '"id","name"\r\n');
});

test('a page is asked for when the one before has been taken', async (t) => {
  let asked = 0;
  const stream = rowStream('csv', columns, pagesOf(100, 5000, () => { asked += 1; }), new RowStreams().open(new AbortController().signal)!);
  t.teardown(() => stream.destroy());
  stream.read(0);
  await until('the first page is there', () => stream.readableLength > 0);
  for (let waits = 0; waits < 1000; waits += 1) await turn();
  t.true(asked <= 2, `${asked} pages`);
});

test('an error in a later page breaks the answer off', async (t) => {
  const pages = async function* () {
    yield [{ id: 1, name: 'a' }];
    throw new Error('no more');
  };
  const stream = rowStream('json', columns, pages(), new RowStreams().open(new AbortController().signal)!);
  await t.throwsAsync(text(stream), { message: 'no more' });
});

test('a place is given back when its answer has ended', (t) => {
  const streams = new RowStreams();
  const { stalled, signals } = fill(streams);
  t.is(stalled.length, 16);
  signals[3]!.abort();
  t.truthy(streams.open(new AbortController().signal));
  t.is(streams.open(new AbortController().signal), undefined);
  const gone = AbortSignal.abort();
  signals[4]!.abort();
  streams.open(gone);
  t.truthy(streams.open(new AbortController().signal), 'one that has gone takes no place');
});

test('where no place is free, the client that has taken nothing for the longest time is cut off', (t) => {
  let nowMs = 1000;
  const streams = new RowStreams({ monotonicMs: () => nowMs });
  const { stalled } = fill(streams);
  const cut: number[] = [];
  for (const [at, sending] of stalled.entries()) sending.cutOff = () => { cut.push(at); };
  nowMs += 4000;
  for (const [at, sending] of stalled.entries()) if (at !== 7 && at !== 9) sending.takenMs = nowMs;
  stalled[9]!.takenMs = nowMs - 500;
  t.is(streams.open(new AbortController().signal), undefined, 'nobody has waited for long enough');
  nowMs += 1000;
  t.truthy(streams.open(new AbortController().signal));
  t.deepEqual(cut, [7]);
  t.is(streams.open(new AbortController().signal), undefined);
  nowMs += 5000;
  t.truthy(streams.open(new AbortController().signal));
  t.deepEqual(cut, [7, 9]);
});
