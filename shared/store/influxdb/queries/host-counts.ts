import { flux } from '@influxdata/influxdb-client';
import type { Level } from '../../../rollup/rollup.js';
import { isClientError, isServerError } from '../../../status.js';
import { addHostCounts, addHostRows, filtersCells, rowFilter, wholeWindows } from '../../rollups-query.js';
import type { Filter, HostCounts, HostCountsQuery, TimeRange } from '../../store.js';
import { fluxText } from '../flux-text.js';
import { levelTags, textOfTag } from '../line-values.js';
import { andSeries } from './conditions.js';
import type { ReadCells } from './read-cells.js';
import { readRollups } from './rollups.js';

/**
 * See `Store.countHosts`. InfluxDB sums up the fields; if the filter selects some cells of a row, the cells are read
 * instead.
 */
export async function countHosts(
  read: ReadCells,
  bucket: string,
  { parts, filter }: HostCountsQuery,
): Promise<HostCounts[]> {
  const counts = new Map<string, HostCounts>();
  for (const part of parts) {
    if (filtersCells(filter)) addHostRows(counts, await readRollups(read, bucket, { ...part, scope: 'host', filter }));
    else await addHostSums(counts, read, bucket, { ...part, filter });
  }
  return [...counts.values()];
}

async function addHostSums(
  counts: Map<string, HostCounts>,
  read: ReadCells,
  bucket: string,
  { level, filter, ...range }: TimeRange & { level: Level; filter: Filter },
): Promise<void> {
  const { fromMs, toMs } = wholeWindows(range, level);
  if (fromMs >= toMs) return;
  const columns = ['_field', '_value', 'source', 'host', 'status_code'];
  // Points of version 1 have a status, and no scope.
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(fromMs)}, stop: ${new Date(toMs)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r.level == ${levelTags[level]} and r._field =~ /^(count|size_sum|status_[45]xx)$/ and (r.scope == "host" or r.status_code =~ /./)${andSeries(rowFilter(filter))})
  |> sum()
  |> group()
  |> keep(columns: ${columns})`;
  await read(query, columns, ([field, value, sourceTag, hostTag, statusTag]) => {
    const [sum, status] = [Number(value), Number(statusTag ?? 0)];
    addHostCounts(counts, {
      source: textOfTag(sourceTag),
      host: textOfTag(hostTag),
      requests: field === 'count' ? sum : 0,
      errors: field === 'status_5xx' || (field === 'count' && isServerError(status)) ? sum : 0,
      clientErrors: field === 'status_4xx' || (field === 'count' && isClientError(status)) ? sum : 0,
      bytes: field === 'size_sum' ? sum : 0,
    });
  });
}
