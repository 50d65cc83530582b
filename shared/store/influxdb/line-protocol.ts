/**
 * Rows as line protocol. `request-line.ts` has those of requests.
 *
 * A line is `MEASUREMENT,TAG=VALUE,… FIELD=VALUE,… NANOSECONDS`, with tags sorted by name. Lines are joined by `\n`.
 *
 * - `request_metrics`: tags `endpoint`, `host`, `method`, `recorder`, `source`, `status_code`; fields `uri` (always),
 *   `size`, `bytes_read` (integers), and if known `duration_ms` (float), `client_ip`, `user_agent`, `referrer`,
 *   `protocol`, `tls`, `upstream_ms` (float), `request_id`, `error`, `error_id`, `upstream`, `retries` (float),
 *   `content_type`. The time is that of the request.
 * - `request_rollup`: tags `level` (`10s`, `1m`, `10m`, `1h`, `1d`) and `source`; for rows of a host also `host` and
 *   `scope=host`. The time is the start of the window plus the row's id in nanoseconds.
 *   - Fields for Flux and Grafana: `count`, `size_sum`, `sampled_out`, `status_1xx` to `status_5xx`, `status_other`
 *     (integers; the last seven are omitted if 0), `duration_sum_ms`, `duration_max_ms` (floats).
 *   - This program only reads `cells`, the packed cells (see `packCells`): InfluxDB reads field by field, so one field
 *     is read three times as fast as five. Long ones are split into `cells`, `cells_2`, …: see `split-cells.ts`.
 *   - A row without cells replaces one of an import that was undone. Its fields are 0, and `cells` is empty.
 *   - Version 1 wrote a point per host, method and status, with the tags `host`, `level`, `method`, `source`,
 *     `status_code`, and with `tally` instead of `cells`: `COUNT DURATION_SUM_MS DURATION_MAX_MS SIZE_SUM HISTOGRAM`,
 *     followed by ` SAMPLED_OUT` if not 0. These are still read, for both scopes.
 * - `request_top`: tags `host` (of unique clients), `kind`, `level`, `source`; field `packed`, see `TopRow`. The time
 *   is as in `request_rollup`.
 * - `imported_request`: tags `import_id`, `source`; field `packed`, see `ImportedRow`. The time is as in
 *   `request_rollup`.
 * - `caddy_event`: tags `host`, `level`; fields `count`, `first_ns`, `last_ms`, `status_code` (integers), `logger`,
 *   `message`, `error`, `reason`, `method`, `uri`, `error_id`, `upstream`, `fields` if not empty. See `events.ts`.
 * - `collector_ledger`: tags `account`, `collector`, `reason` (of `rejected`, `dropped` and `warnings`); field `lines`
 *   (integer), one point per count; and the account `last_line` with the field `time_ms`. The time is that of the
 *   snapshot.
 *
 * `line-values.ts` has the limits of line protocol, and how values are encoded.
 */
import type { ImportedRow } from '../../record/imported-requests.js';
import { nanosecondsText } from '../../request-event.js';
import { packCells } from '../../rollup/cells.js';
import type { Cell, RollupRow, RowKey, Series } from '../../rollup/rollup.js';
import { Histogram } from '../../sketch/histogram.js';
import { statusClassOf } from '../../status.js';
import type { TopRow } from '../../top-list/top-row.js';
import type { Ledger, LedgerSnapshot } from '../store.js';
import { escapeString, escapeTag, levelTags, rowTime } from './line-values.js';
import { splitCells } from './split-cells.js';

/** Line of a rollup row, without its line break. */
export function rollupLine({ level, windowMs, rowId, source, host, cells }: RollupRow): string {
  let line = 'request_rollup';
  if (host !== undefined && host !== '') line += `,host=${escapeTag(host)}`;
  line += `,level=${levelTags[level]}`;
  if (host !== undefined) line += ',scope=host';
  if (source !== '') line += `,source=${escapeTag(source)}`;
  return `${line} ${rollupFields(cells)} ${rowTime(windowMs, rowId)}`;
}

/** Identifies a stored point of `request_rollup`, by its tags and its time. */
export interface RollupPoint extends RowKey {
  readonly rowId: number;
  /** Only for points of version 1, whose `host` is never `undefined`. */
  readonly series?: Pick<Series, 'method' | 'status'> | undefined;
}

/** Line that replaces a stored point by an empty one. */
export function emptiedRollupLine(point: RollupPoint): string {
  const { level, windowMs, rowId, source, host = '', series } = point;
  if (series === undefined) return rollupLine({ ...point, cells: [] });
  const tags = Object.entries({ host, level: levelTags[level], method: series.method, source }).flatMap(
    ([name, value]) => (value === '' ? [] : [`,${name}=${escapeTag(value)}`]),
  );
  return `request_rollup${tags.join('')},status_code=${series.status} ${zeroFields},tally="0 0 0 0 ${new Histogram().pack()}" ${rowTime(windowMs, rowId)}`;
}

const zeroFields = 'count=0i,duration_sum_ms=0,duration_max_ms=0,size_sum=0i,sampled_out=0i';
const statusFields = ['status_1xx', 'status_2xx', 'status_3xx', 'status_4xx', 'status_5xx', 'status_other'] as const;

function rollupFields(cells: readonly Cell[]): string {
  if (cells.length === 0) return `${zeroFields},${statusFields.map((name) => `${name}=0i`).join(',')},cells=""`;
  let [count, sampledOut, durationSumMs, durationMaxMs, sizeSum] = [0, 0, 0, 0, 0];
  const byClass = statusFields.map(() => 0);
  for (const cell of cells) {
    count += cell.count;
    sampledOut += cell.sampledOut;
    durationSumMs += cell.durationSumMs;
    durationMaxMs = Math.max(durationMaxMs, cell.durationMaxMs);
    sizeSum += cell.sizeSum;
    byClass[(statusClassOf(cell.status) ?? 6) - 1]! += cell.count;
  }
  const bytes = Math.min(sizeSum, Number.MAX_SAFE_INTEGER); // the limit, 9 PB per window, is never reached
  let fields = `count=${count}i,duration_sum_ms=${durationSumMs},duration_max_ms=${durationMaxMs},size_sum=${bytes}i`;
  if (sampledOut !== 0) fields += `,sampled_out=${sampledOut}i`;
  for (const [at, name] of statusFields.entries()) if (byClass[at] !== 0) fields += `,${name}=${byClass[at]}i`;
  for (const [at, text] of splitCells(packCells(cells)).entries())
    fields += `,${at === 0 ? 'cells' : `cells_${at + 1}`}="${text}"`; // needs no escaping
  return fields;
}

/** Parses the cell of a point of version 1, from its field `tally`. */
export function cellOfAggregate(aggregate: string, { method, status }: Pick<Series, 'method' | 'status'>): Cell {
  const [count, durationSumMs, durationMaxMs, sizeSum, packed, sampledOut = '0'] = aggregate.split(' ');
  return {
    method,
    status,
    count: Number(count),
    sampledOut: Number(sampledOut),
    durationSumMs: Number(durationSumMs),
    durationMaxMs: Number(durationMaxMs),
    sizeSum: Number(sizeSum),
    histogram: Histogram.unpack(packed!),
  };
}

/** Line of a top list row, without its line break. */
export function topLine({ level, windowMs, rowId, source, host, kind, packed }: TopRow): string {
  let line = 'request_top';
  if (host !== '') line += `,host=${escapeTag(host)}`;
  line += `,kind=${kind},level=${levelTags[level]}`;
  if (source !== '') line += `,source=${escapeTag(source)}`;
  return `${line} packed="${escapeString(packed)}" ${rowTime(windowMs, rowId)}`;
}

/** Line of imported requests, without its line break. */
export function importedLine({ importId, windowMs, rowId, source, packed }: ImportedRow): string {
  return `imported_request,import_id=${importId}${source === '' ? '' : `,source=${escapeTag(source)}`} packed="${packed}" ${rowTime(windowMs, rowId)}`;
}

/** Values of the tag `account`: the counts of a ledger. */
export const ledgerAccounts = [
  ['received', 'received'],
  ['accepted', 'accepted'],
  ['runtime', 'runtime'],
  ['events', 'events'],
  ['stored', 'stored'],
  ['spooled', 'spooled'],
  ['inMemory', 'in_memory'],
  ['deadLettered', 'dead_lettered'],
] as const satisfies readonly (readonly [keyof Ledger, string])[];

/** Lines of a ledger. */
export function ledgerLines(snapshot: LedgerSnapshot): string[] {
  const collector = snapshot.collector === '' ? '' : `,collector=${escapeTag(snapshot.collector)}`;
  const time = nanosecondsText({ timeMs: snapshot.timeMs, timeNs: 0 });
  const lines = ledgerAccounts.map(
    ([name, account]) => `collector_ledger,account=${account}${collector} lines=${snapshot[name]}i ${time}`,
  );
  for (const account of ['rejected', 'dropped', 'warnings'] as const) {
    for (const [reason, count] of Object.entries(snapshot[account])) {
      lines.push(`collector_ledger,account=${account}${collector},reason=${escapeTag(reason)} lines=${count}i ${time}`);
    }
  }
  if (snapshot.lastLineMs !== null)
    lines.push(`collector_ledger,account=last_line${collector} time_ms=${snapshot.lastLineMs}i ${time}`);
  return lines;
}
