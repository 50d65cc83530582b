import test from 'ava';
import { HyperLogLog } from '../../sketch/hyperloglog.js';
import { importRowRange } from '../../rollup/rollup.js';
import { SpaceSaving } from '../../sketch/space-saving.js';
import { takeBack } from './take-back.js';

const hourMs = Date.UTC(2026, 10, 23, 20);

test('replaces lists by empty lists, and sketches of clients by empty sketches', async (t) => {
  const { from } = importRowRange(7);
  const time = `2026-11-23T20:00:0${String(from / 1e9).slice(0, 1)}.${String(from).slice(1)}Z`;
  const written: string[] = [];
  await takeBack(
    { importId: 7, requests: 1, firstHourMs: hourMs, lastHourMs: hourMs },
    {
      bucket: 'requests',
      read: async (query, _columns, onRow) => {
        const text = String(query);
        if (text.includes('request_top') && text.includes('"1h"'))
          for (const kind of ['path', 'unique_clients', 'host_clients'])
            onRow([time, '', 'caddy', kind === 'host_clients' ? 'a.example' : undefined, kind]);
        await Promise.resolve();
      },
      writeLines: async (lines) => {
        await Promise.resolve(written.push(...lines));
      },
      deleteAll: () => Promise.resolve(),
    },
  );
  const packedOf = (kind: string): string =>
    /packed="((?:[^"\\]|\\.)*)"/
      .exec(written.find((line) => line.includes(`kind=${kind},`))!)![1]!
      .replaceAll(/\\(.)/g, '$1');
  t.is(SpaceSaving.unpack(packedOf('path')).total, 0);
  for (const kind of ['unique_clients', 'host_clients']) t.is(HyperLogLog.unpack(packedOf(kind)).count(), 0);
});
