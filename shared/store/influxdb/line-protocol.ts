/**
 * Rows as line protocol, and their values in InfluxDB's responses.
 *
 * A line is `MEASUREMENT,TAG=VALUE,… FIELD=VALUE,… NANOSECONDS`, with tags sorted by name. Lines are joined by `\n`.
 *
 * - `request_metrics`: tags `endpoint`, `host`, `method`, `recorder`, `source`, `status_code`; fields `uri` (always),
 *   `size`, `bytes_read` (integers), and if known `duration_ms` (float), `client_ip`, `user_agent`, `referrer`,
 *   `protocol`, `tls`, `upstream_ms` (float), `request_id`. The time is that of the request.
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
 * - `collector_ledger`: tags `account`, `collector`, `reason` (of `rejected`, `dropped` and `warnings`); field `lines`
 *   (integer), one point per count; and the account `last_line` with the field `time_ms`. The time is that of the
 *   snapshot.
 *
 * Limits of line protocol, and how values are encoded:
 *
 * - A tag cannot be empty. It is omitted; a missing tag reads as `''`.
 * - In a tag, `\` escapes `,`, `=` and space, but not `\` itself. InfluxDB's parsers disagree on `\\,`: some such tags
 *   are accepted, others make it reject the whole batch (seen with 2.7.12). So a `\` never precedes one of the three,
 *   nor ends a tag: a dot is inserted after it, in addition to dots that are already there. `a\` is stored as `a\.`,
 *   `a\.` as `a\..`, `a\,b` as `a\.,b`; `a\b` and `a.` are unchanged. `textOfTag` reverses `tagText` for every value.
 * - A tag cannot contain a line break. None does: see the preconditions in `contract.ts`.
 * - Measurement and tags together are limited to 65,535 bytes. Five tags of 255 characters have at most 3,825 before
 *   escaping.
 * - A string field can contain every character. `"` and `\` are escaped by `\`.
 * - A string field can be empty, but Flux's `pivot` then gives its row the value of a later one (seen with 2.7.12). So
 *   no empty field of a request is written: optional ones are omitted, and an empty `uri` is stored as `-`. A `uri` of
 *   dashes only gets one more: `-` is stored as `--`. `textOfUri` reverses `uriText`.
 * - A float must be finite. All are: see `contract.ts`.
 *
 * This is the hot path of the collector: lines are built as bytes, mostly from cached parts.
 */
import { Histogram } from '../../sketch/histogram.js';
import type { ImportedRow } from '../../record/imported-requests.js';
import { createMemo } from '../../memo.js';
import { nanosecondsText, splitNanoseconds, type RequestEvent } from '../../request-event.js';
import { packCells, type Cell, type Level, type RollupRow, type RowKey, type Series } from '../../rollup/rollup.js';
import { statusClassOf } from '../../status.js';
import type { TopRow } from '../../top-list/top-row.js';
import type { Ledger, LedgerSnapshot } from '../store.js';
import { splitCells } from './split-cells.js';
import { TextBuffer } from './text-buffer.js';

/** Values of the tag `level`, by window length in seconds. */
export const levelTags: Readonly<Record<Level, string>> = { 10: '10s', 60: '1m', 600: '10m', 3600: '1h', 86_400: '1d' };

/**
 * Returns a function that appends the line of a request, without its line break, for a recorder. It caches parts that
 * repeat.
 */
export function createRequestLines(recorder: string): (event: RequestEvent, text: TextBuffer) => void {
  const known: ({ readonly event: RequestEvent; readonly tags: Uint8Array } | undefined)[] = [];
  const [clientIp, userAgent, referrer, protocol, tls] = ['client_ip', 'user_agent', 'referrer', 'protocol', 'tls'].map(
    createTextField,
  ) as [TextField, TextField, TextField, TextField, TextField];
  let second = Number.NaN;
  let secondText = '';
  return (event, text) => {
    const { timeMs, durationMs, bytesRead, upstreamMs, requestId } = event;
    const at = slotOf(event) % tagsRemembered;
    let found = known[at];
    if (found === undefined || !isSameSeries(found.event, event))
      known[at] = found = { event, tags: Buffer.from(`${tagsOf(event, recorder)} uri="`) };
    if (Math.floor(timeMs / 1000) !== second) {
      second = Math.floor(timeMs / 1000);
      secondText = ` ${second}`;
    }
    text.addBytes(found.tags);
    text.add(escapeString(uriText(event.uri)));
    text.add('",size=');
    text.addInteger(event.size);
    text.add('i,bytes_read=');
    text.addInteger(bytesRead);
    text.add('i');
    if (durationMs !== null) {
      text.add(',duration_ms=');
      text.addNumber(durationMs);
    }
    text.addBytes(clientIp(event.clientIp));
    text.addBytes(userAgent(event.userAgent));
    text.addBytes(referrer(event.referrer));
    text.addBytes(protocol(event.protocol));
    text.addBytes(tls(event.tls));
    if (upstreamMs !== null) {
      text.add(',upstream_ms=');
      text.addNumber(upstreamMs);
    }
    if (requestId !== '') text.add(`,request_id="${escapeString(requestId)}"`);
    text.add(secondText);
    text.addInteger((timeMs - second * 1000) * 1e6 + event.timeNs, 9);
  };
}

const tagsRemembered = 1024;

/** A cache index: equal for events of the same series, rarely for others. */
function slotOf({ status, method, host }: RequestEvent): number {
  return (
    (status * 31 +
      method.length * 7 +
      method.charCodeAt(0) +
      host.length * 961 +
      31 * host.charCodeAt(host.length >> 1) +
      127 * host.charCodeAt(0)) >>>
    0
  ); // NaN, from an empty text, becomes 0
}

/** A field with a leading comma, as bytes; empty for an empty text. */
type TextField = (text: string) => Uint8Array;

function createTextField(name: string): TextField {
  return createMemo((text) => Buffer.from(text === '' ? '' : `,${name}="${escapeString(text)}"`));
}

function isSameSeries(one: RequestEvent, other: RequestEvent): boolean {
  return (
    one.status === other.status &&
    one.host === other.host &&
    one.method === other.method &&
    one.source === other.source &&
    one.endpoint === other.endpoint
  );
}

/** Measurement and tags of a request. */
function tagsOf({ endpoint, host, method, source, status }: RequestEvent, recorder: string): string {
  let tags = 'request_metrics';
  if (endpoint !== '') tags += `,endpoint=${escapeTag(endpoint)}`;
  if (host !== '') tags += `,host=${escapeTag(host)}`;
  if (method !== '') tags += `,method=${escapeTag(method)}`;
  if (recorder !== '') tags += `,recorder=${escapeTag(recorder)}`;
  if (source !== '') tags += `,source=${escapeTag(source)}`;
  return `${tags},status_code=${status}`;
}

/** Line of a request, without its line break. */
export function requestLine(event: RequestEvent, recorder: string): string {
  const text = new TextBuffer();
  createRequestLines(recorder)(event, text);
  return text.bytes.toString();
}

/** Whether a line is from `requestLine`. */
export function isRequestLine(line: string): boolean {
  return line.startsWith('request_metrics,');
}

/** Parses the output of `requestLine`; returns `undefined` for any other text. */
export function parseRequestLine(line: string): RequestEvent | undefined {
  const parts = isRequestLine(line) ? requestLineShape.exec(line) : null;
  if (parts === null) return undefined;
  const tags = new Map(
    [...parts[1]!.matchAll(tagShape)].map(([, name, value]) => [
      name!,
      textOfTag(value!.replaceAll(/\\([,= ])/g, '$1')),
    ]),
  );
  const fields = new Map(
    [...parts[2]!.matchAll(fieldShape)].map(([, name, text, value]) => [
      name!,
      text === undefined ? value! : text.replaceAll(/\\(["\\])/g, '$1'),
    ]),
  );
  const number = (name: string): number | null => {
    const value = fields.get(name);
    return value === undefined ? null : Number(value.replace(/i$/, ''));
  };
  const uri = fields.get('uri');
  const status = Number(tags.get('status_code') ?? Number.NaN);
  if (uri === undefined || !Number.isInteger(status)) return undefined;
  return {
    source: tags.get('source') ?? '',
    ...splitNanoseconds(BigInt(parts[3]!)),
    host: tags.get('host') ?? '',
    method: tags.get('method') ?? '',
    status,
    durationMs: number('duration_ms'),
    size: number('size') ?? 0,
    bytesRead: number('bytes_read') ?? 0,
    uri: textOfUri(uri),
    endpoint: tags.get('endpoint') ?? '',
    clientIp: fields.get('client_ip') ?? '',
    userAgent: fields.get('user_agent') ?? '',
    referrer: fields.get('referrer') ?? '',
    protocol: fields.get('protocol') ?? '',
    tls: fields.get('tls') ?? '',
    upstreamMs: number('upstream_ms'),
    requestId: fields.get('request_id') ?? '',
  };
}

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

/** Encodes a tag value: see the top of this file. Also for comparisons in queries. */
export function tagText(value: string): string {
  return value.includes('\\') ? value.replaceAll(backslashBeforeEscape, '$&.') : value;
}

/** Decodes the output of `tagText`; `''` for a missing tag. */
export function textOfTag(stored: string | null | undefined): string {
  if (stored === undefined || stored === null) return '';
  return stored.includes('\\') ? stored.replaceAll(backslashBeforeEscape, (dotted) => dotted.slice(0, -1)) : stored;
}

/** Encodes a `uri`: see the top of this file. Also for comparisons in queries. */
export function uriText(uri: string): string {
  return dashesAlone.test(uri) ? `${uri}-` : uri;
}

/** Decodes the output of `uriText`. */
export function textOfUri(stored: string): string {
  return dashesAlone.test(stored) ? stored.slice(1) : stored;
}

/** Parses a time from InfluxDB, RFC 3339 in UTC with up to nine decimals: `2026-11-23T20:00:00.000000001Z`. */
export function parseTimestamp(text: string): { timeMs: number; timeNs: number } {
  const fraction = text.slice(20, -1).padEnd(9, '0');
  return {
    timeMs: Date.parse(`${text.slice(0, 19)}Z`) + Number(fraction.slice(0, 3)),
    timeNs: Number(fraction.slice(3)),
  };
}

/** Measurement and tags, fields, and time. Spaces are escaped in tags and quoted in fields. */
const requestLineShape =
  /^request_metrics((?:,[a-z_]+=(?:\\[,= ]|[^,= ])+)+) ((?:[^"]|"(?:\\.|[^"\\])*")+) (\d{1,30})$/s;
const tagShape = /,([a-z_]+)=((?:\\[,= ]|[^,= ])+)/g;
const fieldShape = /([a-z_]+)=(?:"((?:\\.|[^"\\])*)"|([-\d.e+]+i?))/gs;
const dashesAlone = /^-*$/;
/** A backslash and dots before a character that must not follow a backslash. */
const backslashBeforeEscape = /\\\.*(?=[,= ]|$)/g;
/** A single test, since few values need escaping. */
const specialInTag = /[,= \\]/;
const specialInString = /["\\]/;

function rowTime(windowMs: number, rowId: number): string {
  return nanosecondsText({ timeMs: windowMs + Math.floor(rowId / 1e6), timeNs: rowId % 1e6 });
}

function escapeTag(value: string): string {
  return specialInTag.test(value) ? tagText(value).replaceAll(/[,= ]/g, '\\$&') : value;
}

function escapeString(value: string): string {
  return specialInString.test(value) ? value.replaceAll(/["\\]/g, '\\$&') : value;
}
