import { BIGINT } from '@duckdb/node-api';
import { unpackCells } from '../../../rollup/cells.js';
import { addHostCells, addHostCounts, filtersCells, matchesCell, rowFilter } from '../../rollups-query.js';
import type { HostCounts, HostCountsQuery } from '../../store.js';
import { texts } from '../columns.js';
import type { OpenSnapshot } from '../open-windows.js';
import type { Query } from '../read-pool.js';
import { levelSql } from '../rollup-folds.js';
import { BoundValues } from './bound-values.js';
import { seriesConditions, windowsIn } from './conditions.js';
import { inTurns } from './in-turns.js';

/** See `Store.countHosts`. Adds to `counts`, which holds those of open windows by `hostKey`. */
export async function countHosts(
  query: Query,
  { parts, filter }: HostCountsQuery,
  open: OpenSnapshot,
  counts: Map<string, HostCounts>,
): Promise<HostCounts[]> {
  const values = new BoundValues();
  const inParts = parts.map(({ level, ...range }) =>
    [levelSql({ scope: 'host', level }, open.folded, values), ...windowsIn(range, values)].join(' AND '),
  );
  const where = [
    `(${inParts.map((part) => `(${part})`).join(' OR ')})`,
    `closed <= ${values.add(BigInt(open.closedMax), BIGINT)}`,
    ...seriesConditions(rowFilter(filter), values),
  ].join(' AND ');
  if (parts.length > 0 && filtersCells(filter)) {
    // In chunks: the cells of thousands of hosts would not fit into memory.
    for await (const chunk of values.chunksOf(
      query,
      `SELECT ${texts('source', 'host')}, cells FROM host_rollup WHERE ${where}`,
    )) {
      const [sources = [], hosts, cells] = chunk as [string[]?, string[]?, string[]?];
      await inTurns(sources, (source, at) => {
        const admitted = unpackCells(cells![at]!).filter((cell) => matchesCell(filter, cell));
        if (admitted.length > 0) addHostCells(counts, { source, host: hosts![at]! }, admitted);
      });
    }
  } else if (parts.length > 0) {
    const columns = await values.columnsOf(
      query,
      `SELECT ${texts('source', 'host')}, sum(requests)::BIGINT, sum(errors)::BIGINT, sum(client_errors)::BIGINT, sum(size_sum) FROM host_rollup WHERE ${where} GROUP BY source, host`,
    );
    const [source = [], host, requests, errors, clientErrors, bytes] = columns as [
      string[]?,
      string[]?,
      bigint[]?,
      bigint[]?,
      bigint[]?,
      number[]?,
    ];
    for (const [at, name] of source.entries()) {
      addHostCounts(counts, {
        source: name,
        host: host![at]!,
        requests: Number(requests![at]!),
        errors: Number(errors![at]!),
        clientErrors: Number(clientErrors![at]!),
        bytes: bytes![at]!,
      });
    }
  }
  return [...counts.values()];
}
