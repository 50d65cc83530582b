import fc from 'fast-check';
import { until } from '../../../test/until.js';
import { createRecorder } from '../../record/recorder.js';
import type { Cell, Level, Scope } from '../../rollup/rollup.js';
import { SpaceSaving } from '../../sketch/space-saving.js';
import { sameRequests } from './assertions.js';
import type { Declare } from './declare.js';
import { aroundHour, hourMs, request, writerOf } from './samples.js';

/** Declares the tests of requests that are counted but not stored. */
export function declareSampling(declare: Declare): void {
  declare('stores the sampled requests of a batch, and counts the others in its rollups', async (t, { store }) => {
    const requests = Array.from({ length: 5 }, (_, index) => request({ timeNs: index }));
    const writer = writerOf();
    await store.write(writer({ requests, kept: requests.slice(3) }));
    await store.write(writer({ requests, kept: [] }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.slice(3).toReversed());
    for (const scope of ['all', 'host'] as const) {
      const cells = (await store.readRollups({ ...aroundHour, level: 60, scope, filter: {} })).flatMap(
        (row) => row.cells,
      );
      t.deepEqual(
        ['count', 'sampledOut'].map((name) =>
          cells.reduce((sum, cell) => sum + cell[name as 'count' | 'sampledOut'], 0),
        ),
        [10, 8],
      );
    }
  });

  declare(
    'counts all requests in rollups and top lists with any sample ratio, and exactly how many are not stored',
    async (t, { store }) => {
      const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
      let timeMs = hourMs;
      const sample = fc.record({
        host: fc.constantFrom('a.example', 'b.example'),
        status: fc.constantFrom(200, 500),
        uri: fc.constantFrom('/', '/a', '/b'),
        size: fc.nat({ max: 1000 }),
        requestId: fc.constantFrom('', 'one', 'two', 'three'),
      });
      await fc.assert(
        fc.asyncProperty(
          fc.array(sample, { minLength: 1, maxLength: 60 }),
          fc.constantFrom(0, 0.01, 0.3, 0.9, 1),
          async (samples, sampleRatio) => {
            timeMs += 600_000;
            const range = { fromMs: timeMs, toMs: timeMs + 600_000 };
            const requests = samples.map((each, at) => request({ ...each, timeMs: timeMs + 100 * Math.floor(at / 3) }));
            const recorder = createRecorder({
              store,
              log,
              name: 'sampled',
              hostsMax: 10,
              clientIp: 'full',
              sampleRatio,
              drainMsMax: 60_000,
              now: () => timeMs,
            });
            for (const each of requests) recorder.record(each);
            t.is(await recorder.close(), 0);
            const cellsOf = async (level: Level, scope: Scope): Promise<Cell[]> =>
              (await store.readRollups({ ...range, level, scope, filter: {} })).flatMap((row) => row.cells);
            const sum = (cells: readonly Cell[], of: (cell: Cell) => number): number =>
              cells.reduce((all, cell) => all + of(cell), 0);
            const kept = await until('the sampled requests are stored', async () => {
              const [cells, found] = [
                await cellsOf(10, 'all'),
                await store.readRequests({ ...range, filter: {}, limit: 100 }),
              ];
              return (
                sum(cells, ({ count }) => count) === samples.length &&
                sum(cells, ({ sampledOut }) => sampledOut) === samples.length - found.length &&
                found
              );
            });
            if (sampleRatio === 0) t.is(kept.length, 0);
            if (sampleRatio === 1) t.is(kept.length, samples.length);
            for (const [level, scope] of [
              [10, 'all'],
              [60, 'all'],
              [600, 'all'],
              [60, 'host'],
              [600, 'host'],
            ] as const) {
              const cells = await cellsOf(level, scope);
              t.is(
                sum(cells, ({ sizeSum }) => sizeSum),
                samples.reduce((all, { size }) => all + size, 0),
                `${level} s`,
              );
              t.is(
                sum(cells, ({ histogram }) => histogram.total),
                samples.length,
              );
              for (const status of [200, 500]) {
                const ofStatus = cells.filter((cell) => cell.status === status);
                t.is(
                  sum(ofStatus, ({ count }) => count),
                  samples.filter((each) => each.status === status).length,
                );
                t.is(
                  sum(ofStatus, ({ count, sampledOut }) => count - sampledOut),
                  kept.filter((each) => each.status === status).length,
                  `${level} s`,
                );
              }
            }
            const [list] = await store.readTopLists({ ...range, level: 600, kinds: ['path'], filter: {} });
            t.is(SpaceSaving.unpack(list!.packed).total, samples.length);
          },
        ),
        { numRuns: 10 },
      );
    },
  );
}
