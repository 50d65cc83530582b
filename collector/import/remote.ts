import { request, type ClientRequest, type IncomingMessage } from 'node:http';
import { pipeline } from 'node:stream/promises';
import split2 from 'split2';
import { messageOf } from '../../shared/errors.js';
import { formatAddress, type Address } from '../../shared/settings/settings.js';
import { noCounts, type ImportCounts } from './counts.js';
import { importContentType, stoppedTrailer, type ImportAnswer } from './protocol.js';
import type { Importer } from './importer.js';
import { stoppedEarly, untilAborted } from './until-aborted.js';

/** Options of an import through a running collector. */
export interface RemoteImportParts {
  /** Its `COLLECTOR_HTTP`. */
  readonly http: Address;
  /** Absolute path of the DuckDB file that the collector must have open. */
  readonly storePath: string;
  /** Decoder settings that the collector must share, by name. */
  readonly requiredSettings: Readonly<Record<string, string>>;
  readonly dryRun: boolean;
  readonly force: boolean;
  readonly signal: AbortSignal;
}

/** The host for connections to a listen address on this machine. */
export function reachableHost({ host }: Address): string {
  return host === '' || host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host;
}

/** Creates an importer that uses a running collector: see `endpoint.ts`. */
export function createRemoteImporter({
  http,
  storePath,
  requiredSettings,
  dryRun,
  force,
  signal,
}: RemoteImportParts): Importer {
  const address = formatAddress({ host: reachableHost(http), port: http.port });
  const url = `http://${address}/import?${new URLSearchParams({ ...requiredSettings, store: storePath, 'dry-run': String(dryRun), force: String(force) }).toString()}`;
  return {
    destination: `DuckDB file ${storePath}, through the program that has it open`,
    async importFile(bytes, onCounts) {
      /** Aborted when either side ends the transfer. */
      const over = new AbortController();
      let stopTimer: NodeJS.Timeout | undefined;
      const state = { isAccepted: false, counts: noCounts() };
      const call = request(url, {
        method: 'POST',
        agent: false,
        headers: { 'content-type': importContentType, expect: '100-continue', 'transfer-encoding': 'chunked' },
      });
      let sending: Promise<string | undefined> = Promise.resolve(undefined);
      call.once('continue', () => {
        state.isAccepted = true;
        sending = send(untilAborted(bytes, over.signal), call, signal);
      });
      const onAbort = (): void => {
        over.abort();
        stopTimer = setTimeout(
          () => {
            call.destroy(new Error('no response'));
          },
          state.isAccepted ? stopMsMax : 0,
        );
      };
      signal.addEventListener('abort', onAbort);
      if (signal.aborted) onAbort();
      const answered = new Promise<IncomingMessage>((resolve, reject) => {
        call.once('response', resolve);
        call.on('error', reject);
      });
      call.flushHeaders();
      try {
        const response = await answered.catch((error: unknown) => {
          if (signal.aborted) throw error;
          throw new Error(
            `The DuckDB file ${storePath} is open in another program, and that program's collector was not found at ${address}: ${messageOf(error) || 'nothing is listening there'}. Set COLLECTOR_HTTP to the address of that collector, or stop the program and import again.`,
            { cause: error },
          );
        });
        const last = await readAnswers(response, (current) => {
          state.counts = current;
          onCounts(current);
        });
        if (last.error !== undefined) throw new Error(last.error);
        // Stop reading: standard input may stay idle for a long time.
        over.abort();
        call.destroy();
        const problem = await sending;
        if (signal.aborted) return { counts: state.counts, problem: stoppedEarly };
        if (last.problem === stoppedEarly)
          return {
            counts: state.counts,
            problem: 'the running program was stopped before the end of the file',
            isOver: true,
          };
        return { counts: state.counts, problem: problem ?? last.problem };
      } catch (error) {
        if (!signal.aborted) throw error;
        return {
          counts: state.counts,
          problem: state.isAccepted
            ? `${stoppedEarly}, and the running program had not confirmed everything that was sent: ${messageOf(error)}`
            : stoppedEarly,
        };
      } finally {
        clearTimeout(stopTimer);
        signal.removeEventListener('abort', onAbort);
        over.abort();
        call.destroy();
      }
    },
    close: () => Promise.resolve(),
  };
}

/**
 * Maximum time for the running program to confirm what was sent before the import was stopped, in milliseconds. Longer
 * than the program's own limit.
 */
const stopMsMax = 8000;

/**
 * Sends the bytes with backpressure, and ends the body. Resolves to the reason why they could not be read to their end.
 */
async function send(
  bytes: AsyncIterable<Buffer>,
  call: ClientRequest,
  signal: AbortSignal,
): Promise<string | undefined> {
  let problem: string | undefined;
  try {
    for await (const chunk of bytes) {
      if (call.destroyed) break;
      if (!call.write(chunk)) await drained(call);
    }
  } catch (error) {
    problem = messageOf(error);
  }
  if (signal.aborted) call.addTrailers({ [stoppedTrailer]: 'true' });
  call.end();
  return problem;
}

/** Resolves when more can be written, or the connection is closed. */
function drained(call: ClientRequest): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      call.off('drain', done).off('close', done);
      resolve();
    };
    call.on('drain', done).on('close', done);
  });
}

/** Reads the response, and returns its last line. */
async function readAnswers(response: IncomingMessage, onCounts: (counts: ImportCounts) => void): Promise<ImportAnswer> {
  const isAccepted = response.statusCode === 200;
  let last: ImportAnswer = { counts: noCounts() };
  try {
    await pipeline(response, split2(), async (lines: AsyncIterable<string>) => {
      for await (const line of lines) {
        last = JSON.parse(line) as ImportAnswer;
        if (isAccepted) onCounts(last.counts);
      }
    });
  } catch (error) {
    throw new Error(
      `The running program ended before the import did (${messageOf(error)}): see its log, and start it again.`,
      { cause: error },
    );
  }
  if (!isAccepted) throw new Error(`The running program refused the import: ${last.error}`);
  if (last.done === undefined)
    throw new Error('The running program ended before the import did: see its log, and start it again.');
  return last;
}
