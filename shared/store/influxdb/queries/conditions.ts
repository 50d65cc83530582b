/**
 * The conditions of a Flux query. Every value goes through the `flux` template, every text through `fluxText`.
 *
 * InfluxDB evaluates a `filter` while it reads if it compares tags or the value with `==` or a regular expression.
 * Filters that call functions run row by row afterwards, and `<` and `>` on texts match nothing (seen with 2.7.12).
 */
import { flux, fluxExpression, fluxRegExp, type ParameterizedQuery } from '@influxdata/influxdb-client';
import type { Filter } from '../../store.js';
import { fluxText, fluxWholeOrStart } from '../flux-text.js';
import { tagText, uriText } from '../line-values.js';

/** Returns the condition on tags, to append to another. */
export function andSeries({ source, exceptSource, host, method, status }: Filter): ParameterizedQuery {
  let condition = flux``;
  if (source !== undefined) condition = flux`${condition} and ${tagIs(flux`r.source`, source)}`;
  if (exceptSource !== undefined)
    condition = flux`${condition} and (not exists r.source or r.source != ${fluxText(tagText(exceptSource))})`;
  if (host !== undefined) condition = flux`${condition} and ${tagIs(flux`r.host`, host)}`;
  if (method !== undefined) condition = flux`${condition} and ${tagIs(flux`r.method`, method)}`;
  if (status !== undefined) condition = flux`${condition} and r.status_code =~ ${fluxRegExp(statusPattern(status))}`;
  return condition;
}

/** Returns a condition on a tag. A missing tag stands for an empty value, and equals nothing. */
export function tagIs(tag: ParameterizedQuery, value: string): ParameterizedQuery {
  return value === '' ? flux`not exists ${tag}` : flux`${tag} == ${fluxText(tagText(value))}`;
}

/** Returns the conditions of a filter on fields of a request. A missing field stands for an empty value. */
function fieldConditions({
  path,
  client,
  userAgent,
  referrer,
  requestId,
  error,
  upstream,
}: Filter): { field: string; expected: string; condition: (value: ParameterizedQuery) => ParameterizedQuery }[] {
  const is = (text: string) => (value: ParameterizedQuery) => flux`${value} == ${fluxText(text)}`;
  const startsAs =
    (whole: string, ...starts: string[]) =>
    (value: ParameterizedQuery) =>
      flux`${value} =~ ${fluxWholeOrStart(whole, ...starts)}`;
  return [
    ...(client === undefined ? [] : [{ field: 'client_ip', expected: client, condition: is(client) }]),
    ...(userAgent === undefined ? [] : [{ field: 'user_agent', expected: userAgent, condition: is(userAgent) }]),
    ...(requestId === undefined ? [] : [{ field: 'request_id', expected: requestId, condition: is(requestId) }]),
    ...(error === undefined ? [] : [{ field: 'error', expected: error, condition: is(error) }]),
    ...(upstream === undefined ? [] : [{ field: 'upstream', expected: upstream, condition: is(upstream) }]),
    ...(referrer === undefined
      ? []
      : [{ field: 'referrer', expected: referrer, condition: startsAs(referrer, `${referrer}?`, `${referrer}#`) }]),
    ...(path === undefined
      ? []
      : [{ field: 'uri', expected: uriText(path), condition: startsAs(uriText(path), `${path}?`) }]),
  ];
}

/** Selects one row of each request whose fields match the filter. */
export function havingFields(filter: Filter): ParameterizedQuery {
  const conditions = fieldConditions(filter);
  const [first] = conditions;
  if (first === undefined) return flux`\n  |> filter(fn: (r) => r._field == "uri")`;
  // InfluxDB evaluates a condition on a single field while it reads.
  if (conditions.length === 1 && first.expected !== '')
    return flux`\n  |> filter(fn: (r) => r._field == ${first.field} and ${first.condition(flux`r._value`)})`;
  const fields = new RegExp(`^(uri|${conditions.map(({ field }) => field).join('|')})$`);
  return flux`
  |> filter(fn: (r) => r._field =~ ${fluxRegExp(fields)})
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.uri${andFields(filter)})`;
}

/** Returns the conditions on the fields of reassembled requests, to append to another. */
export function andFields(filter: Filter): ParameterizedQuery {
  return fieldConditions(filter).reduce((all, { field, expected, condition }) => {
    const value = flux`r.${fluxExpression(field)}`;
    return expected === ''
      ? flux`${all} and (not exists ${value} or ${condition(value)})`
      : flux`${all} and exists ${value} and ${condition(value)}`;
  }, flux``);
}

/** Lists every status of the range: tags are text, which does not compare numerically. */
function statusPattern({ min, max }: { min: number; max: number }): RegExp {
  const statuses: number[] = [];
  for (let status = Math.max(0, min); status <= Math.min(999, max); status += 1) statuses.push(status);
  return statuses.length === 0 ? /^none$/ : new RegExp(`^(${statuses.join('|')})$`);
}
