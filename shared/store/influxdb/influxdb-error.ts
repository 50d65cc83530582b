/**
 * Converts errors of InfluxDB and of the network to a `StoreError` with advice. Status codes are handled as
 * InfluxDB's write API (2.7) documents them; reads follow the same rules.
 */
import { HttpError } from '@influxdata/influxdb-client';
import { messageOf, stackOf, StoreError, type StoreErrorAction } from '../../errors.js';

/** A `StoreError` of InfluxDB with additional data for deliveries. */
export class InfluxdbError extends StoreError {
  /** The body was too large for InfluxDB or a proxy, or took too long. A smaller one may succeed. */
  readonly tooLarge: boolean;
  /** Number of rejected lines, if InfluxDB reports it; the others are written. */
  readonly refusedLines: number | undefined;

  constructor(
    action: StoreErrorAction,
    message: string,
    {
      tooLarge = false,
      refusedLines,
      ...options
    }: {
      cause?: unknown;
      retryAfterMs?: number;
      tooLarge?: boolean;
      refusedLines?: number | undefined;
      detail?: string;
    } = {},
  ) {
    super(action, message, options);
    this.tooLarge = tooLarge;
    this.refusedLines = refusedLines;
  }
}

/** Location of the store, and the token, which no message may contain. */
export interface InfluxdbPlace {
  /** Without user and password. */
  readonly url: string;
  readonly org: string;
  readonly bucket: string;
  readonly token: string;
}

/**
 * Converts an error caught during `action` (`write 500 lines`). Its message is for users; the original message is its
 * `detail`. `sinceMs` is when InfluxDB first became unavailable, in milliseconds since 1970.
 *
 * Busy, down, unreachable, too slow: `retry`, with `retryAfterMs` if the server sent it. A wrong token, bucket,
 * organisation or address, or an unknown error, such as a bug of this program: `hold`. Only a response that rejects
 * the lines of a write (`isWrite`) permanently is `drop`: see `rejectsLines`.
 */
export function influxdbError(
  action: string,
  caught: unknown,
  place: InfluxdbPlace,
  { sinceMs, isWrite = false }: { sinceMs?: number | undefined; isWrite?: boolean } = {},
): StoreError {
  if (caught instanceof StoreError) return caught;
  const { url, token } = place;
  const hide = (text: string): string => (token === '' ? text : text.replaceAll(token, '[token]'));
  const since =
    sinceMs === undefined ? '' : ` since ${new Date(sinceMs).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
  // The cause is omitted on purpose: it references the request and response, and with them the token.
  if (!(caught instanceof HttpError)) {
    const detail = `Cannot ${action}: ${hide(reasonOf(caught))}`;
    return fromNetwork(caught)
      ? new InfluxdbError(
          'retry',
          `InfluxDB at ${url} cannot be reached${since}: ${networkReason(caught)}. Check that InfluxDB is running there and can be reached.`,
          { tooLarge: isTimeout(caught), detail },
        )
      : new InfluxdbError(
          'hold',
          `Cannot use InfluxDB at ${url}${since}, for an unexpected reason. The log has the details; please report them. Nothing is discarded meanwhile.`,
          { detail: `${detail} ${hide(topFramesOf(caught))}`.trim() },
        );
  }
  const { statusCode } = caught;
  const detail = `Cannot ${action}: InfluxDB answered ${statusCode}${caught.message ? ` (${hide(caught.message).slice(0, 500)})` : ''}`;
  if (isUnavailable(caught)) {
    const retryAfterMs = parseRetryAfter(caught.headers?.['retry-after']);
    return new InfluxdbError(
      'retry',
      `InfluxDB at ${url} is busy or not ready${since} (status ${statusCode}). Retrying.`,
      { detail, ...(retryAfterMs !== undefined && { retryAfterMs }) },
    );
  }
  // Queries, unlike writes, return 400 for a missing organisation.
  if (statusCode === 400 && /organization name .* not found/.test(caught.message))
    return new InfluxdbError('hold', advice(404, place), { detail });
  if (rejectsLines(caught)) {
    const dropped = /dropped=(\d{1,9})/.exec(caught.message)?.[1];
    return new InfluxdbError(
      isWrite ? 'drop' : 'hold',
      `InfluxDB at ${url} rejected the request (status ${statusCode}).`,
      {
        tooLarge: statusCode === 413,
        refusedLines: dropped === undefined ? undefined : Number(dropped),
        detail,
      },
    );
  }
  return new InfluxdbError('hold', advice(statusCode, place), { detail });
}

/**
 * Whether a response is about the request's body. A 400 or 422 has to be InfluxDB's own, in JSON with a `code`: that of
 * a proxy says nothing about the lines. Proxies limit sizes, too (413).
 */
function rejectsLines({ statusCode, code }: HttpError): boolean {
  return statusCode === 413 || ((statusCode === 400 || statusCode === 422) && code !== undefined);
}

/** Whether a thrown value means that InfluxDB is down, unreachable, too slow or busy: a retry may succeed. */
export function isUnavailable(caught: unknown): boolean {
  return caught instanceof HttpError ? caught.statusCode === 429 || caught.statusCode >= 500 : fromNetwork(caught);
}

/**
 * Parses the header `Retry-After` into milliseconds: whole seconds, or a date (RFC 9110, 10.2.3). Returns `undefined`
 * if it is missing or invalid.
 */
export function parseRetryAfter(
  header: string | readonly string[] | undefined,
  nowMs = Date.now(),
): number | undefined {
  const text = typeof header === 'string' ? header : header?.[0];
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const dateMs = Date.parse(text);
  return Number.isNaN(dateMs) ? undefined : Math.max(0, dateMs - nowMs);
}

function advice(statusCode: number, { url, org, bucket }: InfluxdbPlace): string {
  const [bucketName, orgName] = [JSON.stringify(bucket), JSON.stringify(org)];
  switch (statusCode) {
    case 401:
      return `InfluxDB at ${url} rejected the token. INFLUXDB_TOKEN is missing, wrong or no longer valid: create a token for the bucket ${bucketName} in the organisation ${orgName} and set INFLUXDB_TOKEN to it.`;
    case 403:
      return `InfluxDB at ${url} does not allow this. INFLUXDB_TOKEN is not allowed to do this: the collector's token needs write on the bucket ${bucketName}, the web app's read and write.`;
    case 404:
      return `InfluxDB at ${url} does not have the bucket. Create the bucket ${bucketName} in the organisation ${orgName}, or set INFLUXDB_BUCKET and INFLUXDB_ORG to existing ones that the token can read.`;
    default:
      return `${url} answered with status ${statusCode}. This is not how InfluxDB 2.x answers: check that INFLUXDB_URL leads to it.`;
  }
}

/** Errors of sockets, TLS and name resolution have a `code`; timeouts have a name. */
function fromNetwork(caught: unknown): boolean {
  return isTimeout(caught) || typeof (caught as { code?: unknown } | null)?.code === 'string';
}

function isTimeout(caught: unknown): boolean {
  return caught instanceof Error && ['AbortError', 'TimeoutError', 'RequestTimedOutError'].includes(caught.name);
}

function reasonOf(caught: unknown): string {
  const message = messageOf(caught);
  const code = (caught as { code?: unknown } | null | undefined)?.code;
  return typeof code !== 'string' || message.includes(code) ? message : `${code} ${message}`.trim();
}

/** Top stack frames of an error that is not from the network. */
function topFramesOf(caught: unknown): string {
  return stackOf(caught)
    .split('\n')
    .slice(1, 4)
    .map((line) => line.trim())
    .join(' ');
}

/** Explains a network error: error codes of Node and OpenSSL in words. */
function networkReason(caught: unknown): string {
  if (isTimeout(caught)) return 'there was no complete response in time';
  const { code } = caught as { code: string };
  if (code === 'ECONNREFUSED') return 'nothing listens at that address';
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'its name cannot be resolved';
  if (code === 'EHOSTUNREACH' || code === 'ENETUNREACH' || code === 'ETIMEDOUT') return 'the machine does not answer';
  if (/CERT|SIGNATURE|ISSUER|TLS|SSL/.test(code))
    return 'the TLS connection failed, perhaps because its certificate is not trusted';
  return 'the connection broke off';
}
