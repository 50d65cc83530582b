import { BIGINT, INTEGER, VARCHAR } from '@duckdb/node-api';
import type { Filter, TimeRange } from '../../store.js';
import type { BoundValues } from './bound-values.js';

/** Nanoseconds per millisecond. */
export const nsPerMs = 1_000_000n;

/** The conditions on the start of a window. */
export function windowsIn({ fromMs, toMs }: TimeRange, values: BoundValues): string[] {
  return [
    `window_ms >= ${values.add(BigInt(Math.ceil(fromMs)), BIGINT)}`,
    `window_ms < ${values.add(BigInt(Math.ceil(toMs)), BIGINT)}`,
  ];
}

/** The conditions on a row of `request_metrics`. */
export function requestConditions(
  { fromMs, toMs, filter }: TimeRange & { filter: Filter },
  values: BoundValues,
): string {
  return filterConditions(
    filter,
    [
      `time_ns >= ${values.add(BigInt(Math.ceil(fromMs)) * nsPerMs, BIGINT)}`,
      `time_ns < ${values.add(BigInt(Math.ceil(toMs)) * nsPerMs, BIGINT)}`,
    ],
    values,
  );
}

/** The conditions of a filter on a row of `request_metrics`, after those on its time. */
export function filterConditions(filter: Filter, times: readonly string[], values: BoundValues): string {
  const { path, client, userAgent, referrer, requestId, error, upstream } = filter;
  const found = [...times, ...seriesConditions(filter, values)];
  const addWholeOrStart = (column: string, text: string, marks: readonly string[]): void => {
    const name = values.add(text, VARCHAR);
    found.push(
      `(${[`${column} = ${name}`, ...marks.map((mark) => `starts_with(${column}, ${name} || '${mark}')`)].join(' OR ')})`,
    );
  };
  if (path !== undefined) addWholeOrStart('uri', path, ['?']);
  if (referrer !== undefined) addWholeOrStart('referrer', referrer, ['?', '#']);
  if (client !== undefined) found.push(`client_ip = ${values.add(client, VARCHAR)}`);
  if (userAgent !== undefined) found.push(`user_agent = ${values.add(userAgent, VARCHAR)}`);
  if (requestId !== undefined) found.push(`request_id = ${values.add(requestId, VARCHAR)}`);
  if (error !== undefined) found.push(`error = ${values.add(error, VARCHAR)}`);
  if (upstream !== undefined) found.push(`upstream = ${values.add(upstream, VARCHAR)}`);
  return found.join(' AND ');
}

/** The conditions of a filter on the labels of a series, which every table of rows has. */
export function seriesConditions(
  { source, exceptSource, host, method, status }: Filter,
  values: BoundValues,
): string[] {
  const found: string[] = [];
  if (source !== undefined) found.push(`source = ${values.add(source, VARCHAR)}`);
  if (exceptSource !== undefined) found.push(`source <> ${values.add(exceptSource, VARCHAR)}`);
  if (host !== undefined) found.push(`host = ${values.add(host, VARCHAR)}`);
  if (method !== undefined) found.push(`method = ${values.add(method, VARCHAR)}`);
  if (status !== undefined)
    found.push(`status_code BETWEEN ${values.add(status.min, INTEGER)} AND ${values.add(status.max, INTEGER)}`);
  return found;
}
