import { request } from 'node:http';
import { messageOf, UsageError } from '../shared/errors.js';

/** What Caddy's admin API answered. */
export interface AdminAnswer {
  readonly status: number;
  readonly text: string;
  /** The version of what was read, for `ifMatch`; empty where the answer has none. */
  readonly etag: string;
}

/** One call of the admin API. */
export interface AdminCall {
  /** `GET` when not given. */
  readonly method?: 'GET' | 'PUT' | 'PATCH' | 'DELETE';
  /** Sent as JSON. */
  readonly body?: unknown;
  /** The `etag` of an earlier answer: Caddy answers 412 and changes nothing when that part has changed since. */
  readonly ifMatch?: string;
  /** 5000 when not given. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

const answerBytesMax = 100 * 2 ** 20; // as `maxConfigSize` in Caddy's admin.go

/** Reads the address of an admin API, such as `http://127.0.0.1:2019`. Throws a `UsageError` that names `what`. */
export function adminUrlFrom(text: string, what: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' || url.host === '' || !/^\/(config\/?)?$/.test(url.pathname)) {
    throw new UsageError(`${what} is ${JSON.stringify(text)}: it must be the address of Caddy's admin API, such as http://127.0.0.1:2019.`);
  }
  return new URL('/', url);
}

/**
 * Calls the admin API. Any status is an answer. Rejects when there is none in time. Caddy closes its admin endpoint and opens
 * it anew with every change of the configuration, so a read that is cut off is made once more.
 */
export async function callAdmin(admin: URL, path: string, call: AdminCall = {}): Promise<AdminAnswer> {
  return await callOnce(admin, path, call).catch((error: unknown) => {
    const isCutOff = error instanceof Error && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNRESET';
    if (!isCutOff || (call.method ?? 'GET') !== 'GET') throw error;
    return callOnce(admin, path, call);
  });
}

/** Not with `fetch`: it says `Sec-Fetch-Mode`, so Caddy takes it for a browser and wants an origin that it knows. */
function callOnce(admin: URL, path: string, { method = 'GET', body, ifMatch, timeoutMs = 5000, signal }: AdminCall): Promise<AdminAnswer> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const text = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      const why = deadline.aborted ? `there was no answer within ${timeoutMs} ms` : messageOf(error) || 'nothing listens there';
      reject(new Error(`${method} ${new URL(path, admin).href} failed: ${why}`, { cause: error }));
    };
    const call = request(new URL(path, admin), {
      method,
      agent: false, // no connection is worth keeping: see above
      signal: signal === undefined ? deadline : AbortSignal.any([deadline, signal]),
      headers: {
        ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
        ...(ifMatch !== undefined && { 'if-match': ifMatch }),
      },
    }, (response) => {
      let answer = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        answer += chunk;
        if (answer.length > answerBytesMax) response.destroy(new Error('the answer is longer than 100 MiB'));
      });
      response.once('error', fail);
      response.once('end', () => resolve({ status: response.statusCode!, text: answer, etag: response.headers.etag ?? '' }));
    });
    call.once('error', fail);
    call.end(text);
  });
}

/** What Caddy says is wrong, out of an answer such as `{"error":"…"}`. */
export function errorOf({ status, text }: AdminAnswer): string {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === 'string') return `${status} ${error}`;
  } catch {
    // not JSON: said as it is
  }
  return `${status} ${text.slice(0, 300).trim()}`.trim();
}
