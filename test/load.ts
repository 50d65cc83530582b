/**
 * HTTP load on the web app: clients that check every answer, clients that misbehave, and a sampler of the process's
 * memory, descriptors and files.
 */
import { once, setMaxListeners } from 'node:events';
import { readdirSync, statSync } from 'node:fs';
import { Agent, request, type ClientRequest, type IncomingMessage, type RequestOptions } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { residentBytesOf } from './process.js';

/** A complete answer. */
interface Answer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
  readonly ms: number;
}

/** Timeout for an answer, in milliseconds. A timeout is a failure. */
const answerMsMax = 120_000;

/**
 * Sends one request. Rejects if the connection is lost, the answer is truncated, or it is not complete within
 * `waitMsMax`.
 */
export async function ask(
  url: string,
  {
    headers = {},
    agent,
    waitMsMax = answerMsMax,
  }: { headers?: Readonly<Record<string, string>>; agent?: Agent | undefined; waitMsMax?: number } = {},
): Promise<Answer> {
  const startMs = performance.now();
  const response = await responseTo(url, { headers, agent, signal: AbortSignal.timeout(waitMsMax) });
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  if (!response.complete) throw new Error('the answer is truncated');
  const bytes = Buffer.concat(chunks);
  const body = (response.headers['content-encoding'] === 'gzip' ? gunzipSync(bytes) : bytes).toString();
  return { status: response.statusCode!, headers: response.headers, body, ms: performance.now() - startMs };
}

/**
 * Retries a request on a kept-alive connection that the server was just closing, as browsers do:
 * https://nodejs.org/docs/latest-v20.x/api/http.html#requestreusedsocket
 */
async function responseTo(url: string, options: RequestOptions): Promise<IncomingMessage> {
  const sent = request(url, options).end();
  try {
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    return response;
  } catch (error) {
    if (!sent.reusedSocket || (error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error;
    return await responseTo(url, options);
  }
}

/** Counts the outcomes of requests. */
export class Answers {
  /** Complete and correct, status 200. */
  ok = 0;
  /** Status 304. */
  unchanged = 0;
  /** Status 503, with `Retry-After` and a message. */
  unavailable = 0;
  /** Everything else: lost connections, other statuses, truncated or wrong bodies. */
  failed = 0;
  /** The first failure of each kind of request. */
  readonly failures = new Map<string, string>();
  /** Number of answers with 200, by kind of request. */
  readonly okOf = new Map<string, number>();
  /** Durations of the answers with 200, in milliseconds. */
  readonly okMs: number[] = [];
  /** The message of the last 503. */
  lastMessage = '';

  get total(): number {
    return this.ok + this.unchanged + this.unavailable + this.failed;
  }

  /** Sends a request and counts the answer. `problemOf` returns what is wrong with a body. Never rejects. */
  async ask(
    kind: string,
    url: string,
    options: Parameters<typeof ask>[1] & {
      readonly problemOf?: ((body: string) => string | undefined) | undefined;
    } = {},
  ): Promise<Answer | undefined> {
    let answer: Answer;
    try {
      answer = await ask(url, options);
    } catch (error) {
      this.#fail(kind, `${url}: ${String(error)}`);
      return undefined;
    }
    if (answer.status === 304) {
      this.unchanged += 1;
    } else if (answer.status === 503) {
      const problem = unavailableProblem(answer);
      if (problem === undefined) this.unavailable += 1;
      else this.#fail(kind, `${url}: ${problem}`);
      this.lastMessage = messageIn(answer);
    } else {
      const problem =
        answer.status === 200
          ? problemIn(answer.body, options.problemOf)
          : `status ${answer.status}: ${answer.body.slice(0, 300)}`;
      if (problem === undefined) {
        this.ok += 1;
        this.okOf.set(kind, (this.okOf.get(kind) ?? 0) + 1);
        this.okMs.push(answer.ms);
      } else {
        this.#fail(kind, `${url}: ${problem}`);
      }
    }
    return answer;
  }

  toString(): string {
    return `${this.total} answers: ${this.ok} ok, ${this.unchanged} unchanged, ${this.unavailable} × 503, ${this.failed} failed${this.lastMessage === '' ? '' : `; the last 503 says: ${this.lastMessage.slice(0, 200)}`}`;
  }

  #fail(kind: string, text: string): void {
    this.failed += 1;
    if (!this.failures.has(kind)) this.failures.set(kind, text);
  }
}

function problemIn(body: string, problemOf: ((body: string) => string | undefined) | undefined): string | undefined {
  try {
    return problemOf?.(body);
  } catch (error) {
    return `${String(error)}, in ${body.length} characters that end with ${JSON.stringify(body.slice(-50))}`;
  }
}

/**
 * A 503 has to say when to retry and what to do. It must not blame DuckDB's memory limit, which a client cannot change.
 */
function unavailableProblem(answer: Answer): string | undefined {
  const retryAfter = answer.headers['retry-after'];
  if (retryAfter === undefined || !/^[1-9]\d*$/.test(retryAfter))
    return `a 503 has the Retry-After ${String(retryAfter)}`;
  const message = messageIn(answer);
  if (/out of memory/i.test(message)) return `a 503 says that memory ran out: ${message}`;
  return /\b(?:again|narrow|shorter|smaller|fewer|lower|check)\b/i.test(message)
    ? undefined
    : `a 503 does not say what to do: ${message}`;
}

function messageIn({ headers, body }: Answer): string {
  if (!headers['content-type']?.startsWith('application/json'))
    return body.replaceAll(/<[^>]*>/g, ' ').replaceAll(/\s+/g, ' ');
  return String((JSON.parse(body) as { error?: { message?: unknown } }).error?.message);
}

/** A request and the check of its answer. */
interface Question {
  readonly kind: string;
  readonly path: string;
  readonly problemOf: (body: string) => string | undefined;
}

/** What is known about the store while requests are sent. */
export interface Known {
  /** Before the first numbered line, in milliseconds since 1970. */
  readonly fromMs: number;
  /** Number of lines stored before the first request. */
  readonly preloaded: number;
  /** Minimum number of stored lines at present. */
  readonly storedMin: () => number;
  /** Maximum number of stored lines at present. */
  readonly storedMax: () => number;
}

/** The largest `limit` of the API and of the page: see docs/api.md. */
export const limitMax = 10_000;
const pageLimitMax = 500;

/**
 * Returns requests for the largest answers that docs/api.md promises, in turn. No two have the same range, so that none
 * share a read.
 */
export function largestQuestion(at: number, known: Known): Question {
  const { preloaded, fromMs, storedMin, storedMax } = known;
  const hours = [1, 6, 24][at % 3]!;
  const from = `from=${new Date(fromMs - hours * 3_600_000 + at * 1000).toISOString()}`;
  const rows = Math.min(limitMax, preloaded);
  const id = (at * 37) % preloaded;
  const least = storedMin();
  const questions: readonly Question[] = [
    { kind: 'requests', path: `/api/requests?limit=${limitMax}&${from}`, problemOf: (body) => rowsProblem(body, rows) },
    {
      kind: 'requests as CSV',
      path: `/api/requests.csv?limit=${limitMax}&source=caddy&${from}`,
      problemOf: (body) => csvProblem(body, rows),
    },
    {
      kind: 'paths of a host',
      path: `/api/top/path?limit=${limitMax}&host=${id % 10}.example&${from}`,
      problemOf: listProblem,
    },
    {
      kind: 'page',
      path: `/?limit=${pageLimitMax}&source=caddy&refresh=off&${from}`,
      problemOf: (body) => pageProblem(body, Math.min(pageLimitMax, preloaded)),
    },
    {
      kind: 'series',
      path: `/api/series?source=caddy&${from}`,
      problemOf: (body) => sumProblem(body, least, storedMax()),
    },
    {
      kind: 'series of a path',
      path: `/api/series?path=/id/${id}&${from}`,
      problemOf: (body) => sumProblem(body, 1, 1),
    },
    { kind: 'clients', path: `/api/top/client?limit=${limitMax}&method=GET&${from}`, problemOf: listProblem },
    {
      kind: 'requests of a path',
      path: `/api/requests?limit=${limitMax}&path=/id/${id}&${from}`,
      problemOf: (body) => rowsProblem(body, 1),
    },
  ];
  return questions[at % questions.length]!;
}

interface RequestRow {
  readonly time: string;
  readonly source: string;
  readonly uri: string;
}

function rowsProblem(body: string, count: number): string | undefined {
  const rows = JSON.parse(body) as RequestRow[];
  if (rows.length !== count) return `${rows.length} rows instead of ${count}`;
  if (rows.some(({ time }, at) => at > 0 && Date.parse(time) > Date.parse(rows[at - 1]!.time)))
    return 'rows are not in order, newest first';
  const uris = rows.filter(({ source }) => source === 'caddy').map(({ uri }) => uri);
  return new Set(uris).size === uris.length ? undefined : 'a request occurs twice';
}

/** No value of a numbered line contains a comma. */
function csvProblem(body: string, count: number): string | undefined {
  const [header, ...rows] = body.split('\r\n');
  if (!header!.startsWith('"time","source",') || rows.pop() !== '')
    return `the first line is ${JSON.stringify(header)}, and the last ${JSON.stringify(rows.at(-1))}`;
  if (rows.length !== count) return `${rows.length} rows instead of ${count}`;
  const cells = header!.split(',').length;
  const wrong = rows.find((row) => row.split(',').length !== cells);
  return wrong === undefined ? undefined : `a row is ${JSON.stringify(wrong.slice(0, 500))}`;
}

function listProblem(body: string): string | undefined {
  const rows = JSON.parse(body) as { value: string; count: number; count_max: number }[];
  if (rows.length < 50 || rows.length > limitMax) return `${rows.length} values`;
  return rows.some(
    ({ count, count_max: most }, at) => count < 0 || most < count || (at > 0 && count > rows[at - 1]!.count),
  )
    ? 'values are not in order of count'
    : undefined;
}

function pageProblem(body: string, rows: number): string | undefined {
  if (!body.trimEnd().endsWith('</html>')) return `the page ends with ${JSON.stringify(body.slice(-50))}`;
  const shown = new Set(body.match(/\/id\/\d+/g)).size;
  return shown >= rows ? undefined : `${shown} requests on a page that shows ${rows}`;
}

function sumProblem(body: string, least: number, most: number): string | undefined {
  const sum = (JSON.parse(body) as { requests: number }[]).reduce((total, { requests }) => total + requests, 0);
  return sum >= least && sum <= most ? undefined : `${sum} requests instead of ${least} to ${most}`;
}

/** Clients that run until they are stopped. */
export interface Clients {
  readonly answers: Answers;
  /** Sends no more requests. Resolves when all answers have arrived. */
  stop(): Promise<void>;
}

/** Starts readers that request the largest answers without pause, each over its own connection. */
export function startReaders(url: string, { readers, known }: { readers: number; known: Known }): Clients {
  let at = 0;
  return startClients(readers, async (answers, agent) => {
    const { kind, path, problemOf } = largestQuestion(at++, known);
    await answers.ask(kind, `${url}${path}`, { agent, problemOf });
  });
}

/** Starts viewers with an open page that refreshes itself as `web/client/live.ts` does. */
export function startViewers(
  url: string,
  { viewers, refreshSeconds = 5 }: { viewers: number; refreshSeconds?: number },
): Clients {
  return startClients(viewers, async (answers, agent, state) => {
    const { etag } = state;
    const headers = {
      'X-Poll': '1',
      'Cache-Control': 'max-age=0',
      'Accept-Encoding': 'gzip',
      ...(etag !== undefined && { 'If-None-Match': etag }),
    };
    const answer = await answers.ask('/', `${url}/`, { agent, headers, problemOf: (body) => pageProblem(body, 0) });
    if (answer?.status === 200) state.etag = answer.headers.etag;
    state.pauseMs = refreshSeconds * 1000;
  });
}

interface ClientState {
  etag?: string | undefined;
  pauseMs: number;
}

function startClients(
  count: number,
  run: (answers: Answers, agent: Agent, state: ClientState) => Promise<void>,
): Clients {
  const answers = new Answers();
  const stopping = new AbortController();
  setMaxListeners(count, stopping.signal);
  const running = Promise.all(
    Array.from({ length: count }, async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const state: ClientState = { pauseMs: 0 };
      while (!stopping.signal.aborted) {
        const failed = answers.failed;
        await run(answers, agent, state);
        // After a failure, do not retry at once.
        const pauseMs = Math.max(state.pauseMs, answers.failed > failed ? 100 : 0);
        await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => undefined);
      }
      agent.destroy();
    }),
  );
  return {
    answers,
    async stop() {
      stopping.abort();
      await running;
    },
  };
}

/**
 * Sends a request and disconnects, as a closed browser tab does. Resolves when the request has been passed to the
 * kernel.
 */
export async function askAndLeave(url: string): Promise<void> {
  const { hostname, port, pathname, search } = new URL(url);
  const socket = connect(Number(port), hostname).on('error', () => undefined);
  await once(socket, 'connect');
  await new Promise((resolve) =>
    socket.write(`GET ${pathname}${search} HTTP/1.1\r\nHost: ${hostname}:${port}\r\n\r\n`, resolve),
  );
  socket.destroy();
}

/** A client that reads a large answer at a kilobyte a second. */
export interface SlowReader {
  /** The status of the answer; 0 before it has begun. */
  readonly status: () => number;
  stop(): void;
}

/** Starts a slow reader. */
export function startSlowReader(url: string): SlowReader {
  let status = 0;
  let timer: NodeJS.Timeout | undefined;
  const sent: ClientRequest = request(url, { agent: new Agent({ keepAlive: false }) }).end();
  sent.on('error', () => undefined);
  sent.on('response', (response) => {
    status = response.statusCode!;
    response.on('error', () => undefined);
    timer = setInterval(() => response.read(1024) as unknown, 1000);
  });
  return {
    status: () => status,
    stop() {
      clearInterval(timer);
      sent.destroy();
    },
  };
}

/** Resource use of a process at one moment. */
export interface Sample {
  readonly residentBytes: number;
  readonly descriptors: number;
  /** The DuckDB file and its log. */
  readonly fileBytes: number;
  /** Everything else in the folder of the DuckDB file, such as spilled data. */
  readonly otherBytes: number;
}

/** Takes a sample of a process and its DuckDB file. Throws if the process has ended. */
export function sampleOf(pid: number, path: string): Sample {
  const folder = dirname(path);
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name));
  const bytesOf = (some: readonly string[]): number =>
    some.reduce((sum, file) => sum + (statSync(file, { throwIfNoEntry: false })?.size ?? 0), 0);
  const own = new Set([path, `${path}.wal`]);
  return {
    residentBytes: residentBytesOf(pid).now,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    fileBytes: bytesOf([...own]),
    otherBytes: bytesOf(files.filter((file) => !own.has(file))),
  };
}

/** Samples of a process, one per second. */
export interface Sampler {
  readonly samples: readonly Sample[];
  /** Peak resident memory of the process since it started, in bytes, as counted by the kernel. */
  readonly residentBytesMax: () => number;
  stop(): void;
}

/** Starts sampling a process every second, until it is stopped or the process has ended. */
export function startSampler(pid: number, path: string): Sampler {
  const samples: Sample[] = [];
  let most = 0;
  const look = (): void => {
    try {
      samples.push(sampleOf(pid, path));
      most = Math.max(most, residentBytesOf(pid).most);
    } catch {
      clearInterval(timer);
    }
  };
  const timer = setInterval(look, 1000);
  look();
  return {
    samples,
    residentBytesMax: () => most,
    stop() {
      clearInterval(timer);
      look();
    },
  };
}
