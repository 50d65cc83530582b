/**
 * `POST /import` of the collector, for imports while this process has the embedded store open.
 *
 * The body is one file, compressed or not. The response is NDJSON: `{"counts":…}` several times a second, and at the
 * end `{"counts":…,"done":true}`, with `"problem"` if the file was not read to its end, or `"error"` if the store
 * failed. The trailer `import-stopped` marks a body that was interrupted, possibly in the middle of a line. With
 * `Expect: 100-continue`, a client gets a refusal before it sends anything.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { detailedMessageOf, messageOf } from '../../shared/errors.js';
import type { Log } from '../../shared/log.js';
import type { Recorder } from '../../shared/record/recorder.js';
import type { RecordingPolicy } from '../../shared/record/recording-policy.js';
import { newImportId } from '../../shared/rollup/rollup.js';
import { isLoopback } from '../../shared/settings/settings.js';
import type { Store } from '../../shared/store/store.js';
import { noCounts } from './counts.js';
import { importLimits, importLines, type ImportParts } from './import-lines.js';
import { createImportRecorder } from './local.js';
import { managePastImports } from './past-imports.js';
import { importContentType, stoppedTrailer, type ImportAnswer } from './protocol.js';

/** The settings that affect decoding. */
export const decoderSettings = ['COLLECTOR_TIME_ZONE', 'COLLECTOR_DURATION_FORMAT'] as const;

/** Dependencies of the endpoint. */
export interface ImportEndpointParts
  extends RecordingPolicy,
    Pick<ImportParts, 'decoder' | 'lineBytesMax' | 'rollupRetentionMs' | 'limits'> {
  readonly store: Store;
  /** The collector's recorder. */
  readonly recorder: Pick<Recorder, 'flush'>;
  readonly log: Log;
  readonly id: string;
}

/** Imports posted files, one at a time. */
export interface ImportEndpoint {
  /**
   * Handles a request. Resolves when it is answered, and never rejects. Refuses a second import, but waits for one that
   * was stopped or whose client has disconnected.
   */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** Stops the running import. Writes what it has read. */
  stop(): Promise<void>;
}

/** A running import. */
interface RunningImport {
  /** Whether the file has ended, so that the import is about to end. */
  isEnding: boolean;
  /** Resolves when the client has the response. */
  answered: Promise<void>;
  /** Resolves when all writes of this import have ended. A lookup before that could miss a batch. */
  settled: Promise<void>;
}

const progressMs = 250;

/** Creates the endpoint. */
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
          const [status, reason] = refusal;
          response
            .writeHead(status, { 'content-type': 'application/json', connection: 'close' })
            .end(JSON.stringify({ error: reason }));
          return;
        }
        if (running === undefined) break;
        await running.settled;
        if (response.destroyed) return;
      }
      if (query.has('undo') || query.has('list')) await answerPastImports(request, response, query);
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
  ): [status: number, reason: string] | undefined {
    if (!isLoopback(socket.remoteAddress ?? ''))
      return [403, 'Imports are accepted from this machine only: run the import where the collector runs.'];
    if (headers.origin !== undefined || headers['sec-fetch-site'] !== undefined)
      return [403, 'Imports are not accepted from web pages.'];
    if (headers['content-type'] !== importContentType) return [415, `The content type must be ${importContentType}.`];
    if (store.spool !== undefined)
      return [409, 'This collector writes to InfluxDB: run the import with the same settings to write there directly.'];
    const file = query.get('store');
    if (file !== null && store.description !== `DuckDB file ${file}`)
      return [
        409,
        `This collector writes to the ${store.description}, not to ${file}: set STORE and COLLECTOR_HTTP to those of the same program.`,
      ];
    for (const name of decoderSettings) {
      const [wanted, own] = [query.get(name), ownDecoder[name]];
      if (wanted !== null && wanted !== own)
        return [
          409,
          `The program that has the file open decodes with its own settings, and its ${name} is ${own}, not ${wanted}: use the same value, or stop the program and import again.`,
        ];
    }
    if (running?.isEnding === false) return [409, 'Another import is running: wait until it has ended.'];
    if (stopping.signal.aborted) return [503, 'The collector is stopping.'];
    return undefined;
  }

  /** Lists or undoes imports. No other import can start meanwhile. */
  async function answerPastImports(
    request: IncomingMessage,
    response: ServerResponse,
    query: URLSearchParams,
  ): Promise<void> {
    request.resume();
    const answered = managePastImports(
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
    // `close` gives up on a slow store, but a write in flight may still succeed.
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
    response.on('error', () => undefined); // the client is gone: the request reports it, too
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
      log.info(dryRun ? 'Dry run of an import.' : 'Imported a file.', {
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
    throw new Error(`the client disconnected (${messageOf(error)})`, { cause: error });
  } finally {
    onEnd();
  }
  if (request.trailers[stoppedTrailer] !== undefined) stopped.abort();
}
