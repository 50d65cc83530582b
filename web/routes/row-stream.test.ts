import { setImmediate as turn } from 'node:timers/promises';
import { text } from 'node:stream/consumers';
import test from 'ava';
import { until } from '../../test/until.js';
import { rowStream, RowStreams, type Sending } from './row-stream.js';

const columns = ['id', 'name'];
const pagesOf = async function* (count: number, rowsPerPage: number, onPage: () => void = () => undefined) {
  for (let page = 0; page < count; page += 1) {
    onPage();
    yield Array.from({ length: rowsPerPage }, (_, at) => ({ id: page * rowsPerPage + at, name: '=x;"y"' }));
  }
};

/** Occupies all slots with streams that nobody reads. */
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

test('a streamed answer equals one held in memory', async (t) => {
  const sending = (): Sending => new RowStreams().open(new AbortController().signal)!;
  const rows = JSON.parse(await text(rowStream('json', columns, pagesOf(3, 300), sending()))) as { id: number }[];
  t.deepEqual(
    rows.map(({ id }) => id),
    Array.from({ length: 900 }, (_, id) => id),
  );
  t.is(await text(rowStream('json', columns, pagesOf(0, 0), sending())), '[]');
  const lines = (await text(rowStream('csv', columns, pagesOf(3, 300), sending()))).split('\r\n');
  t.is(lines.length, 902);
  t.is(lines[0], '"id","name"');
  t.is(await text(rowStream('csv', columns, pagesOf(0, 0), sending())), '"id","name"\r\n');
});

test('reads a page only when the client has read the one before', async (t) => {
  let asked = 0;
  const stream = rowStream(
    'csv',
    columns,
    pagesOf(100, 5000, () => {
      asked += 1;
    }),
    new RowStreams().open(new AbortController().signal)!,
  );
  t.teardown(() => stream.destroy());
  stream.read(0);
  await until('the first page is ready', () => stream.readableLength > 0);
  for (let waits = 0; waits < 1000; waits += 1) await turn();
  t.true(asked <= 2, `${asked} pages`);
});

test('aborts the answer on an error in a later page', async (t) => {
  const pages = async function* () {
    yield [{ id: 1, name: 'a' }];
    throw new Error('no more');
  };
  const stream = rowStream('json', columns, pages(), new RowStreams().open(new AbortController().signal)!);
  await t.throwsAsync(text(stream), { message: 'no more' });
});

test('frees a slot when its answer has ended', (t) => {
  const streams = new RowStreams();
  const { stalled, signals } = fill(streams);
  t.is(stalled.length, 16);
  signals[3]!.abort();
  t.truthy(streams.open(new AbortController().signal));
  t.is(streams.open(new AbortController().signal), undefined);
  const gone = AbortSignal.abort();
  signals[4]!.abort();
  streams.open(gone);
  t.truthy(streams.open(new AbortController().signal), 'a client that has disconnected occupies no slot');
});

test('cuts off the client that has read nothing for longest when no slot is free', (t) => {
  let nowMs = 1000;
  const streams = new RowStreams({ monotonicMs: () => nowMs });
  const { stalled } = fill(streams);
  const cut: number[] = [];
  for (const [at, sending] of stalled.entries())
    sending.cutOff = () => {
      cut.push(at);
    };
  nowMs += 4000;
  for (const [at, sending] of stalled.entries()) if (at !== 7 && at !== 9) sending.takenMs = nowMs;
  stalled[9]!.takenMs = nowMs - 500;
  t.is(streams.open(new AbortController().signal), undefined, 'no client has been idle for long enough');
  nowMs += 1000;
  t.truthy(streams.open(new AbortController().signal));
  t.deepEqual(cut, [7]);
  t.is(streams.open(new AbortController().signal), undefined);
  nowMs += 5000;
  t.truthy(streams.open(new AbortController().signal));
  t.deepEqual(cut, [7, 9]);
});
