/** `import` as a program, over both stores, with real Caddy where its lines are told apart from others. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { readdir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { gzipSync } from 'node:zlib';
import test, { type ExecutionContext } from 'ava';
import { createLog } from '../shared/log.js';
import type { RequestEvent } from '../shared/request-event.js';
import {
  mergeAggregate,
  emptyAggregate,
  levels,
  levelsOf,
  scopes,
  windowStart,
  type Aggregate,
} from '../shared/rollup/rollup.js';
import { readSettings } from '../shared/settings/settings.js';
import { openStore } from '../shared/store/open.js';
import { storeSettings, storeSettingsFrom } from '../shared/settings/store-settings.js';
import type { Filter, Store } from '../shared/store/store.js';
import { logTo, startCaddy, testWithCaddy } from './caddy.js';
import { influxdOfThisFile, testWithInfluxd } from './influxd.js';
import { freePort, freePorts } from './ports.js';
import { folderOf, readLedger, runProgram, startProgram, temporaryFolder, type RunningProgram } from './program.js';
import { startProxy } from './proxy.js';
import { readSample, sendTcp } from './sample.js';
import { shiftedSample } from './shifted-sample.js';
import { until } from './until.js';
import { aggregateOf } from './rollup-rows.js';

const sample = readSample();
const packedSample = gzipSync(sample.bytes);
const sampleFolder = await temporaryFolder();
const samplePath = join(sampleFolder, 'access.log.gz');
await writeFile(samplePath, packedSample);
test.after.always(() => rm(sampleFolder, { recursive: true }));
const influxd = influxdOfThisFile();

/** A place to import into, with the settings of the program that imports. */
interface Place {
  readonly settings: Readonly<Record<string, string>>;
  readonly folder: string;
  /** The collector: with the dashboard where the store is embedded. */
  startCollector(): Promise<RunningProgram>;
  readonly port: number;
  readonly http: number;
  /** The port of the dashboard, where the store is embedded. */
  readonly web?: number;
}

scenario('importing a file twice adds its requests once, and changes no total.', async (t, place) => {
  const first = await importFiles(place, [samplePath]);
  t.is(first.status, 0, first.stderr);
  t.deepEqual(first.counts, { added: 50_000 });
  const once = await totalsOf(place);
  t.is(once.requests, 50_000);
  t.deepEqual(once.statuses, sample.statuses);
  t.is(once.sizeSum, sample.sizeSum);
  for (const { level, rows, windows } of once.levels)
    t.is(rows, windows, `one row for each window and series of level ${level}`);

  const second = await importFiles(place, [samplePath]);
  t.is(second.status, 0, second.stderr);
  t.deepEqual(second.counts, { added: 0, 'already there': 50_000 });
  t.deepEqual(await totalsOf(place), once);
});

scenario(
  'requests whose rows are deleted by age are counted once, however the file has grown and whatever came in over the socket',
  async (t, plain) => {
    const place = { ...plain, settings: { ...plain.settings, RETENTION_REQUESTS: '1h', RETENTION_DELAY: '0s' } };
    const hourMs = 3_600_000;
    const firstMs = windowStart(Date.now() - 20 * 86_400_000, 3600);
    /** Lines of an hour of a day long ago, some of them equal. */
    const linesOf = (hour: number, count: number): string[] =>
      Array.from({ length: count }, (_, at) =>
        sample.lines[at]!.replace(
          /"ts":[\d.]+/,
          `"ts":${(firstMs + hour * hourMs + Math.floor(at / 2) * 1000) / 1000}`,
        ).replace(/"uri":"[^"]*"/, `"uri":"/${Math.floor(at / 3)}"`),
      );
    const [old, more] = [
      [...linesOf(0, 300), ...linesOf(1, 200)],
      [...linesOf(1, 260).slice(200), ...linesOf(2, 40)],
    ];
    await writeFile(join(place.folder, 'access.log'), `${old.join('\n')}\n`);
    t.deepEqual((await importFiles(place, ['access.log'])).counts, { added: 500 });
    await deleteOldRows(place);
    const once = await dayTotals(place);
    t.is(once, 500);

    const dry = await importFiles(place, ['--dry-run', 'access.log']);
    t.deepEqual(dry.counts, { 'would be added': 0, 'already there': 500 }, dry.stdout);
    t.deepEqual((await importFiles(place, ['access.log'])).counts, { added: 0, 'already there': 500 });
    await writeFile(join(place.folder, 'access-rotated.log.gz'), gzipSync([...old, ...more, ''].join('\n')));
    t.deepEqual((await importFiles(place, ['access-rotated.log.gz'])).counts, { added: 100, 'already there': 500 });
    await deleteOldRows(place);
    t.is(await dayTotals(place), 600);
    t.deepEqual((await importFiles(place, ['access.log', 'access-rotated.log.gz'])).counts, {
      added: 0,
      'already there': 1100,
    });

    // Nobody can tell which requests of an hour came in over the socket, once their rows are deleted.
    const collector = await place.startCollector();
    await sendTcp(
      place.port,
      Buffer.from(
        linesOf(5, 30)
          .map((line) => `${line}\n`)
          .join(''),
      ),
      [65_536],
    );
    await until('they are stored', async () => (await readLedger(place.http)).stored === 30);
    t.is(await collector.stop(), 0);
    await deleteOldRows(place);
    await writeFile(join(place.folder, 'mixed.log'), [...linesOf(5, 50), ...linesOf(7, 20), ''].join('\n'));
    const mixed = await importFiles(place, ['mixed.log']);
    t.deepEqual([mixed.status, mixed.counts], [1, { added: 20, skipped: 50 }]);
    t.regex(mixed.stdout, /50 of the requests were skipped: .*RETENTION_REQUESTS.*add them with --force\./s);
    t.is(await dayTotals(place), 650);
    await writeFile(join(place.folder, 'missed.log'), [...linesOf(5, 50).slice(30), ''].join('\n'));
    t.deepEqual((await importFiles(place, ['--force', 'missed.log'])).counts, { added: 20 });
    await deleteOldRows(place);
    t.deepEqual(
      (await importFiles(place, ['--force', 'missed.log'])).counts,
      { added: 0, 'already there': 20 },
      'what was imported is remembered, forced or not',
    );
    t.is(await dayTotals(place), 670);
  },
);

scenario('an import is taken back whole, and nothing else', async (t, place) => {
  const [first, second] = [sample.lines.slice(0, 4000), sample.lines.slice(2000, 6000)];
  t.deepEqual((await importFiles(place, ['-'], Buffer.from(first.join('\n')))).counts, { added: 4000 });
  const before = await totalsOf(place);
  t.deepEqual((await importFiles(place, ['-'], Buffer.from(second.join('\n')))).counts, {
    added: 2000,
    'already there': 2000,
  });
  const ids = (text: string): string[] =>
    Array.from(text.matchAll(/^(\S+Z) {2}([\d,]+) requests/gm), ([, id, count]) => `${id} ${count}`);
  const listed = ids((await importFiles(place, ['--list'])).stdout);
  t.deepEqual(
    listed.map((each) => each.split(' ')[1]),
    ['4,000', '2,000'],
  );
  const undone = await importFiles(place, ['--undo', listed[1]!.split(' ')[0]!]);
  t.is(undone.status, 0, undone.stderr);
  t.regex(undone.stdout, /Removed 2,000 requests/);
  const { levels: levelsBefore, ...rest } = before;
  const { levels: levelsAfter, ...restAfter } = await totalsOf(place);
  t.deepEqual(restAfter, rest);
  const aggregatesOf = (totals: Totals['levels']): string[][] =>
    totals.map(({ aggregates }) => aggregates.filter((aggregate) => !/ 0 0 0 \S*$/.test(aggregate)));
  t.deepEqual(
    levelsAfter.map(({ count }) => count),
    levelsBefore.map(({ count }) => count),
  );
  t.deepEqual(aggregatesOf(levelsAfter), aggregatesOf(levelsBefore));
  const again = await importFiles(place, ['--undo', listed[1]!.split(' ')[0]!]);
  t.is(again.status, 1);
  t.regex(again.stderr, /has no import .*import --list/);
  t.deepEqual(
    (await importFiles(place, ['-'], Buffer.from(second.join('\n')))).counts,
    { added: 2000, 'already there': 2000 },
    'it can be imported again',
  );
});

test.serial('an import is taken back through the running program, which shows it at once', async (t) => {
  const place = await embedded(t);
  const collector = await place.startCollector();
  t.deepEqual((await importFiles(place, [samplePath])).counts, { added: 50_000 });
  t.is(await storedRequests(place), 50_000);
  const [id] = (await importFiles(place, ['--list'])).stdout.split(' ');
  const undone = await importFiles(place, ['--undo', id!]);
  t.deepEqual([undone.status, undone.stdout], [0, `Removed 50,000 requests of the import ${id!}.\n`], undone.stderr);
  t.is(await storedRequests(place), 0);
  t.is(await collector.stop(), 0);
});

scenario('with a part of the requests kept, importing a file twice counts each request once', async (t, place) => {
  const sampled = { ...place, settings: { ...place.settings, SAMPLE_RATIO: '0.1' } };
  const first = await importFiles(sampled, [samplePath]);
  t.is(first.status, 0, first.stderr);
  t.deepEqual(first.counts, { added: 50_000 });
  const once = await totalsOf(place);
  t.true(once.requests > 4500 && once.requests < 5500, `${once.requests} are kept one by one`);
  for (const { count } of once.levels) t.is(count, 50_000);

  const second = await importFiles(place, [samplePath]);
  t.deepEqual([second.status, second.counts], [0, { added: 0, 'already there': 50_000 }]);
  t.deepEqual(await totalsOf(place), once);
});

scenario(
  'of a file whose requests partly came in over the socket, the others are added, while the collector runs.',
  async (t, place) => {
    const collector = await place.startCollector();
    // Every third line, and a block of them, so that batches are known in part, whole and not at all.
    const sent = sample.lines.filter((_, at) => at % 3 === 0 || (at > 12_000 && at < 20_000));
    await sendTcp(place.port, Buffer.from(sent.map((line) => `${line}\n`).join('')), [65_536]);
    await until('the lines are stored', async () => (await readLedger(place.http)).stored === sent.length);

    const tried = await importFiles(place, ['--dry-run', samplePath]);
    t.deepEqual(tried.counts, { 'would be added': 50_000 - sent.length, 'already there': sent.length }, tried.stderr);
    const imported = await importFiles(place, [samplePath]);
    t.is(imported.status, 0, imported.stderr);
    t.deepEqual(imported.counts, { added: 50_000 - sent.length, 'already there': sent.length });
    t.deepEqual((await importFiles(place, [samplePath])).counts, { added: 0, 'already there': 50_000 });
    t.is(
      (await readLedger(place.http)).received,
      sent.length,
      "the ledger counts what came over the collector's sockets",
    );
    t.is(await collector.stop(), 0);

    const { requests, statuses, sizeSum, levels: totals } = await totalsOf(place);
    t.is(requests, 50_000);
    t.deepEqual(statuses, sample.statuses);
    t.is(sizeSum, sample.sizeSum);
    for (const { count } of totals) t.is(count, 50_000);
  },
);

scenario(
  'what Caddy wrote to stderr while the collector was down fills the hole exactly.',
  async (t, place) => {
    const [site] = (await freePorts(1)) as [number];
    const caddy = await startCaddy(`{
    auto_https off
  }
  http://site.test:${site} {
    ${logTo(`tcp/127.0.0.1:${place.port}`)}
    respond / ok
    respond /missing 404
    reverse_proxy /dead 127.0.0.1:1
  }`);
    const stderrFile = join(place.folder, 'caddy-stderr');
    const importStderr = async () => {
      await writeFile(stderrFile, caddy.stderr());
      return await importFiles(place, [stderrFile]);
    };
    try {
      let visits = 0;
      const visitAll = async () => {
        for (const path of ['/', '/missing', '/dead']) t.true((await visit(site, path)) > 0);
        visits += 3;
      };
      for (let at = 0; at < 10; at += 1) await visitAll();
      await until(
        'Caddy has written its last line',
        () => caddy.stderr().split('"handled request"').length - 1 === visits,
      );
      const during = await importStderr();
      t.is(during.status, 0, during.stderr);
      t.is(during.counts['added'], 30);
      t.true(during.counts['not requests']! > 5, "Caddy's own log, with an error for each 502");

      const collector = await place.startCollector();
      await until(
        'Caddy has found the collector',
        async () => {
          await visitAll();
          return (await readLedger(place.http)).stored > 0;
        },
        { pollMs: 200 },
      );
      const overSocket = await until('all lines have come', async () => {
        const { stored } = await readLedger(place.http);
        return stored + caddy.stderr().split('"handled request"').length - 1 === visits && stored;
      });
      const after = await importStderr();
      t.is(after.status, 0, after.stderr);
      t.is(after.counts['already there'], 30);
      t.is(after.counts['added'], visits - 30 - overSocket);
      t.is(await collector.stop(), 0);
      const { requests, statuses } = await totalsOf(place);
      t.is(requests, visits);
      t.deepEqual(statuses, { 200: visits / 3, 404: visits / 3, 502: visits / 3 });
    } finally {
      await caddy.stop();
    }
  },
  testWithCaddy,
);

testWithInfluxd(
  'What InfluxDB refused is in a file of dead letters, and importing that adds it once, there or elsewhere.',
  async (t) => {
    const place = await overInfluxdb(t);
    const { setRetention } = await influxd();
    const bucket = place.settings['INFLUXDB_BUCKET']!;
    await setRetention(bucket, 30 * 3600); // the total of a day begins up to a day before
    const collector = await place.startCollector();
    const old = sample.lines
      .slice(0, 40)
      .map((line) => line.replace(/"ts":(\d+)/, (_, seconds: string) => `"ts":${Number(seconds) - 3 * 86_400}`));
    await sendTcp(
      place.port,
      Buffer.from([...old, ...sample.lines.slice(40, 100)].map((line) => `${line}\n`).join('')),
      [65_536],
    );
    await until(
      'all are settled',
      async () => (await readLedger(place.http)).stored === 60 && (await readLedger(place.http)).dead_lettered === 40,
    );
    t.is((await totalsOf(place)).requests, 60);

    const folder = join(place.folder, 'data/spool/dead-letters');
    const [name, ...others] = await readdir(folder);
    t.deepEqual(others, []);
    const letters = join('data/spool/dead-letters', name!);
    await setRetention(bucket, 0);
    const imported = await importFiles(place, [letters]);
    t.is(imported.status, 0, imported.stderr);
    t.is(imported.counts['added'], 40);
    t.is(imported.counts['rejected'], undefined, 'its comments and totals are known for what they are');
    const again = await importFiles(place, [letters]);
    t.deepEqual([again.counts['added'], again.counts['already there']], [0, 40]);
    t.is(await collector.stop(), 0);
    const { requests, levels: totals } = await totalsOf(place);
    t.is(requests, 100);
    t.deepEqual(
      totals.map(({ count }) => count),
      levels.map((level) => (level === 10 ? 60 : 100)),
      'those of 10 s are too old for the 40 requests of three days ago',
    );

    const elsewhere = await embedded(t);
    t.is((await importFiles(elsewhere, [join(folder, name!)])).counts['added'], 40);
    t.is((await totalsOf(elsewhere)).requests, 40);
  },
);

test.serial('A dry run says what would be added, and makes nothing.', async (t) => {
  const place = await embedded(t);
  const { status, counts, stdout } = await importFiles(place, ['--dry-run', samplePath]);
  t.is(status, 0);
  t.deepEqual(counts, { 'would be added': 50_000 });
  t.regex(stdout, /wrote nothing/);
  t.is((await importFiles(place, [samplePath])).counts['added'], 50_000);
});

test.serial(
  'Requests with the longest targets, more of them than a recorder holds at once, are all imported.',
  async (t) => {
    const place = await embedded(t);
    const lines = Array.from({ length: 10_000 }, (_, at) =>
      sample.lines[at]!.replace(/"uri":"[^"]*"/, () => `"uri":"/${'a'.repeat(8000)}${at}"`),
    );
    const { counts, stderr } = await importFiles(place, ['-'], Buffer.from(lines.join('\n')));
    t.deepEqual(counts, { added: 10_000 }, stderr);
  },
);

test.serial(
  'Of a file that goes back in time, what it holds once more is found, whatever else is between.',
  async (t) => {
    const place = await embedded(t);
    const again = [...sample.lines.slice(0, 12_000), ...sample.lines.slice(-3000)];
    const later = [...shiftedSample(500, { startMs: Date.now() - 3_600_000, endMs: Date.now() - 60_000 })]
      .join('')
      .trimEnd()
      .split('\n');
    await writeFile(
      join(place.folder, 'twice.log'),
      [...sample.lines, ...again, ...later, ...sample.lines.slice(20_000, 21_000), ''].join('\n'),
    );
    const { counts } = await importFiles(place, ['twice.log']);
    t.deepEqual(counts, { added: 50_500, 'already there': 16_000 });
    const { requests, levels: totals } = await totalsOf(place);
    t.is(requests, 50_500);
    for (const { count } of totals) t.is(count, 50_500);
  },
);

test.serial('Standard input is imported, packed or not, with lines of others counted by reason.', async (t) => {
  const place = await embedded(t);
  const lines = sample.lines.slice(0, 100);
  const mixed = [
    'Nov 23 20:00:00 host caddy[1]: started',
    '',
    ...lines.slice(0, 50).map((line) => `<6>${line}`),
    '{"a":1}',
    '{"level":"info","ts":1795461349.1,"logger":"tls","msg":"cleaning storage unit"}',
    lines[0]!.slice(0, 80),
    ...lines.slice(50),
  ].join('\n'); // the last line has no ending
  const plain = await importFiles(place, ['-'], Buffer.from(mixed));
  t.is(plain.status, 0, plain.stderr);
  t.deepEqual(plain.counts, { added: 100, 'not requests': 1, rejected: 3 });
  t.regex(plain.stdout, /rejected +2 {2}not-json/);
  t.regex(plain.stdout, /rejected +1 {2}not-caddy/);
  t.deepEqual((await importFiles(place, ['-'], gzipSync(mixed))).counts, {
    added: 0,
    'already there': 100,
    'not requests': 1,
    rejected: 3,
  });
});

test.serial('A line without a usable time is rejected, never given the time of arrival.', async (t) => {
  const place = await embedded(t);
  const { counts, stdout } = await importFiles(
    place,
    ['-'],
    Buffer.from(sample.lines[0]!.replace(/"ts":[\d.]+/, '"ts":"sometime"')),
  );
  t.deepEqual(counts, { added: 0, rejected: 1 });
  t.regex(stdout, /rejected +1 {2}bad-time/);
});

test.serial(
  'rejects the same times from a file as over a socket: more than a day ahead, and older than RETENTION_ROLLUPS',
  async (t) => {
    const plain = await embedded(t);
    const place = { ...plain, settings: { ...plain.settings, RETENTION_REQUESTS: '7d', RETENTION_ROLLUPS: '30d' } };
    const nowSeconds = Math.floor(Date.now() / 1000);
    const times = [
      0,
      946_684_800,
      nowSeconds - 31 * 86_400,
      nowSeconds - 29 * 86_400,
      nowSeconds - 60,
      nowSeconds + 3600,
      nowSeconds + 90_000,
      4_102_444_800,
    ];
    const text = times.map((time) => `${sample.lines[0]!.replace(/"ts":[\d.]+/, `"ts":${time}.5`)}\n`).join('');
    const { counts, stdout } = await importFiles(place, ['-'], Buffer.from(text));
    t.deepEqual(counts, { added: 3, rejected: 5 });
    t.regex(
      stdout,
      /rejected +5 {2}bad-time\n[^]*5 requests were rejected as bad-time: their time is older than RETENTION_ROLLUPS, is more than a day ahead, or cannot be read/,
    );

    const other = await embedded(t);
    const collector = await startProgram(
      ['start'],
      {
        ...other.settings,
        RETENTION_REQUESTS: '7d',
        RETENTION_ROLLUPS: '30d',
        COLLECTOR_LISTEN: `tcp://127.0.0.1:${other.port}`,
        WEB_LISTEN: '127.0.0.1:0',
      },
      [`http://127.0.0.1:${other.http}/ready`],
      { cwd: other.folder },
    );
    await sendTcp(other.port, Buffer.from(text), [65_536]);
    await until('all have come', async () => (await readLedger(other.http)).received === times.length);
    t.like(await readLedger(other.http), { accepted: 3, rejected: { 'bad-time': 5 } });
    await until('it has started', () => collector.stdout().includes('Dashboard'));
    t.is(await collector.stop(), 0);
  },
);

test.serial(
  'Files that cannot be read are named with the reason, and what was read of them and of the others counts.',
  async (t) => {
    const place = await embedded(t);
    const packed = packedSample;
    const file = async (name: string, bytes: Buffer): Promise<string> => {
      await writeFile(join(place.folder, name), bytes);
      return name;
    };
    const cut = await file('cut.gz', packed.subarray(0, packed.length / 2));
    const damaged = await file(
      'damaged.gz',
      Buffer.concat([packed.subarray(0, packed.length / 2), Buffer.alloc(1000), packed.subarray(packed.length / 2)]),
    );
    const zstd = await file('log.zst', Buffer.from('28b52ffd2000', 'hex'));
    const good = await file('good.log', Buffer.from(`${sample.lines.slice(-10).join('\n')}\n`));
    const { status, counts, stdout } = await importFiles(place, [cut, damaged, zstd, 'missing.log', '.', good]);
    t.is(status, 1);
    t.true(counts['added']! > 24_000 && counts['added']! < 26_500, `${counts['added']} were before the damage`);
    t.true(counts['already there']! > 24_000);
    for (const problem of [
      /Problem: cut\.gz: .*its end is missing/,
      /Problem: damaged\.gz: it is damaged/,
      /Problem: log\.zst: /,
      /Problem: missing\.log: .*no such file/,
      /Problem: \.: .*it is a folder/,
    ])
      t.regex(stdout, problem);
    const again = await importFiles(place, [good]);
    t.deepEqual([again.status, again.counts], [0, { added: 0, 'already there': 10 }]);
  },
);

test.serial(
  'Of a packed file with something else behind it, every line is imported, and the damage is said.',
  async (t) => {
    const place = await embedded(t);
    const damaged = await importFiles(place, ['-'], Buffer.concat([packedSample, Buffer.from('something else\n')]));
    t.is(damaged.status, 1);
    t.deepEqual(damaged.counts, { added: 50_000 });
    t.regex(
      damaged.stdout,
      /Problem: standard input: it is damaged at byte [\d,]+ \(incorrect header check\); everything before it was read\./,
    );
    const padded = await importFiles(place, ['-'], Buffer.concat([packedSample, Buffer.alloc(10_240)]));
    t.deepEqual([padded.status, padded.counts], [0, { added: 0, 'already there': 50_000 }]);
  },
);

test.serial('What is no log, or not there, is named, with status 1.', async (t) => {
  const place = await embedded(t);
  const random = await importFiles(place, ['-'], Buffer.concat([Buffer.from('random\n'), randomBytes(100_000)]));
  t.is(random.status, 1);
  t.regex(random.stdout, /Problem: standard input: no line of it is a log line of Caddy\. Is it the right file/);
  const missing = await importFiles(place, ['no\u001b[31mne.log']);
  t.is(missing.status, 1);
  t.is(missing.stdout, 'Imported nothing.\nProblem: no\\u001b[31mne.log: it cannot be read: there is no such file.\n');
  await writeFile(join(place.folder, 'empty.log'), '');
  const empty = await importFiles(place, ['empty.log']);
  t.deepEqual([empty.status, empty.counts], [0, { added: 0 }]);
  t.regex(empty.stdout, /Imported 0 lines of 1 file /);
});

for (const through of ['the store', 'a running program']) {
  test.serial(
    `Ctrl-C ends an import through ${through} with status 1, and does not count the line that it cuts.`,
    async (t) => {
      const place = await embedded(t);
      const collector = through === 'the store' ? undefined : await place.startCollector();
      const stdin = new PassThrough();
      const program = await runProgram(['import', '-'], place.settings, { cwd: place.folder, stdin });
      stdin.write(`${sample.lines.slice(0, 12_000).join('\n')}\n${sample.lines[12_000]!.slice(0, 100)}`); // and the end does not come
      await until('a part of it is imported', () => /1[02],000 lines/.test(program.stderr()));
      t.is(await program.stop('SIGINT'), 1);
      t.regex(program.stdout(), /Problem: standard input: it was stopped before its end\./);
      t.regex(program.stdout(), /Imported 12,000 lines of 1 file/);
      t.notRegex(program.stdout(), /rejected/);
      if (collector !== undefined) t.is(await collector.stop(), 0);
      t.is((await totalsOf(place)).requests, 12_000);
    },
  );
}

test.serial(
  'An import through a running program that is stopped again and again adds each request once.',
  async (t) => {
    const place = await embedded(t);
    const collector = await place.startCollector();
    const log = join(place.folder, 'access.log');
    const part = sample.lines.slice(0, 24_000);
    await writeFile(log, `${part.join('\n')}\n`);
    // The rounds stop at moments from before the import begins to after it has ended.
    for (let round = 0; round < 10; round += 1) {
      const program = await runProgram(['import', log], place.settings, { cwd: place.folder });
      let over = false;
      void program.ended.then(() => {
        over = true;
      });
      const stored = Math.floor((round * part.length) / 8);
      if (round > 0)
        await until(
          `more than ${stored} requests are stored, or the import is over`,
          async () => over || (await storedRequests(place)) > stored,
        );
      const stoppedMs = performance.now();
      const status = await program.stop(round % 2 === 0 ? 'SIGTERM' : 'SIGINT');
      t.true(performance.now() - stoppedMs < 10_000, 'a stopped import ends within 10 s');
      if (status === 1) t.regex(program.stdout(), /[Rr]un the same command again/, program.stdout());
      else t.true(status === 0 || status === 'SIGTERM' || status === 'SIGINT', String(status)); // it had ended, or had not begun to listen for signals
    }
    t.is((await importFiles(place, [log])).status, 0);
    t.deepEqual((await importFiles(place, [log])).counts, { added: 0, 'already there': part.length });
    t.is(await collector.stop(), 0);
    const { requests, levels: totals } = await totalsOf(place, { source: 'caddy' }); // the page's own requests are of the app
    t.is(requests, part.length);
    for (const { count } of totals) t.is(count, part.length);
  },
);

test.serial(
  'A program that is stopped ends an import through it, which says what was added and what to do, whether or not more lines come.',
  async (t) => {
    const place = await embedded(t);
    const collector = await place.startCollector();
    const program = await importBeginning(place);
    t.is(await collector.stop(), 0);
    t.is(await program.ended, 1);
    t.regex(
      program.stdout(),
      /Problem: standard input: the running program was stopped before the end of the file\.\n/,
    );
    t.regex(
      program.stdout(),
      /The import did not finish: 12,000 requests have been added so far\. Solve the problem above, then run the same command again to add the rest: nothing is counted twice\.\n/,
    );
    t.is((await totalsOf(place)).requests, 12_000);
  },
);

test.serial('A stopped import does not wait for a running program that hangs.', async (t) => {
  const place = await embedded(t);
  const collector = await place.startCollector();
  const program = await importBeginning(place);
  process.kill(collector.pid, 'SIGSTOP');
  const stoppedMs = performance.now();
  t.is(await program.stop(), 1);
  t.true(performance.now() - stoppedMs < 10_000, 'a stopped import ends within 10 s');
  process.kill(collector.pid, 'SIGCONT');
  t.regex(
    program.stdout(),
    /the running program had not confirmed everything that was sent.*\n.*Run the same command again/s,
  );
  // The lines that were sent are imported all the same: the next import waits for them.
  t.deepEqual((await importFiles(place, [samplePath])).counts, { added: 38_000, 'already there': 12_000 });
  t.is(await collector.stop(), 0);
});

testWithInfluxd(
  'An import that is stopped while InfluxDB does not answer ends within 10 s, and says what to do.',
  async (t) => {
    const place = await overInfluxdb(t);
    const proxy = await startProxy(place.settings['INFLUXDB_URL']!);
    t.teardown(() => proxy.stop());
    proxy.act = () => 'hang';
    const program = await runProgram(
      ['import', samplePath],
      { ...place.settings, INFLUXDB_URL: proxy.url },
      { cwd: place.folder },
    );
    await until('a write is under way', () => proxy.writes > 0);
    const stoppedMs = performance.now();
    t.is(await program.stop(), 1);
    t.true(performance.now() - stoppedMs < 10_000, 'a stopped import ends within 10 s');
    t.regex(
      program.stdout(),
      /The import did not finish: 0 requests have been added so far\. Run the same command again/,
    );
  },
);

test.serial('An import that nobody listens to goes on.', async (t) => {
  const place = await embedded(t);
  const program = await runProgram(['import', samplePath], place.settings, { cwd: place.folder });
  program.hangUp();
  t.is(await program.ended, 0);
  t.is((await totalsOf(place)).requests, 50_000);
});

test.serial('Of an import that is killed, the running program keeps what came, and says so.', async (t) => {
  const place = await embedded(t);
  const collector = await place.startCollector();
  const program = await importBeginning(place);
  t.is(await program.stop('SIGKILL'), 'SIGKILL');
  await until('the program knows', () => collector.stderr().includes('Imported a file.'));
  t.regex(collector.stderr(), /Imported a file\. added=12000 known=0 problem="the client disconnected \(aborted\)"/);
  t.notRegex(collector.stderr(), / error /);
  t.deepEqual((await importFiles(place, [samplePath])).counts, { added: 38_000, 'already there': 12_000 });
  t.is(await collector.stop(), 0);
});

test.serial(
  'Of an import of more than DuckDB packs at once, killed in the middle, what is there is whole, and the next one adds the rest.',
  async (t) => {
    const place = await embedded(t);
    const endMs = Date.now() - 3_600_000;
    const lines = [...shiftedSample(150_000, { startMs: endMs - 3_600_000, endMs })];
    const stdin = new PassThrough();
    const program = await runProgram(['import', '-'], place.settings, { cwd: place.folder, stdin });
    for (const part of lines.slice(0, 70)) if (!stdin.write(part)) await once(stdin, 'drain');
    await until('a row group is written', () =>
      stat(join(place.folder, 'data/requests.duckdb')).then(
        ({ size }) => size > 2 ** 20,
        () => false,
      ),
    );
    t.is(await program.stop('SIGKILL'), 'SIGKILL');

    const log = join(place.folder, 'access.log');
    await writeFile(log, lines.join(''));
    const { status, stderr } = await importFiles(place, [log]);
    t.is(status, 0, stderr);
    const totals = await totalsOf(place);
    t.is(totals.requests, 150_000);
    t.deepEqual(
      totals.statuses,
      Object.fromEntries(Object.entries(sample.statuses).map(([each, count]) => [each, 3 * count])),
    );
    t.is(totals.sizeSum, 3 * sample.sizeSum);
    for (const { count } of totals.levels) t.is(count, 150_000);
  },
);

testWithCaddy(
  'A file that takes the lines of the logger that writes to the sink adds nothing to what came over a unix socket.',
  async (t) => {
    const place = await embedded(t);
    const [socket, file] = [join(place.folder, 'sink.sock'), join(place.folder, 'access.log')];
    const collector = await startProgram(
      ['start'],
      {
        ...place.settings,
        COLLECTOR_LISTEN: `unix://${socket}`,
        WEB_LISTEN: `127.0.0.1:${await freePort()}`,
      },
      [`http://127.0.0.1:${place.http}/ready`],
      { cwd: place.folder },
    );
    const site = await freePort();
    const caddy = await startCaddy(`{
    log file {
      output file ${file}
      include http.log.access.sink
    }
  }
  http://site.test:${site} {
    ${logTo(`unix/${socket}`, 'sink')}
    respond ok
  }`);
    t.teardown(caddy.stop);
    for (let at = 0; at < 20; at += 1) t.is(await visit(site, `/${at}`), 200);
    await until('the lines are stored', async () => (await readLedger(place.http)).stored === 20);
    const { counts, status, stderr } = await importFiles(place, [file]);
    t.is(status, 0, stderr);
    t.deepEqual(counts, { added: 0, 'already there': 20 });
    t.is(await collector.stop(), 0);
  },
);

test.serial('Without the collector of the program that has the file open, the message says what to do.', async (t) => {
  const place = await embedded(t);
  const collector = await place.startCollector();
  const elsewhere = await importFiles(
    { ...place, settings: { ...place.settings, COLLECTOR_HTTP: `127.0.0.1:${await freePort()}` } },
    [samplePath],
  );
  t.is(elsewhere.status, 1);
  t.regex(elsewhere.stdout, /is open in another program.*Set COLLECTOR_HTTP.*or stop the program/s);
  const off = await importFiles({ ...place, settings: { ...place.settings, COLLECTOR_HTTP: 'off' } }, [samplePath]);
  t.is(off.status, 1);
  t.regex(off.stderr, /COLLECTOR_HTTP is off/);
  await collector.stop();
});

test.serial('Without files the usage is said, with status 2.', async (t) => {
  const place = await embedded(t);
  const { status, stderr } = await importFiles(place, []);
  t.is(status, 2);
  t.regex(stderr, /Name the files to import/);
});

test.serial(
  'Files are imported in the order of their requests, so that a day of logs makes one row for each window and series.',
  async (t) => {
    const place = await embedded(t);
    const count = 72_000;
    const startMs = windowStart(Date.now() - 3_600_000, 10) + 5000 - 86_400_000; // so that each file ends in the middle of a window
    const [before, behind] = sample.lines[0]!.split(/(?<="ts":)[\d.]+/) as [string, string];
    const lines = Array.from(
      { length: count },
      (_, at) =>
        `${before}${(startMs + (at * 86_400_000) / count) / 1000}${behind.replace(/"status":\d+/, `"status":${200 + (at % 3)}`)}\n`,
    );
    const names = ['access.log', 'access-2026-11-23T10-00-00.000.log.gz', 'access-2026-11-22T10-00-00.000.log'];
    const third = count / 3;
    for (const [at, name] of names.entries()) {
      const text = lines.slice((2 - at) * third, (3 - at) * third).join('');
      await writeFile(join(place.folder, name), name.endsWith('.gz') ? gzipSync(text) : text);
    }
    const { status, counts, stderr } = await importFiles(place, names);
    t.is(status, 0, stderr);
    t.deepEqual(counts, { added: count });
    // A window that was at the age where a finer level ends has a row from each side of it.
    for (const { level, rows, windows } of (await foldedTotalsOf(place)).levels)
      t.true(rows === windows || rows === windows + 1, `level ${level}: ${rows} rows of ${windows} windows`);
  },
);

test.serial(
  'POST /import refuses web pages, other types and a second import, and takes the first whole.',
  async (t) => {
    const place = await embedded(t);
    const collector = await place.startCollector();
    const ndjson = { 'content-type': 'application/x-ndjson' };
    t.is((await post(place, { headers: { ...ndjson, origin: 'http://evil.example' } })).status, 403);
    t.is((await post(place, { headers: { ...ndjson, 'sec-fetch-site': 'cross-site' } })).status, 403);
    t.is((await post(place, { headers: { 'content-type': 'text/plain' } })).status, 415);
    const other = await post(place, { headers: ndjson, query: '?store=/other.duckdb' });
    t.is(other.status, 409);
    t.regex(other.text, /not to \/other\.duckdb/);
    const elsewhere = await post(place, { headers: ndjson, query: '?COLLECTOR_TIME_ZONE=Europe/Berlin' });
    t.is(elsewhere.status, 409);
    t.regex(elsewhere.text, /its COLLECTOR_TIME_ZONE is UTC, not Europe\/Berlin/);

    let refused: Promise<{ status: number; text: string }> | undefined;
    const first = await post(place, {
      headers: ndjson,
      body: sample.lines.slice(0, 10).map((line) => `${line}\n`),
      async beforeEnd() {
        refused = post(place, { headers: ndjson });
        await refused;
      },
    });
    const second = await refused!;
    t.is(second.status, 409);
    t.regex(second.text, /Another import is running/);
    t.is(first.status, 200);
    t.like(JSON.parse(first.text.trim().split('\n').at(-1)!), { done: true, counts: { added: 10, known: 0 } });
    t.is(await collector.stop(), 0);
  },
);

test.serial('A collector that stops ends an import, and keeps what it has read.', async (t) => {
  const place = await embedded(t);
  const collector = await place.startCollector();
  let stopped: Promise<unknown> | undefined;
  // The end of the body never comes.
  const { text } = await post(place, {
    headers: { 'content-type': 'application/x-ndjson' },
    body: sample.lines.slice(0, 12_000).map((line) => `${line}\n`),
    onAnswer(soFar) {
      if (soFar.includes('"added":10000')) stopped ??= collector.stop();
    },
  });
  t.is(await stopped, 0);
  const { counts, problem } = JSON.parse(text.trim().split('\n').at(-1)!) as {
    counts: { added: number };
    problem: string;
  };
  t.regex(problem, /stopped before its end/);
  t.is((await totalsOf(place)).requests, counts.added);
  t.true(counts.added >= 10_000 && counts.added <= 12_000);
});

/** Declares a test over each store. */
function scenario(
  title: string,
  run: (t: ExecutionContext, place: Place) => Promise<void>,
  needs?: typeof testWithCaddy,
): void {
  const declare: typeof testWithCaddy = needs ?? test.serial;
  declare(`DuckDB: ${title}`, async (t) => {
    await run(t, await embedded(t));
  });
  const both = needs !== undefined && (needs as unknown) === test.skip ? needs : testWithInfluxd;
  both(`InfluxDB: ${title}`, async (t) => {
    await run(t, await overInfluxdb(t));
  });
}

/**
 * Starts an import of standard input that is given 12,000 lines and no end; resolves when a part of them is imported.
 */
async function importBeginning(place: Place): ReturnType<typeof runProgram> {
  const stdin = new PassThrough();
  const program = await runProgram(['import', '-'], place.settings, { cwd: place.folder, stdin });
  stdin.write(
    sample.lines
      .slice(0, 12_000)
      .map((line) => `${line}\n`)
      .join(''),
  );
  await until('a part of it is imported', () => program.stderr().includes('10,000 lines'));
  return program;
}

async function embedded(t: ExecutionContext): Promise<Place> {
  const folder = await folderOf(t);
  const [port, http, web] = (await freePorts(3)) as [number, number, number];
  const settings = { COLLECTOR_HTTP: `127.0.0.1:${http}`, COLLECTOR_ID: 'tested', RETENTION_REQUESTS: '3650d' };
  const serving = { ...settings, COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}`, WEB_LISTEN: `127.0.0.1:${web}` };
  return {
    settings,
    folder,
    port,
    http,
    web,
    startCollector: () => startProgram(['start'], serving, [`http://127.0.0.1:${http}/ready`], { cwd: folder }),
  };
}

async function overInfluxdb(t: ExecutionContext): Promise<Place> {
  const folder = await folderOf(t);
  const { url, org, token, createBucket } = await influxd();
  const [port, http] = (await freePorts(2)) as [number, number];
  const settings = {
    STORE: 'influxdb',
    INFLUXDB_URL: url,
    INFLUXDB_ORG: org,
    INFLUXDB_BUCKET: await createBucket(),
    INFLUXDB_TOKEN: token,
    COLLECTOR_HTTP: `127.0.0.1:${http}`,
    COLLECTOR_ID: 'tested',
  };
  return {
    settings,
    folder,
    port,
    http,
    startCollector: () =>
      startProgram(
        ['collector'],
        { ...settings, COLLECTOR_LISTEN: `tcp://127.0.0.1:${port}` },
        [`http://127.0.0.1:${http}/ready`],
        { cwd: folder },
      ),
  };
}

/** Deletes the rows of requests that are older than an hour, as the program does from time to time. */
async function deleteOldRows(place: Place): Promise<void> {
  const settings = {
    STORE: `duckdb:${join(place.folder, 'data/requests.duckdb')}`,
    ...place.settings,
    SPOOL_DIR: join(place.folder, 'spool-of-web'),
    RETENTION_REQUESTS: '1h',
    RETENTION_DELAY: '0s',
  };
  const store = await openStore(storeSettingsFrom(readSettings(storeSettings, settings)), {
    log: createLog('test'),
    keepsHouse: true,
  });
  try {
    await until(
      'the rows are deleted',
      async () =>
        (await store.readRequests({ fromMs: Date.UTC(2026, 0), toMs: Date.now() - 3_600_000, filter: {}, limit: 1 }))
          .length === 0,
    );
  } finally {
    await store.close();
  }
}

/** Requests of the log in the rollups by day. */
async function dayTotals(place: Place): Promise<number> {
  const { levels: totals } = await totalsOf(place, { source: 'caddy' });
  return totals.find(({ level }) => level === 86_400)!.count;
}

/** Runs the import; `counts` are the numbers of its summary, by their names. */
async function importFiles({ settings, folder }: Place, args: readonly string[], stdin?: Buffer) {
  const program = await runProgram(['import', ...args], settings, { cwd: folder, ...(stdin && { stdin }) });
  const status = await program.ended;
  const counts: Record<string, number> = {};
  for (const [, name, count] of program.stdout().matchAll(/^ {2}(\S+(?: \S+)*) +([\d,]+) {2}/gm))
    counts[name!] = (counts[name!] ?? 0) + Number(count!.replaceAll(',', ''));
  return { status, counts, stdout: program.stdout(), stderr: program.stderr() };
}

interface Totals {
  readonly requests: number;
  readonly statuses: Record<string, number>;
  readonly sizeSum: number;
  /** Of each level: all rows, the windows and series that they belong to, and their sums with the histograms. */
  readonly levels: { level: number; rows: number; windows: number; count: number; aggregates: string[] }[];
}

/** All that the store holds; the program must not run where the store is embedded. */
async function totalsOf({ settings, folder }: Place, filter: Filter = {}): Promise<Totals> {
  const STORE = `duckdb:${join(folder, 'data/requests.duckdb')}`;
  // Reading 50,000 whole requests from InfluxDB takes longer than the 15 s of the program on a busy machine.
  const slow = { ...storeSettingsFrom(readSettings(storeSettings, { STORE, ...settings })), timeoutMs: 120_000 };
  const store = await openStore(slow, { log: createLog('test') });
  try {
    return await readTotals(store, filter);
  } finally {
    await store.close();
  }
}

/** The same of an embedded store, once all windows are closed and folded into coarser ones. */
async function foldedTotalsOf({ folder }: Place): Promise<Totals> {
  const store = await openStore(
    storeSettingsFrom(readSettings(storeSettings, { STORE: `duckdb:${join(folder, 'data/requests.duckdb')}` })),
    { log: createLog('test') },
  );
  try {
    // A batch, since windows are closed before one.
    await store.write({
      recorder: 'tested',
      writer: 'tested',
      sequence: 1,
      requests: [],
      aggregates: [],
      rollups: [],
      topLists: [],
      ledger: undefined,
    });
    return await until('all windows are folded', async () => {
      const totals = await readTotals(store, {});
      return totals.levels.every(({ rows, windows }) => rows <= windows + 1) && totals;
    });
  } finally {
    await store.close();
  }
}

async function readTotals(store: Store, filter: Filter): Promise<Totals> {
  const range = { fromMs: Date.UTC(2026, 0), toMs: Date.now() + 86_400_000, filter };
  const requests = await readAll(store, range);
  const statuses: Record<string, number> = {};
  for (const { status } of requests) statuses[status] = (statuses[status] ?? 0) + 1;
  return {
    requests: requests.length,
    statuses,
    sizeSum: requests.reduce((sum, { size }) => sum + size, 0),
    levels: await Promise.all(
      levels.map(async (level) => {
        const ofScopes = await Promise.all(
          scopes
            .filter((scope) => levelsOf[scope].includes(level) && (scope === 'host' || filter.host === undefined))
            .map((scope) => store.readRollups({ ...range, level, scope })),
        );
        const rows = ofScopes.flat();
        const counts = new Set(ofScopes.map((ofScope) => aggregateOf(ofScope).count));
        // Fine rows of hosts are not kept as long.
        if (counts.size > 1 && level >= 3600)
          throw new Error(
            `Rollups of level ${level} count ${[...counts].join(' and ')} requests, by source and by host.`,
          );
        const aggregates = new Map<string, Aggregate>();
        for (const { windowMs, source, host, cells } of rows) {
          for (const cell of cells) {
            const key = `${windowMs} ${source} ${host === undefined ? 'all' : `host ${host}`} ${cell.method} ${cell.status}`;
            if (!aggregates.has(key)) aggregates.set(key, emptyAggregate());
            mergeAggregate(aggregates.get(key)!, cell);
          }
        }
        return {
          level,
          rows: rows.length,
          windows: new Set(
            rows.map(
              ({ windowMs, source, host }) => `${windowMs} ${source} ${host === undefined ? 'all' : `host ${host}`}`,
            ),
          ).size,
          count: [...counts][0] ?? 0,
          aggregates: [...aggregates]
            .map(
              ([key, { count, sizeSum, durationMaxMs, histogram }]) =>
                `${key} ${count} ${sizeSum} ${durationMaxMs} ${histogram.pack()}`,
            )
            .toSorted(),
        };
      }),
    ),
  };
}

/** All requests, second by second where they are dense: InfluxDB takes long over 50,000 at once. */
async function readAll(store: Store, range: { fromMs: number; toMs: number; filter: object }): Promise<RequestEvent[]> {
  const windows = [
    ...new Set((await store.readRollups({ ...range, level: 60, scope: 'all' })).map(({ windowMs }) => windowMs)),
  ].toSorted((one, other) => one - other);
  if (windows.length > 20) return await store.readRequests({ ...range, limit: 200_000 });
  const requests: RequestEvent[] = [];
  for (const windowMs of windows) {
    for (let fromMs = windowMs; fromMs < windowMs + 60_000; fromMs += 1000)
      requests.push(...(await store.readRequests({ fromMs, toMs: fromMs + 1000, filter: {}, limit: 200_000 })));
  }
  return requests;
}

/** Requests that the running program's store has, by its page's figures; 0 before the page is there. */
async function storedRequests({ web }: Place): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${web}/api/summary?source=caddy&from=now-90d`).catch(() => undefined);
  if (answer?.ok !== true) return 0;
  const { sources } = (await answer.json()) as { sources: Record<string, { requests: number }> };
  return sources['caddy']?.requests ?? 0;
}

function visit(port: number, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    httpRequest({ host: '127.0.0.1', port, path, headers: { host: `site.test:${port}` }, agent: false }, (response) => {
      response.resume().on('end', () => {
        resolve(response.statusCode!);
      });
    })
      .on('error', reject)
      .end();
  });
}

/** Posts to `/import`; `beforeEnd` runs when the body is sent but for its end. */
function post(
  { http }: Place,
  {
    headers,
    query = '',
    body = [],
    beforeEnd,
    onAnswer,
  }: {
    headers: Record<string, string>;
    query?: string;
    body?: readonly string[];
    beforeEnd?: () => Promise<void>;
    onAnswer?: (soFar: string) => void;
  },
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const call = httpRequest(
      {
        host: '127.0.0.1',
        port: http,
        path: `/import${query}`,
        method: 'POST',
        headers: { ...headers, 'transfer-encoding': 'chunked' },
        agent: false,
      },
      (response) => {
        let text = '';
        response
          .setEncoding('utf8')
          .on('data', (part: string) => {
            text += part;
            onAnswer?.(text);
          })
          .on('end', () => {
            resolve({ status: response.statusCode!, text });
          })
          .on('error', reject);
        if (beforeEnd !== undefined) void beforeEnd().then(() => call.end(), reject);
      },
    ).on('error', reject);
    call.flushHeaders();
    for (const line of body) call.write(line);
    if (beforeEnd === undefined && onAnswer === undefined) call.end();
  });
}
