import { readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { StoreError } from '../errors.js';
import { duckdbBatch } from '../../test/duckdb-writer.js';
import { quietLog } from '../../test/influxd.js';
import { temporaryFolder } from '../../test/program.js';
import { openStore, readDeadLetter } from './open.js';

test('stores requests that the embedded store rejects beside its file, unchanged, and passes the error on', async (t) => {
  const folder = await temporaryFolder();
  const path = join(folder, 'requests.duckdb');
  const store = await openStore(
    { kind: 'duckdb', path, retention: { requestsMs: 3650 * 86_400_000, rollupsMs: 3650 * 86_400_000 } },
    { log: quietLog },
  );
  const good = duckdbBatch(1);
  const [request] = good.requests;
  const awkward = { ...request!, host: 'a b,c=d', uri: '/"\\ \n', userAgent: '💥', status: 0, durationMs: null };
  const bad = {
    ...good,
    requests: [awkward, ...good.requests],
    topLists: [
      { level: 60, windowMs: 0, rowId: 0.5e300, source: 'caddy', host: '', kind: 'path', packed: '' } as const,
    ],
  };
  const error = await t.throwsAsync(store.write(bad), { instanceOf: StoreError });
  t.is(error.action, 'drop');
  await store.close();

  const [name] = await readdir(`${path}.dead-letters`);
  const file = join(`${path}.dead-letters`, name!);
  t.is((await stat(file)).mode & 0o777, 0o600);
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  t.true(lines[0]!.includes(error.message) && lines[0]!.includes('Conversion Error'), lines[0]);
  const parsed = lines.map(readDeadLetter).filter((read) => typeof read === 'object');
  t.deepEqual(parsed, [{ ...awkward, uri: '/"\\  ' }, ...good.requests], 'a line break is a space: a line is one line');
  await rm(folder, { recursive: true });
});
