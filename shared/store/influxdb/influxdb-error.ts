/**
 * What InfluxDB or the way to it said, as a `StoreError` that says what to do. The status codes and what to do about each
 * are those of InfluxDB's write API (2.7); reads follow the same.
 */
import { HttpError } from '@influxdata/influxdb-client';
import { messageOf, StoreError, type StoreErrorAction } from '../../errors.js';

/** A `StoreError` of InfluxDB, with what a delivery needs to know. */
export class InfluxdbError extends StoreError {
  /** The body was more than InfluxDB, or a proxy, takes at once, or takes in time: less may go through. */
  readonly tooLarge: boolean;
  /** How many lines of the body were refused, where InfluxDB says so; the others are written. */
  readonly refusedLines: number | undefined;

  constructor(action: StoreErrorAction, message: string, { tooLarge = false, refusedLines, ...options }: { cause?: unknown; retryAfterMs?: number; tooLarge?: boolean; refusedLines?: number | undefined } = {}) {
    super(action, message, options);
    this.tooLarge = tooLarge;
    this.refusedLines = refusedLines;
  }
}

/** Where the store is, and the token, which must be in no message. */
export interface InfluxdbPlace {
  /** Without user and password. */
  readonly url: string;
  readonly org: string;
  readonly bucket: string;
  readonly token: string;
}

/**
 * The error to throw for what was caught while doing `action` (`write 500 lines`).
 *
 * Busy, down, unreachable, too slow: `retry`, with `retryAfterMs` where the server says so. A token, bucket or
 * organisation that is not right, or an address where no InfluxDB answers: `hold`. A batch that it will never take: `drop`.
 */
export function influxdbError(action: string, caught: unknown, place: InfluxdbPlace): StoreError {
  if (caught instanceof StoreError) return caught;
  const { url, token } = place;
  const hide = (text: string): string => (token === '' ? text : text.replaceAll(token, '[token]'));
  const failed = `Cannot ${action} at ${url}`;
  if (!(caught instanceof HttpError) && !fromNetwork(caught)) return new InfluxdbError('drop', `${failed}: ${hide(messageOf(caught))}`, { cause: caught });
  // From here on the cause is left out on purpose: requests and answers hang on it, and with them the token.
  if (!(caught instanceof HttpError)) {
    return new InfluxdbError('retry', `${failed}: ${hide(reasonOf(caught))}. Check that InfluxDB is running there and can be reached.`, { tooLarge: isTimeout(caught) });
  }
  const { statusCode } = caught;
  const said = `${failed}: InfluxDB answered ${statusCode}${caught.message ? ` (${hide(caught.message).slice(0, 500)})` : ''}.`;
  if (statusCode === 429 || statusCode >= 500) {
    const retryAfterMs = parseRetryAfter(caught.headers?.['retry-after']);
    return new InfluxdbError('retry', `${said} It is busy or not ready; the same can be tried later.`, retryAfterMs === undefined ? {} : { retryAfterMs });
  }
  // Queries, unlike writes, answer 400 for an organisation that is not there.
  if (statusCode === 400 && /organization name .* not found/.test(caught.message)) return new InfluxdbError('hold', `${said} ${advice(404, place)}`);
  if (statusCode === 400 || statusCode === 413 || statusCode === 422) {
    const dropped = /dropped=(\d{1,9})/.exec(caught.message)?.[1];
    return new InfluxdbError('drop', `${said} It will not take this, now or later.`, { tooLarge: statusCode === 413, refusedLines: dropped === undefined ? undefined : Number(dropped) });
  }
  return new InfluxdbError('hold', `${said} ${advice(statusCode, place)}`);
}

/**
 * The wait in milliseconds that the header `Retry-After` asks for: whole seconds, or a date (RFC 9110, 10.2.3).
 * `undefined` when there is none or it is neither.
 */
export function parseRetryAfter(header: string | readonly string[] | undefined, nowMs = Date.now()): number | undefined {
  const text = typeof header === 'string' ? header : header?.[0];
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const dateMs = Date.parse(text);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}

function advice(statusCode: number, { org, bucket }: InfluxdbPlace): string {
  if (statusCode === 401) {
    return `INFLUXDB_TOKEN is missing, wrong or no longer valid: create a token for the bucket ${JSON.stringify(bucket)} in the organisation ${JSON.stringify(org)} and set INFLUXDB_TOKEN to it.`;
  }
  if (statusCode === 403) {
    return `INFLUXDB_TOKEN is not allowed to do this: the collector's token needs write on the bucket ${JSON.stringify(bucket)}, the web app's read and write.`;
  }
  if (statusCode === 404) {
    return `Create the bucket ${JSON.stringify(bucket)} in the organisation ${JSON.stringify(org)}, or set INFLUXDB_BUCKET and INFLUXDB_ORG to those that are there and that the token may see.`;
  }
  return 'This is not how InfluxDB 2.x answers: check that INFLUXDB_URL leads to it.';
}

/** Errors of sockets, TLS and name resolution have a code of their own; those of time have a name. */
function fromNetwork(caught: unknown): boolean {
  return isTimeout(caught) || typeof (caught as { code?: unknown } | null)?.code === 'string';
}

function isTimeout(caught: unknown): boolean {
  return caught instanceof Error && ['AbortError', 'TimeoutError', 'RequestTimedOutError'].includes(caught.name);
}

function reasonOf(caught: unknown): string {
  if (isTimeout(caught)) return 'there was no whole answer in time';
  const message = messageOf(caught);
  const { code } = caught as { code: string };
  return message.includes(code) ? message : `${code} ${message}`.trim();
}
