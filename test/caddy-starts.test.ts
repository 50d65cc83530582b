import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { createDecoder } from '../collector/decode/decode.js';
import { EventFolder } from '../shared/record/event-folder.js';
import { caddyStartsIn } from '../web/stats/caddy-starts.js';

test("finds the starts in real Caddy's log, each once", (t) => {
  const decoder = createDecoder({ timeZone: 'UTC', durationFormat: 'auto' });
  const folder = new EventFolder();
  const lines = readFileSync(join('test', 'samples', 'caddy-2.11.4-errors.ndjson'), 'utf8').split('\n');
  const times: number[] = [];
  for (const line of lines.filter((each) => each !== '')) {
    const decoded = decoder.decode(line, undefined);
    if (decoded.kind !== 'runtime' || decoded.event === undefined) continue;
    folder.add(decoded.event);
    if (decoded.event.message === 'server running') times.push(decoded.event.timeMs);
  }
  const rows = folder.drain(0, { all: true });
  t.true(times.length > 0);
  t.deepEqual(
    caddyStartsIn(rows).map(({ timeMs }) => timeMs),
    times.filter((timeMs, at) => at === 0 || timeMs - times[at - 1]! > 5000),
  );
  t.true(
    caddyStartsIn(rows).every(({ kind }) => kind === 'reload'),
    'the first message of a start is not in this log',
  );
  const [row] = rows.filter(({ event }) => event.message === 'server running');
  const started = { ...row!, event: { ...row!.event, logger: '', message: 'serving initial configuration' } };
  t.is(caddyStartsIn([...rows, started])[0]?.kind, 'start');
});
