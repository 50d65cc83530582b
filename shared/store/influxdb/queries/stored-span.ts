import { flux, fluxExpression } from '@influxdata/influxdb-client';
import type { StoredSpan } from '../../retention-guard.js';
import { fluxText } from '../flux-text.js';
import { parseTimestamp } from '../line-values.js';
import type { ReadCells } from './read-cells.js';

/** Reads the time span of the stored data. InfluxDB answers `first` and `last` from its index, per series. */
export async function readStoredSpan(read: ReadCells, bucket: string): Promise<StoredSpan> {
  const timeOf = async (
    which: 'first' | 'last',
    fields: readonly (readonly [measurement: string, field: string])[],
  ): Promise<number | undefined> => {
    const isOne = fields
      .map(([measurement, field]) => `(r._measurement == "${measurement}" and r._field == "${field}")`)
      .join(' or ');
    const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)}, stop: ${new Date(Date.UTC(2262, 0))})
  |> filter(fn: (r) => ${fluxExpression(isOne)})
  |> ${fluxExpression(which)}()
  |> keep(columns: ["_time"])
  |> group()
  |> sort(columns: ["_time"], desc: ${which === 'last'})
  |> limit(n: 1)`;
    let timeMs: number | undefined;
    await read(query, ['_time'], ([time]) => {
      timeMs = parseTimestamp(time!).timeMs;
    });
    return timeMs;
  };
  const [requests, rollups, ledgers] = [
    ['request_metrics', 'size'],
    ['request_rollup', 'count'],
    ['collector_ledger', 'lines'],
  ] as const;
  const [oldestRequestMs, oldestRollupMs, newestMs] = await Promise.all([
    timeOf('first', [requests]),
    timeOf('first', [rollups]),
    timeOf('last', [requests, rollups, ledgers]),
  ]);
  return { oldestRequestMs, oldestRollupMs, newestMs };
}
