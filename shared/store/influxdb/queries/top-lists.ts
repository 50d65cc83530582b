import { flux, fluxRegExp } from '@influxdata/influxdb-client';
import type { TopKind, TopRow } from '../../../top-list/top-row.js';
import { wholeWindows } from '../../rollups-query.js';
import type { TopListsQuery } from '../../store.js';
import { fluxText } from '../flux-text.js';
import { levelTags, textOfTag } from '../line-values.js';
import { andSeries } from './conditions.js';
import { rowOfTime, type ReadCells } from './read-cells.js';

/** See `Store.readTopLists`. */
export async function readTopLists(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, level, kinds, filter: { source, host } }: TopListsQuery,
): Promise<TopRow[]> {
  const range = wholeWindows({ fromMs, toMs }, level);
  if (range.fromMs >= range.toMs || kinds.length === 0) return [];
  const columns = ['_time', '_value', 'source', 'host', 'kind'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "request_top" and r._field == "packed" and r.level == ${levelTags[level]} and r.kind =~ ${fluxRegExp(new RegExp(`^(${kinds.join('|')})$`))}${andSeries({ ...(source !== undefined && { source }), ...(host !== undefined && { host }) })})
  |> keep(columns: ${columns})`;
  const rows: TopRow[] = [];
  await read(query, columns, ([time, packed, sourceTag, hostTag, kind]) => {
    rows.push({
      level,
      ...rowOfTime(time!, level),
      source: textOfTag(sourceTag),
      host: textOfTag(hostTag),
      kind: kind as TopKind,
      packed: packed!,
    });
  });
  return rows;
}
