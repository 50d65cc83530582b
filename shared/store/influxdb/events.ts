import { flux, fluxRegExp } from '@influxdata/influxdb-client';
import type { CaddyEvent, CaddyLevel } from '../../caddy-event.js';
import { eventWindow, type EventRow } from '../../record/event-folder.js';
import { nanosecondsText, splitNanoseconds } from '../../request-event.js';
import { wholeWindows } from '../rollups-query.js';
import type { EventsQuery } from '../store.js';
import { fluxText } from './flux-text.js';
import { escapeString, escapeTag, rowTime, textOfTag } from './line-values.js';
import { tagIs } from './queries/conditions.js';
import { rowOfTime, type ReadCells } from './queries/read-cells.js';

/** Text fields of a point, in the order of writing. Empty ones are omitted. */
const textFields = [
  ['logger', 'logger'],
  ['message', 'message'],
  ['error', 'error'],
  ['reason', 'reason'],
  ['method', 'method'],
  ['uri', 'uri'],
  ['errorId', 'error_id'],
  ['upstream', 'upstream'],
  ['fields', 'fields'],
] as const satisfies readonly (readonly [keyof CaddyEvent, string])[];

/** Line of a row of events, without its line break: tags `host` and `level`; the time is that of a row. */
export function eventLine({ windowMs, rowId, count, lastMs, event }: EventRow): string {
  let line = 'caddy_event';
  if (event.host !== '') line += `,host=${escapeTag(event.host)}`;
  line += `,level=${event.level} count=${count}i,first_ns=${nanosecondsText(event)}i,last_ms=${lastMs}i,status_code=${event.status}i`;
  for (const [property, name] of textFields)
    if (event[property] !== '') line += `,${name}="${escapeString(event[property])}"`;
  return `${line} ${rowTime(windowMs, rowId)}`;
}

/** A row from `json.encode`. A field that only some rows have is `null`; one that no row has is missing. */
interface StoredEvent extends Partial<Record<(typeof textFields)[number][1], string | null>> {
  readonly _time: string;
  readonly level: string;
  readonly host?: string | null;
  readonly count: number;
  /** As text: JSON would round it. */
  readonly first_ns: string;
  readonly last_ms: number;
  readonly status_code: number;
}

/** See `StoreReader.readEvents`. */
export async function readEvents(
  read: ReadCells,
  bucket: string,
  { fromMs, toMs, levels, host, limit }: EventsQuery,
): Promise<EventRow[]> {
  const range = wholeWindows({ fromMs, toMs }, eventWindow);
  if (range.fromMs >= range.toMs || levels?.length === 0) return [];
  const ofLevels =
    levels === undefined ? flux`` : flux` and r.level =~ ${fluxRegExp(new RegExp(`^(${levels.join('|')})$`))}`;
  const ofHost = host === undefined ? flux`` : flux` and ${tagIs(flux`r.host`, host)}`;
  // JSON, because InfluxDB's CSV changes line breaks. Integers beyond 2^53 would lose digits in it.
  const query = flux`import "json"
from(bucket: ${fluxText(bucket)})
  |> range(start: ${new Date(range.fromMs)}, stop: ${new Date(range.toMs)})
  |> filter(fn: (r) => r._measurement == "caddy_event"${ofLevels}${ofHost})
  |> drop(columns: ["_start", "_stop", "_measurement"])
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.count and exists r.last_ms and exists r.first_ns and exists r.status_code)
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: ${limit})
  |> map(fn: (r) => ({json: string(v: json.encode(v: {r with first_ns: string(v: r.first_ns)}))}))`;
  const rows: EventRow[] = [];
  await read(query, ['json'], ([json]) => {
    rows.push(rowOf(JSON.parse(json!) as StoredEvent));
  });
  return rows.sort((a, b) => b.windowMs - a.windowMs || b.lastMs - a.lastMs || a.rowId - b.rowId);
}

function rowOf(row: StoredEvent): EventRow {
  const texts = Object.fromEntries(textFields.map(([property, name]) => [property, row[name] ?? ''])) as Record<
    (typeof textFields)[number][0],
    string
  >;
  return {
    ...rowOfTime(row._time, eventWindow),
    count: row.count,
    lastMs: row.last_ms,
    event: {
      ...splitNanoseconds(BigInt(row.first_ns)),
      level: row.level as CaddyLevel,
      host: textOfTag(row.host),
      status: row.status_code,
      ...texts,
    },
  };
}
