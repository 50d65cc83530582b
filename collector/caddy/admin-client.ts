import { request, type OutgoingHttpHeaders } from 'node:http';
import { messageOf, UsageError } from '../../shared/errors.js';

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

/** Each change by somebody else cuts off what is under way. */
const readTriesMax = 3;
const answerBytesMax = 100 * 2 ** 20; // as `maxConfigSize` in Caddy's admin.go

/**
 * Reads the address of an admin API, `http://127.0.0.1:2019` or, as Caddy writes it, `unix//run/caddy/admin.sock`; the
 * latter becomes the URL `unix:///run/caddy/admin.sock`. Throws a `UsageError` that names `what`.
 */
export function adminUrlFrom(text: string, what: string): URL {
  const socket = unixSocketOf(text);
  if (socket !== undefined) return new URL(`unix://${encodeURI(socket)}`);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' || url.host === '' || !/^\/(config\/?)?$/.test(url.pathname)) {
    throw new UsageError(
      `${what} is ${JSON.stringify(text)}: it must be the address of Caddy's admin API, such as http://127.0.0.1:2019 or unix//run/caddy/admin.sock.`,
    );
  }
  return new URL('/', url);
}

/** Whether the text is meant as the address of an admin API, right or wrong, and not as a file. */
export function isAdminUrl(text: string): boolean {
  return /^https?:\/\//.test(text) || unixSocketOf(text) !== undefined;
}

/** What a person runs to call the admin API: the arguments of `curl`. */
export function curlArguments(admin: URL, path: string): string {
  return admin.protocol === 'unix:'
    ? `--unix-socket ${decodeURI(admin.pathname)} http://127.0.0.1${path}`
    : new URL(path, admin).href;
}

function unixSocketOf(text: string): string | undefined {
  return /^unix(?:\/|:\/\/)(\/[^|]+)(?:\|\d+)?$/.exec(text)?.[1]; // `|0660` is the mode that Caddy gives it
}

/**
 * Calls the admin API. Any status is an answer. Rejects when there is none in time. Caddy closes its admin endpoint and
 * opens it anew with every change of the configuration, so a read that is cut off is made again.
 */
export async function callAdmin(admin: URL, path: string, call: AdminCall = {}): Promise<AdminAnswer> {
  let answer = callOnce(admin, path, call);
  for (let tries = 1; tries < readTriesMax && (call.method ?? 'GET') === 'GET'; tries += 1) {
    answer = answer.catch((error: unknown) => {
      if (!isCutOff(error)) throw error;
      return callOnce(admin, path, call);
    });
  }
  const first = await answer;
  // With `enforce_origin` Caddy wants an origin; without it, Caddy looks at one only to refuse those that it does not
  // know.
  return first.status === 403 && first.text.includes('origin')
    ? await callOnce(admin, path, call, { origin: originOf(admin) })
    : first;
}

/** Whether a call was made, and nobody knows what became of it: Caddy closed the connection. */
export function isCutOff(error: unknown): boolean {
  return error instanceof Error && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNRESET';
}

/** On a unix socket as Caddy's own commands have it: AdminAPIRequest in cmd/commandfuncs.go. */
function originOf(admin: URL): string {
  return admin.protocol === 'unix:' ? 'http://127.0.0.1' : admin.origin;
}

/** Not with `fetch`: it says `Sec-Fetch-Mode`, so Caddy takes it for a browser and wants an origin that it knows. */
function callOnce(
  admin: URL,
  path: string,
  { method = 'GET', body, ifMatch, timeoutMs = 5000, signal }: AdminCall,
  more: OutgoingHttpHeaders = {},
): Promise<AdminAnswer> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const text = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      const why = deadline.aborted
        ? `there was no answer within ${timeoutMs} ms`
        : messageOf(error) || 'nothing listens there';
      reject(
        new Error(
          `${method} ${admin.protocol === 'unix:' ? `${path} at ${decodeURI(admin.pathname)}` : new URL(path, admin).href} failed: ${why}`,
          { cause: error },
        ),
      );
    };
    const call = request(
      new URL(path, originOf(admin)),
      {
        method,
        ...(admin.protocol === 'unix:' && { socketPath: decodeURI(admin.pathname) }),
        agent: false, // no connection is worth keeping: see above
        signal: signal === undefined ? deadline : AbortSignal.any([deadline, signal]),
        headers: {
          ...more,
          ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
          ...(ifMatch !== undefined && { 'if-match': ifMatch }),
        },
      },
      (response) => {
        let answer = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          answer += chunk;
          if (answer.length > answerBytesMax) response.destroy(new Error('the answer is longer than 100 MiB'));
        });
        response.once('error', fail);
        response.once('end', () =>
          resolve({ status: response.statusCode!, text: answer, etag: response.headers.etag ?? '' }),
        );
      },
    );
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
