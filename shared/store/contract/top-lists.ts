import { rowIdEnd } from '../../rollup/rollup.js';
import { topKinds, topLevels, type TopRow } from '../../top-list/top-row.js';
import type { TopListsQuery } from '../store.js';
import { sameTopLists } from './assertions.js';
import { awkwardTexts } from './awkward-texts.js';
import type { Declare } from './declare.js';
import { batchOf, dayMs, hourMs, top, writerOf } from './samples.js';

/** Declares the tests of top lists. */
export function declareTopLists(declare: Declare): void {
  declare('reads rows of top lists as they were written, by level, kind, source and host', async (t, { store }) => {
    const rows = topLevels.flatMap((level) =>
      topKinds.flatMap((kind) =>
        ['caddy', '', 'a "source", with=\\'].flatMap((source) => [
          top({ level, windowMs: dayMs, kind, source, packed: `${level} ${kind} ${source}` }),
          ...(kind === 'unique_clients'
            ? ['a.example', 'b.example'].map((host) =>
                top({ level, windowMs: dayMs, kind, source, host, rowId: rowIdEnd - 1 }),
              )
            : []),
        ]),
      ),
    );
    await store.write(batchOf({ topLists: rows }));
    const range = { fromMs: dayMs, toMs: dayMs + 1 };
    for (const level of topLevels) {
      const queries: Omit<TopListsQuery, 'fromMs' | 'toMs' | 'level'>[] = [
        { kinds: topKinds, filter: {} },
        { kinds: [], filter: {} },
        { kinds: ['client'], filter: {} },
        { kinds: ['client', 'path'], filter: { source: 'caddy' } },
        { kinds: topKinds, filter: { source: '' } },
        { kinds: topKinds, filter: { source: 'a "source", with=\\' } },
        { kinds: ['unique_clients'], filter: { host: 'a.example' } },
        { kinds: ['unique_clients'], filter: { source: 'caddy', host: '' } },
        { kinds: topKinds, filter: { source: 'none' } },
      ];
      for (const {
        kinds,
        filter: { source, host },
      } of queries) {
        const expected = rows.filter(
          (row) =>
            row.level === level &&
            kinds.includes(row.kind) &&
            (source === undefined || row.source === source) &&
            (host === undefined || row.host === host),
        );
        sameTopLists(
          t,
          await store.readTopLists({
            ...range,
            level,
            kinds,
            filter: { ...(source !== undefined && { source }), ...(host !== undefined && { host }) },
          }),
          expected,
          `${level} ${kinds.join()} ${source} ${host}`,
        );
      }
      t.deepEqual(
        await store.readTopLists({
          fromMs: dayMs + 1,
          toMs: dayMs + level * 1000,
          level,
          kinds: topKinds,
          filter: {},
        }),
        [],
      );
    }
  });

  declare(
    'replaces a row of a top list but no others of its window, and reads back any text of 60,000 bytes',
    async (t, { store }) => {
      const writer = writerOf();
      const awkward = awkwardTexts
        .filter((text) => text !== '')
        .map((packed, rowId) => top({ windowMs: hourMs + 3_600_000, rowId, packed: JSON.stringify([packed]) }));
      const large = top({ rowId: 9, packed: '"\\€🙂\\"'.repeat(4000).slice(0, 15_000) });
      await store.write(writer({ topLists: [top({ packed: 'old' }), top({ rowId: 8 }), ...awkward] }));
      await store.write(writer({ topLists: [top({ packed: 'new' }), large] }));
      const read = async (fromMs: number): Promise<TopRow[]> =>
        await store.readTopLists({ fromMs, toMs: fromMs + 60_000, level: 60, kinds: ['path'], filter: {} });
      sameTopLists(t, await read(hourMs), [top({ packed: 'new' }), top({ rowId: 8 }), large]);
      sameTopLists(t, await read(hourMs + 3_600_000), awkward);
    },
  );
}
