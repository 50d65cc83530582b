import { nameLengthMax } from '../../shared/bounds.js';
import { parseTime, timeSyntax } from '../../shared/time-range.js';
import type { Filter, TimeRange } from '../../shared/store/store.js';

/** What the URL of a page, a chart or an API call asks for. */
export interface DashboardQuery extends TimeRange {
  readonly filter: Filter;
  /** How many raw requests, at most; `undefined` leaves it to the endpoint. */
  readonly limit: number | undefined;
  /** Seconds until the page loads itself again; `undefined` for never. */
  readonly refreshSeconds: number | undefined;
  /** Whether figures are compared with the previous period. */
  readonly compare: boolean;
  /** Whether the latest errors come before the latest requests. */
  readonly errorsFirst: boolean;
  /** Whether the form is open: then nothing loads by itself. */
  readonly editing: boolean;
  /** The parameters as they were given, for links that keep them. Empty ones are left out, as forms send them. */
  readonly given: Readonly<Partial<Record<Parameter, string>>>;
}

/** The parameters that take requests away. */
export const filterNames = ['source', 'host', 'method', 'status', 'path', 'client', 'user_agent', 'referrer', 'request_id'] as const;
/** The parameters that `parseQuery` knows. */
export const parameters = ['from', 'to', ...filterNames, 'limit', 'errors', 'refresh', 'compare', 'edit'] as const;
/** One of them. */
export type Parameter = (typeof parameters)[number];

/** A parameter that cannot be used. The message names it, the value and what is allowed. */
export class QueryError extends Error {
  override readonly name = 'QueryError';
  readonly parameter: string;
  readonly value: string;

  constructor(parameter: string, value: string, allowed: string) {
    super(`The parameter ${parameter} is ${quote(value)}; allowed is ${allowed}.`);
    this.parameter = parameter;
    this.value = value;
  }
}

/** Defaults of `from`, `to` and `refresh`. */
export const defaults = { from: 'now-1h', to: 'now', refresh: '5' } as const;
/** The greatest `limit`: what one answer can carry at ease. */
export const limitMax = 10_000;
/** The greatest distance of `from` and `to`, in days: ten years. */
const rangeDaysMax = 3660;

const dayMs = 86_400_000;
const timeMinMs = 0;
const timeMaxMs = Date.UTC(2200, 0, 1);
const refreshSecondsMax = 3600;
/** Hosts and paths as strangers send them are long at times; beyond this they are nonsense. */
const textLengthMax = 8192;

/**
 * Reads a parsed query string (a parameter that is repeated has an array). `rowsMax` is the greatest `limit`: 10,000 unless given. Throws a
 * `QueryError`.
 */
export function parseQuery(raw: Readonly<Record<string, string | readonly string[] | undefined>>, nowMs: number, { rowsMax = limitMax } = {}): DashboardQuery {
  const given = readGiven(raw);
  const fromMs = readTime('from', given.from ?? defaults.from, nowMs);
  const to = given.to ?? defaults.to;
  const toMs = readTime('to', to, nowMs);
  if (fromMs >= toMs) throw new QueryError('from', given.from ?? defaults.from, `a time before the parameter to, which is ${quote(to)}`);
  if (toMs - fromMs > rangeDaysMax * dayMs) throw new QueryError('from', given.from ?? defaults.from, `a time at most ${rangeDaysMax} days before the parameter to`);
  const editing = given.edit !== undefined && readChoice('edit', given.edit, ['on', 'off']) === 'on';
  const refreshSeconds = readRefresh(given.refresh ?? defaults.refresh);
  return {
    fromMs,
    toMs,
    filter: readFilter(given),
    limit: given.limit === undefined ? undefined : readInteger('limit', given.limit, rowsMax),
    // A range with a fixed end does not change: there is nothing to refresh. And a form must not be emptied under one's hands.
    refreshSeconds: to.startsWith('now') && !editing ? refreshSeconds : undefined,
    compare: given.compare === undefined || readChoice('compare', given.compare, ['on', 'off']) === 'on',
    errorsFirst: given.errors !== undefined && readChoice('errors', given.errors, ['first', 'in-order']) === 'first',
    editing,
    given,
  };
}

function readGiven(raw: Readonly<Record<string, string | readonly string[] | undefined>>): Partial<Record<Parameter, string>> {
  const given: Partial<Record<Parameter, string>> = {};
  for (const [name, value] of Object.entries(raw)) {
    if (!isParameter(name)) throw new QueryError(name, String(value), `one of the parameters ${parameters.join(', ')}`);
    if (value === undefined || value === '') continue;
    if (typeof value !== 'string') throw new QueryError(name, value.join(', '), 'one value, given once');
    given[name] = value;
  }
  return given;
}

function readTime(name: Parameter, text: string, nowMs: number): number {
  // What a form's `datetime-local` sends has no zone: the page says that it means UTC.
  const timeMs = parseTime(/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/.test(text) ? `${text}Z` : text, nowMs);
  if (timeMs === undefined) throw new QueryError(name, text, timeSyntax);
  if (timeMs < timeMinMs || timeMs > timeMaxMs) throw new QueryError(name, text, 'a time between the years 1970 and 2200');
  return timeMs;
}

function readFilter({ source, host, method, status, path, client, user_agent: userAgent, referrer, request_id: requestId }: Partial<Record<Parameter, string>>): Filter {
  return {
    ...(source !== undefined && { source: readText('source', source) }),
    ...(host !== undefined && { host: readText('host', host) }),
    ...(method !== undefined && { method: readMethod(method) }),
    ...(status !== undefined && { status: readStatus(status) }),
    ...(path !== undefined && { path: readPath(path) }),
    ...(client !== undefined && { client: readText('client', client, nameLengthMax) }),
    ...(userAgent !== undefined && { userAgent: readText('user_agent', userAgent) }),
    ...(referrer !== undefined && { referrer: readReferrer(referrer) }),
    ...(requestId !== undefined && { requestId: readText('request_id', requestId, nameLengthMax) }),
  };
}

function readText(name: Parameter, text: string, lengthMax = textLengthMax): string {
  if (text.length > lengthMax) throw new QueryError(name, text, `text of at most ${lengthMax} characters`);
  return text;
}

function readPath(text: string): string {
  if (text.includes('?')) throw new QueryError('path', text, 'a path without its query (no question mark)');
  return readText('path', text);
}

function readReferrer(text: string): string {
  if (/[?#]/.test(text)) throw new QueryError('referrer', text, 'a referrer without its query and fragment (no question mark, no number sign)');
  return readText('referrer', text);
}

/** An HTTP method is a token: RFC 9110, section 5.6.2. */
function readMethod(text: string): string {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/.test(text)) throw new QueryError('method', text, 'an HTTP method such as GET');
  return text;
}

function readStatus(text: string): { min: number; max: number } {
  const statusClass = /^([1-5])xx$/.exec(text)?.[1];
  if (statusClass !== undefined) return { min: Number(statusClass) * 100, max: Number(statusClass) * 100 + 99 };
  if (!/^(0|[1-9]\d\d)$/.test(text)) throw new QueryError('status', text, 'a status such as 404, a class from 1xx to 5xx, or 0 (no response)');
  return { min: Number(text), max: Number(text) };
}

function readChoice(name: Parameter, text: string, choices: readonly string[]): string {
  if (!choices.includes(text)) throw new QueryError(name, text, choices.join(' or '));
  return text;
}

function readRefresh(text: string): number | undefined {
  return text === 'off' ? undefined : readInteger('refresh', text, refreshSecondsMax, 'off or ');
}

function readInteger(name: Parameter, text: string, max: number, orElse = ''): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(value >= 1 && value <= max)) throw new QueryError(name, text, `${orElse}a whole number from 1 to ${max}`);
  return value;
}

function isParameter(name: string): name is Parameter {
  return (parameters as readonly string[]).includes(name);
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text);
}
