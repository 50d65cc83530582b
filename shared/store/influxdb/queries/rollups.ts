import { flux, fluxExpression, type ParameterizedQuery } from '@influxdata/influxdb-client';
import { StoreError } from '../../../errors.js';
import { groupBy } from '../../../group-by.js';
import { unpackCells } from '../../../rollup/cells.js';
import { levels, type Level, type RollupRow } from '../../../rollup/rollup.js';
import { filteredRow, refuseRollups, rowFilter, wholeWindows } from '../../rollups-query.js';
import type { RollupsQuery, StoredWindows, TimeRange } from '../../store.js';
import { fluxAnyOf, fluxText } from '../flux-text.js';
import { cellOfAggregate, type RollupPoint } from '../line-protocol.js';
import { levelTags, tagText, textOfTag } from '../line-values.js';
import { isSplit, joinCells } from '../split-cells.js';
import { andSeries, tagIs } from './conditions.js';
import { rowOfTime, timeMsMax, triesMax, type ReadCells } from './read-cells.js';

/** See `Store.readRollups`. */
export async function readRollups(read: ReadCells, bucket: string, query: RollupsQuery): Promise<RollupRow[]> {
  refuseRollups(query);
  const range = wholeWindows(query, query.level);
  if (range.fromMs >= range.toMs) return [];
  // The fields of a split row become visible one after another. A read that finds only some of them is repeated.
  for (let tries = 0; tries < triesMax; tries += 1) {
    const rows = await readRollupsOnce(read, bucket, { ...query, ...range });
    if (rows !== undefined) return rows.flatMap((row) => filteredRow(row, query.filter));
  }
  throw new StoreError(
    'retry',
    `Cannot read rollup rows from InfluxDB: a row was half written in each of ${triesMax} attempts. Try again.`,
  );
}

/** Resolves to `undefined` if the fields of a split row belong to different versions of it. */
async function readRollupsOnce(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, level, scope, filter, hosts }: RollupsQuery,
): Promise<RollupRow[] | undefined> {
  const columns = ['_time', '_field', '_value', 'source', 'host', 'method', 'status_code'];
  // Points of version 1, which only have the field `tally`, are read for both scopes.
  const ofScope = scope === 'all' ? flux`not exists r.scope` : flux`(r.scope == "host" or r._field == "tally")`;
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(fromMs)}, stop: ${new Date(toMs)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r.level == ${levelTags[level]} and r._field =~ /^(tally|cells(_[0-9]+)?)$/ and ${ofScope}${andSeries(rowFilter(filter))}${andHosts(hosts)})
  |> keep(columns: ${columns})`;
  const rows: RollupRow[] = [];
  const split = new Map<string, { readonly key: Omit<RollupRow, 'cells'>; readonly parts: Map<number, string> }>();
  await read(query, columns, ([time, field, value = '', sourceTag, hostTag, method, status]) => {
    const key = {
      level,
      ...rowOfTime(time!, level),
      source: textOfTag(sourceTag),
      host: scope === 'all' ? undefined : textOfTag(hostTag),
    };
    if (field === 'tally') {
      const cell = cellOfAggregate(value, { method: textOfTag(method), status: Number(status) });
      if (cell.count !== 0) rows.push({ ...key, cells: [cell] });
    } else if (field === 'cells' && !isSplit(value)) {
      if (value !== '') rows.push({ ...key, cells: unpackCells(value) });
    } else {
      const name = `${time!}\n${key.source}\n${key.host}`;
      const found = split.get(name) ?? { key, parts: new Map<number, string>() };
      split.set(name, found);
      found.parts.set(field === 'cells' ? 1 : Number(field!.slice('cells_'.length)), value);
    }
  });
  for (const { key, parts } of split.values()) {
    const packed = joinCells(parts);
    if (packed === undefined) return undefined;
    if (packed !== '') rows.push({ ...key, cells: unpackCells(packed) });
  }
  return rows;
}

/**
 * Returns a condition on hosts, to append to another. A pattern that matches the empty text would also match rows
 * without a host.
 */
function andHosts(hosts: readonly string[] | undefined): ParameterizedQuery {
  if (hosts === undefined) return flux``;
  const names = hosts.filter((host) => host !== '').map(tagText);
  const named = names.length === 0 ? flux`false` : flux`r.host =~ ${fluxAnyOf(names)}`;
  return hosts.includes('') ? flux` and (${tagIs(flux`r.host`, '')} or ${named})` : flux` and ${named}`;
}

/**
 * Reads the points of all rollup rows of a level whose window starts in the range: of both scopes, and of earlier
 * versions.
 */
export async function readRollupPoints(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, level }: TimeRange & { level: Level },
): Promise<RollupPoint[]> {
  const range = wholeWindows({ fromMs, toMs }, level);
  const columns = ['_time', 'source', 'scope', 'host', 'method', 'status_code'];
  const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r._field == "count" and r.level == ${levelTags[level]})
  |> keep(columns: ${columns})`;
  const points: RollupPoint[] = [];
  await read(query, columns, ([time, source, scope, host, method, status]) => {
    points.push({
      level,
      ...rowOfTime(time!, level),
      source: textOfTag(source),
      host: scope === undefined && status === undefined ? undefined : textOfTag(host),
      series: status === undefined ? undefined : { method: textOfTag(method), status: Number(status) },
    });
  });
  return points;
}

/** See `Store.readStoredWindows`. */
export async function readStoredWindows(read: ReadCells, bucket: string): Promise<ReadonlyMap<string, StoredWindows>> {
  const readEnds = async (which: 'first' | 'last'): Promise<{ source: string; level: Level; windowMs: number }[]> => {
    const query = flux`from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(0)}, stop: ${new Date(timeMsMax)})
  |> filter(fn: (r) => r._measurement == "request_rollup" and r._field == "count" and not exists r.scope)
  |> ${fluxExpression(which)}()
  |> keep(columns: ["_time", "level", "source"])
  |> group(columns: ["level", "source"])
  |> sort(columns: ["_time"], desc: ${which === 'last'})
  |> limit(n: 1)`;
    const ends: { source: string; level: Level; windowMs: number }[] = [];
    await read(query, ['_time', 'level', 'source'], ([time, tag, source]) => {
      const level = levels.find((each) => levelTags[each] === tag);
      if (level !== undefined)
        ends.push({ source: textOfTag(source), level, windowMs: rowOfTime(time!, level).windowMs });
    });
    return ends;
  };
  const [first, last] = await Promise.all([readEnds('first'), readEnds('last')]);
  const oldest = groupBy(first, ({ source }) => source);
  return new Map(
    [...groupBy(last, ({ source }) => source)].map(([source, newest]) => [
      source,
      {
        oldest: new Map((oldest.get(source) ?? []).map(({ level, windowMs }) => [level, windowMs])),
        newestMs: Math.max(...newest.map(({ windowMs }) => windowMs)),
      },
    ]),
  );
}
