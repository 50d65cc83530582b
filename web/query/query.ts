import { boundClientIp, nameLengthMax, type ClientIpPolicy } from '../../shared/record/bounds.js';
import { statusesOfClass, type StatusRange } from '../../shared/status.js';
import { parseTime, timeSyntax } from '../../shared/time-range.js';
import type { Filter, TimeRange } from '../../shared/store/store.js';

/** The parsed query of a page, a chart or an API call. */
export interface DashboardQuery extends TimeRange {
  readonly filter: Filter;
  /** Maximum number of raw requests; `undefined` for the endpoint's default. */
  readonly limit: number | undefined;
  /** Seconds between refreshes; `undefined` for none. */
  readonly refreshSeconds: number | undefined;
  /** Whether to compare figures with the previous period. */
  readonly compare: boolean;
  /** Whether the latest errors come before the latest requests. */
  readonly errorsFirst: boolean;
  /** Whether the form is open. Disables refreshing. */
  readonly editing: boolean;
  /** The raw parameters, for links that preserve them. Without empty ones, which forms send for unused fields. */
  readonly given: Readonly<Partial<Record<Parameter, string>>>;
}

/** The parameters that filter requests. */
export const filterNames = [
  'source',
  'host',
  'method',
  'status',
  'path',
  'client',
  'user_agent',
  'referrer',
  'request_id',
  'error',
  'upstream',
] as const;
/** The parameters that `parseQuery` reads. */
export const parameters = ['from', 'to', ...filterNames, 'limit', 'errors', 'refresh', 'compare', 'edit'] as const;
/** The name of a parameter. */
export type Parameter = (typeof parameters)[number];

/** An invalid parameter. The message names it, its value and what is allowed. */
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
/** Default maximum of `limit`. */
export const limitMax = 10_000;
/** Maximum length of a range, in days: ten years. */
const rangeDaysMax = 3660;

const dayMs = 86_400_000;
const timeMinMs = 0;
const timeMaxMs = Date.UTC(2200, 0, 1);
const refreshSecondsMax = 3600;
/** Maximum length of a filter value, in characters. */
const textLengthMax = 8192;

/** A parsed query string. A repeated parameter is an array. */
export type RawQuery = Readonly<Record<string, string | readonly string[] | undefined>>;

/** Options of `parseQuery`. */
export interface QueryOptions {
  /** Maximum of `limit`. Default: 10,000. */
  readonly rowsMax?: number;
  /** How client addresses are stored. `client` is truncated in the same way. Default: `full`. */
  readonly clientIp?: ClientIpPolicy | undefined;
}

/**
 * Returns the names of unknown parameters, such as the tracking parameters that mail clients and social networks add.
 */
export function unknownParameters(raw: RawQuery): string[] {
  return Object.keys(raw).filter((name) => !isParameter(name));
}

/** Reads a query, skipping invalid parameters. Returns the query and the errors of the skipped parameters. */
export function parseUsable(
  raw: RawQuery,
  nowMs: number,
  options: QueryOptions = {},
): { query: DashboardQuery; problems: readonly QueryError[] } {
  const problems: QueryError[] = [];
  let usable = raw;
  for (;;) {
    try {
      return { query: parseQuery(usable, nowMs, options), problems };
    } catch (error) {
      // The error names `from` even if `from` is a default that conflicts with `to`.
      const bad =
        error instanceof QueryError
          ? [error.parameter, 'to'].find((name) => usable[name] !== undefined && usable[name] !== '')
          : undefined;
      if (bad === undefined) throw error;
      problems.push(error as QueryError);
      usable = { ...usable, [bad]: undefined };
    }
  }
}

/** Reads a query. Ignores unknown parameters. Throws a `QueryError`. */
export function parseQuery(
  raw: RawQuery,
  nowMs: number,
  { rowsMax = limitMax, clientIp = 'full' }: QueryOptions = {},
): DashboardQuery {
  const given = readGiven(raw);
  const fromMs = readTime('from', given.from ?? defaults.from, nowMs);
  const to = given.to ?? defaults.to;
  const toMs = readTime('to', to, nowMs);
  if (fromMs >= toMs)
    throw new QueryError('from', given.from ?? defaults.from, `a time before the parameter to, which is ${quote(to)}`);
  if (toMs - fromMs > rangeDaysMax * dayMs)
    throw new QueryError(
      'from',
      given.from ?? defaults.from,
      `a time at most ${rangeDaysMax} days before the parameter to`,
    );
  const editing = given.edit !== undefined && readChoice('edit', given.edit, ['on', 'off']) === 'on';
  const refreshSeconds = readRefresh(given.refresh ?? defaults.refresh);
  return {
    fromMs,
    toMs,
    filter: readFilter(given, clientIp),
    limit: given.limit === undefined ? undefined : readInteger('limit', given.limit, rowsMax),
    // A range with a fixed end does not change, and a refresh would clear an open form.
    refreshSeconds: to.startsWith('now') && !editing ? refreshSeconds : undefined,
    compare: given.compare === undefined || readChoice('compare', given.compare, ['on', 'off']) === 'on',
    errorsFirst: given.errors !== undefined && readChoice('errors', given.errors, ['first', 'in-order']) === 'first',
    editing,
    given,
  };
}

function readGiven(raw: RawQuery): Partial<Record<Parameter, string>> {
  const given: Partial<Record<Parameter, string>> = {};
  for (const [name, value] of Object.entries(raw)) {
    if (!isParameter(name) || value === undefined || value === '') continue;
    if (typeof value !== 'string') throw new QueryError(name, value.join(', '), 'one value, given once');
    given[name] = value;
  }
  return given;
}

function readTime(name: Parameter, text: string, nowMs: number): number {
  // `datetime-local` inputs send times without a zone. Their labels say UTC.
  const timeMs = parseTime(/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?$/.test(text) ? `${text}Z` : text, nowMs);
  if (timeMs === undefined) throw new QueryError(name, text, timeSyntax);
  if (timeMs < timeMinMs || timeMs > timeMaxMs)
    throw new QueryError(name, text, 'a time between the years 1970 and 2200');
  return timeMs;
}

function readFilter(
  {
    source,
    host,
    method,
    status,
    path,
    client,
    user_agent: userAgent,
    referrer,
    request_id: requestId,
    error,
    upstream,
  }: Partial<Record<Parameter, string>>,
  clientIp: ClientIpPolicy,
): Filter {
  return {
    ...(source !== undefined && { source: readText('source', source) }),
    ...(host !== undefined && { host: readText('host', host) }),
    ...(method !== undefined && { method: readMethod(method) }),
    ...(status !== undefined && { status: readStatus(status) }),
    ...(path !== undefined && { path: readPath(path) }),
    ...(client !== undefined && { client: readClient(client, clientIp) }),
    ...(userAgent !== undefined && { userAgent: readText('user_agent', userAgent) }),
    ...(referrer !== undefined && { referrer: readReferrer(referrer) }),
    ...(requestId !== undefined && { requestId: readText('request_id', requestId, nameLengthMax) }),
    ...(error !== undefined && { error: readText('error', error) }),
    ...(upstream !== undefined && { upstream: readText('upstream', upstream, nameLengthMax) }),
  };
}

function readText(name: Parameter, text: string, lengthMax = textLengthMax): string {
  if (text.length > lengthMax) throw new QueryError(name, text, `text of at most ${lengthMax} characters`);
  return text;
}

/**
 * Returns the address as it is stored. With truncated addresses, `203.0.113.9`, `203.0.113.0` and `203.0.113.0/24` are
 * equal.
 */
function readClient(text: string, policy: ClientIpPolicy): string {
  readText('client', text, nameLengthMax);
  if (policy !== 'truncated') return text;
  return boundClientIp(text.replace(/(?<=\..*)\/24$|(?<=:.*)\/48$/, ''), policy) || text;
}

function readPath(text: string): string {
  if (text.includes('?')) throw new QueryError('path', text, 'a path without its query (no question mark)');
  return readText('path', text);
}

function readReferrer(text: string): string {
  if (/[?#]/.test(text))
    throw new QueryError(
      'referrer',
      text,
      'a referrer without its query and fragment (no question mark, no number sign)',
    );
  return readText('referrer', text);
}

/** An HTTP method is a token: RFC 9110, section 5.6.2. */
function readMethod(text: string): string {
  if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$/.test(text))
    throw new QueryError('method', text, 'an HTTP method such as GET');
  return text;
}

function readStatus(text: string): StatusRange {
  const statusClass = /^([1-5])xx$/.exec(text)?.[1];
  if (statusClass !== undefined) return statusesOfClass(Number(statusClass));
  if (!/^(0|[1-9]\d\d)$/.test(text))
    throw new QueryError('status', text, 'a status such as 404, a class from 1xx to 5xx, or 0 (no response)');
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
