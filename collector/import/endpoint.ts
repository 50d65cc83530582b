/**
 * `POST /import` of the collector, for an import while this process has the embedded store open.
 *
 * The body is one file as it is, packed or not. The answer is NDJSON: `{"counts":…}` several times a second, and at the
 * end `{"counts":…,"done":true}`, with `"problem"` when the file was not read to its end, or `"error"` when the store
 * could not go on. The trailer `import-stopped` says that the client was stopped, so that the body may end within a
 * line that the file has whole. A client that asks with `Expect: 100-continue` learns of a refusal before it sends
 * anything.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { detailedMessageOf, messageOf } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import { createRecorder, type Recorder } from '../../shared/record/recorder.js';
import { newImportId } from '../../shared/rollup/rollup.js';
import { isLoopback } from '../../shared/settings/settings.js';
import type { Store } from '../../shared/store/store.js';
import { noCounts, type ImportCounts } from './counts.js';
import { importLimits, importLines, type ImportParts } from './import-lines.js';
import { createImportRecorder } from './local.js';
import { overStore } from './past-imports.js';

/** One line of the answer. */
export interface ImportAnswer {
  readonly counts: ImportCounts;
  readonly done?: true;
  /** Why the file was not read to its end. */
  readonly problem?: string;
  /** Why the import ended early. */
  readonly error?: string;
}

/** The type of the request's body: none that a web page can send without asking first. */
export const importContentType = 'application/x-ndjson';

/** The settings that decide how a line is read. */
export const decoderSettings = ['COLLECTOR_TIME_ZONE', 'COLLECTOR_DURATION_FORMAT'] as const;

/** The trailer of a body that ends before its file does. */
export const stoppedTrailer = 'import-stopped';

/** What the endpoint works with. */
export interface ImportEndpointParts
  extends Pick<ImportParts, 'decoder' | 'lineBytesMax' | 'rollupRetentionMs' | 'limits'> {
  readonly store: Store;
  /** The recorder of the collector itself. */
  readonly recorder: Pick<Recorder, 'flush'>;
  readonly log: Log;
  readonly id: string;
  readonly hostsMax: number;
  /** See `RecorderOptions`. */
  readonly configuredHosts?: Parameters<typeof createRecorder>[0]['configuredHosts'];
  readonly clientIp: Parameters<typeof createRecorder>[0]['clientIp'];
  readonly sampleRatio?: number | undefined;
  readonly countryOf?: Parameters<typeof createRecorder>[0]['countryOf'];
}

/** Imports what is posted, one file at a time. */
export interface ImportEndpoint {
  /**
   * Answers a request; resolves when it is answered. Never rejects. While an import is under way it refuses another;
   * one that was stopped, or whose client is gone, is waited for.
   */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** Ends an import that is under way; what it has read is written. */
  stop(): Promise<void>;
}

/** An import that is under way. */
interface RunningImport {
  /** Nothing more of the file comes: the import ends by itself. */
  isEnding: boolean;
  /** Resolves when the client has its answer. */
  answered: Promise<void>;
  /**
   * Resolves when the store holds all that it will ever hold of this import. A lookup before that could miss a batch.
   */
  settled: Promise<void>;
}

const progressMs = 250;

/** Makes the endpoint. */
export function createImportEndpoint(parts: ImportEndpointParts): ImportEndpoint {
  const { store, log } = parts;
  const stopping = new AbortController();
  const ownDecoder = {
    COLLECTOR_TIME_ZONE: parts.decoder.timeZone,
    COLLECTOR_DURATION_FORMAT: parts.decoder.durationFormat,
  };
  let running: RunningImport | undefined;
  return {
    async handle(request, response) {
      const query = new URL(request.url ?? '/', 'http://localhost').searchParams;
      for (;;) {
        const refusal = refusalOf(request, query);
        if (refusal !== undefined) {
          const [status, why] = refusal;
          response
            .writeHead(status, { 'content-type': 'application/json', connection: 'close' })
            .end(JSON.stringify({ error: why }));
          return;
        }
        if (running === undefined) break;
        await running.settled;
        if (response.destroyed) return;
      }
      if (query.has('undo') || query.has('list')) await answerPast(request, response, query);
      else
        await start(request, response, {
          dryRun: query.get('dry-run') === 'true',
          force: query.get('force') === 'true',
        });
    },
    async stop() {
      stopping.abort();
      await running?.answered;
    },
  };

  function refusalOf(
    { socket, headers }: IncomingMessage,
    query: URLSearchParams,
  ): [status: number, why: string] | undefined {
    if (!isLoopback(socket.remoteAddress ?? ''))
      return [403, 'Imports are taken from this machine alone: run the import where the collector runs.'];
    if (headers.origin !== undefined || headers['sec-fetch-site'] !== undefined)
      return [403, 'Imports are not taken from web pages.'];
    if (headers['content-type'] !== importContentType)
      return [415, `The body has to be of the type ${importContentType}.`];
    if (store.spool !== undefined)
      return [
        409,
        'This collector writes into InfluxDB: run the import with the same settings, and it writes there by itself.',
      ];
    const file = query.get('store');
    if (file !== null && store.description !== `DuckDB file ${file}`)
      return [
        409,
        `This collector writes into the ${store.description}, not into ${file}: set STORE or COLLECTOR_HTTP to those of one program.`,
      ];
    for (const name of decoderSettings) {
      const [wanted, own] = [query.get(name), ownDecoder[name]];
      if (wanted !== null && wanted !== own)
        return [
          409,
          `The program that has the file open reads times and durations by its own settings, and its ${name} is ${own}, not ${wanted}: set both alike, or stop the program and import again.`,
        ];
    }
    if (running?.isEnding === false) return [409, 'Another import is under way: wait until it has ended.'];
    if (stopping.signal.aborted) return [503, 'The collector is stopping.'];
    return undefined;
  }

  /** Lists imports, or takes one back; meanwhile no other import begins. */
  async function answerPast(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): Promise<void> {
    request.resume();
    const answered = overStore(
      store,
      query.has('list') ? { kind: 'list' } : { kind: 'undo', importId: Number(query.get('undo')) },
    ).then(
      (text) => ({ status: 200, body: { text } }),
      (error: unknown) => ({ status: 503, body: { error: messageOf(error) } }),
    );
    const settled = answered.then(() => {
      running = undefined;
    });
    running = { isEnding: false, answered: settled, settled };
    const { status, body } = await answered;
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(JSON.stringify(body));
  }

  async function start(
    request: IncomingMessage,
    response: ServerResponse,
    options: { dryRun: boolean; force: boolean },
  ): Promise<void> {
    const current: RunningImport = { isEnding: false, answered: Promise.resolve(), settled: Promise.resolve() };
    running = current;
    let recorder: Recorder | undefined;
    response.once('close', () => {
      current.isEnding = true;
    });
    const answerStarted = async (): Promise<void> => {
      recorder = createImportRecorder({
        ...parts,
        importId: newImportId(
          Date.now(),
          (await store.listImports()).map(({ importId }) => importId),
        ),
      });
      await answer(request, response, {
        ...options,
        recorder,
        onBodyEnd: () => {
          current.isEnding = true;
        },
      });
    };
    current.answered = answerStarted().catch((error: unknown) => {
      log.error(`An import failed: ${detailedMessageOf(error)}`);
      if (!response.headersSent)
        response
          .writeHead(503, { 'content-type': 'application/json', connection: 'close' })
          .end(JSON.stringify({ error: messageOf(error) }));
    });
    // `close` gives up on a store that is slow, and the write in flight may still succeed.
    current.settled = current.answered
      .then(() => recorder?.idle())
      .then(() => {
        running = undefined;
      });
    await current.answered;
  }

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    {
      dryRun,
      force,
      recorder,
      onBodyEnd,
    }: { dryRun: boolean; force: boolean; recorder: Recorder; onBodyEnd: () => void },
  ): Promise<void> {
    const counts = noCounts();
    const send = (line: ImportAnswer): void => void response.write(`${JSON.stringify(line)}\n`);
    response.on('error', () => undefined); // the client is gone: the request says so as well
    if (request.headers.expect !== undefined) response.writeContinue();
    response.writeHead(200, { 'content-type': importContentType, connection: 'close' });
    send({ counts });
    const timer = setInterval(() => {
      send({ counts });
    }, progressMs);
    const stopped = new AbortController();
    const signal = AbortSignal.any([stopping.signal, stopped.signal]);
    let problem: string | undefined;
    try {
      const flushOthers = (): Promise<void> => parts.recorder.flush({ allTopLists: false });
      problem = await importLines(bodyOf(request, stopped, onBodyEnd), counts, {
        ...parts,
        recorder,
        flushOthers,
        dryRun,
        force,
        signal,
      });
      send({ counts, done: true, ...(problem !== undefined && { problem }) });
    } catch (error) {
      problem = messageOf(error);
      send({ counts, done: true, error: problem });
    } finally {
      clearInterval(timer);
      onBodyEnd();
      await recorder.close(signal.aborted ? { drainMsMax: (parts.limits ?? importLimits).stopDrainMsMax } : {});
      response.end();
      log.info(dryRun ? 'An import was tried.' : 'Imported a file.', {
        added: counts.added,
        known: counts.known,
        ...(problem !== undefined && { problem }),
      });
    }
  }
}

async function* bodyOf(request: IncomingMessage, stopped: AbortController, onEnd: () => void): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of request) yield chunk as Buffer;
  } catch (error) {
    throw new Error(`its sender went away (${messageOf(error)})`, { cause: error });
  } finally {
    onEnd();
  }
  if (request.trailers[stoppedTrailer] !== undefined) stopped.abort();
}
