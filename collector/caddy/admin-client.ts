import { request, type OutgoingHttpHeaders } from 'node:http';
import { messageOf, UsageError } from '../../shared/errors.js';

/** A response of Caddy's admin API. */
export interface AdminAnswer {
  readonly status: number;
  readonly text: string;
  /** Version of the configuration, for `ifMatch`; empty if the response has none. */
  readonly etag: string;
}

/** Options of a call. */
export interface AdminCall {
  /** Default: `GET`. */
  readonly method?: 'GET' | 'PUT' | 'PATCH' | 'DELETE';
  /** Sent as JSON. */
  readonly body?: unknown;
  /** The `etag` of an earlier response. If that part has changed since, Caddy answers 412 and changes nothing. */
  readonly ifMatch?: string;
  /** Default: 5000. */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** Maximum number of attempts of a read: each change of the configuration resets open connections. */
const readTriesMax = 3;
const answerBytesMax = 100 * 2 ** 20; // as `maxConfigSize` in Caddy's admin.go

/**
 * Parses the address of an admin API: `http://127.0.0.1:2019`, or `unix//run/caddy/admin.sock` as Caddy writes it,
 * which becomes `unix:///run/caddy/admin.sock`. Throws a `UsageError` that starts with `what`.
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

/** Whether the text looks like the address of an admin API, valid or not, rather than a file. */
export function isAdminUrl(text: string): boolean {
  return /^https?:\/\//.test(text) || unixSocketOf(text) !== undefined;
}

/** The arguments of `curl` for a call of the admin API. */
export function curlArguments(admin: URL, path: string): string {
  return admin.protocol === 'unix:'
    ? `--unix-socket ${decodeURI(admin.pathname)} http://127.0.0.1${path}`
    : new URL(path, admin).href;
}

function unixSocketOf(text: string): string | undefined {
  return /^unix(?:\/|:\/\/)(\/[^|]+)(?:\|\d+)?$/.exec(text)?.[1]; // `|0660` is the file mode
}

/**
 * Calls the admin API. Resolves for any status; rejects if there is no response in time. Retries a read whose
 * connection is reset: Caddy restarts its admin endpoint at every change of the configuration.
 */
export async function callAdmin(admin: URL, path: string, call: AdminCall = {}): Promise<AdminAnswer> {
  let answer = callOnce(admin, path, call);
  for (let tries = 1; tries < readTriesMax && (call.method ?? 'GET') === 'GET'; tries += 1) {
    answer = answer.catch((error: unknown) => {
      if (!isConnectionReset(error)) throw error;
      return callOnce(admin, path, call);
    });
  }
  const first = await answer;
  // With `enforce_origin`, Caddy requires an origin. Without it, sending one could only cause a refusal.
  return first.status === 403 && first.text.includes('origin')
    ? await callOnce(admin, path, call, { origin: originOf(admin) })
    : first;
}

/** Whether Caddy closed the connection during a call, so that its outcome is unknown. */
export function isConnectionReset(error: unknown): boolean {
  return error instanceof Error && (error.cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNRESET';
}

/** The origin to send. For a unix socket the same as Caddy's own commands: AdminAPIRequest in cmd/commandfuncs.go. */
function originOf(admin: URL): string {
  return admin.protocol === 'unix:' ? 'http://127.0.0.1' : admin.origin;
}

/** Does not use `fetch`, which sends `Sec-Fetch-Mode`: Caddy would treat it as a browser and require a known origin. */
function callOnce(
  admin: URL,
  path: string,
  { method = 'GET', body, ifMatch, timeoutMs = 5000, signal }: AdminCall,
  extraHeaders: OutgoingHttpHeaders = {},
): Promise<AdminAnswer> {
  const deadline = AbortSignal.timeout(timeoutMs);
  const text = body === undefined ? undefined : JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const fail = (error: unknown): void => {
      const reason = deadline.aborted
        ? `no response within ${timeoutMs} ms`
        : messageOf(error) || 'nothing is listening there';
      reject(
        new Error(
          `${method} ${admin.protocol === 'unix:' ? `${path} at ${decodeURI(admin.pathname)}` : new URL(path, admin).href} failed: ${reason}`,
          { cause: error },
        ),
      );
    };
    const call = request(
      new URL(path, originOf(admin)),
      {
        method,
        ...(admin.protocol === 'unix:' && { socketPath: decodeURI(admin.pathname) }),
        agent: false, // no keep-alive, since Caddy closes the connections anyway
        signal: signal === undefined ? deadline : AbortSignal.any([deadline, signal]),
        headers: {
          ...extraHeaders,
          ...(text !== undefined && { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }),
          ...(ifMatch !== undefined && { 'if-match': ifMatch }),
        },
      },
      (response) => {
        let answer = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          answer += chunk;
          if (answer.length > answerBytesMax) response.destroy(new Error('the response is longer than 100 MiB'));
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

/** The status and error message of a response such as `{"error":"…"}`. */
export function errorOf({ status, text }: AdminAnswer): string {
  try {
    const { error } = JSON.parse(text) as { error?: unknown };
    if (typeof error === 'string') return `${status} ${error}`;
  } catch {
    // not JSON: use the text
  }
  return `${status} ${text.slice(0, 300).trim()}`.trim();
}
