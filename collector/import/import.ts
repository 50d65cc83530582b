import { access } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { countriesFrom } from '../../shared/record/countries.js';
import { messageOf, StoreError, UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { printable } from '../../shared/printable.js';
import { newImportId } from '../../shared/rollup/rollup.js';
import type { SettingValues } from '../../shared/settings/settings.js';
import { spoolPassed } from '../../shared/store/spool/spool.js';
import { openStore } from '../../shared/store/open.js';
import { storeSettingsFrom } from '../../shared/settings/store-settings.js';
import type { Store } from '../../shared/store/store.js';
import { linesOf, noCounts, requestsRejected, sumOf, type ImportCounts } from './counts.js';
import { orderFiles, readBytes } from './files.js';
import type { Importer } from './importer.js';
import { createLocalImporter } from './local.js';
import { createProgress, type Progress, type ProgressStream } from './progress.js';
import { createRemoteImporter } from './remote.js';
import type { importSettings } from './settings.js';
import { decoderSettings } from './endpoint.js';
import { summaryText } from './summary.js';

/** What an import is started with. */
export interface ImportOptions {
  /** Files, and `-` for standard input. */
  readonly paths: readonly string[];
  /** Read everything, say what would be added, and write nothing. */
  readonly dryRun: boolean;
  /** Add requests that may be counted already, instead of skipping them. */
  readonly force: boolean;
  /** Ends the import early; what was read until then is imported. */
  readonly signal: AbortSignal;
  /**
   * Names of the settings that are set, and not left at their default. A running program refuses those that contradict
   * its own.
   */
  readonly given?: ReadonlySet<string> | undefined;
  readonly stdout?: Pick<NodeJS.WriteStream, 'write'>;
  readonly stderr?: ProgressStream;
}

/**
 * Imports access logs from files, and says at the end what became of every line. Resolves to the exit status: 0, or 1
 * when something could not be imported. Throws a `UsageError` when there is nothing to import, and a `StoreError` when
 * the store cannot be used.
 */
export async function runImport(values: SettingValues<typeof importSettings>, options: ImportOptions): Promise<0 | 1> {
  const { paths, dryRun, signal, stdout = process.stdout, stderr = process.stderr } = options;
  if (paths.length === 0) throw new UsageError('Name the files to import, or - for standard input.');
  if (paths.filter((path) => path === '-').length > 1)
    throw new UsageError('Standard input (-) can be imported once: name it once.');
  // Who no longer reads what is said (`| head`) does not end the import.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const progress = createProgress(stderr);
  const decoder = { timeZone: values.COLLECTOR_TIME_ZONE, durationFormat: values.COLLECTOR_DURATION_FORMAT };
  const prepared = await beforeStopLimit(prepare(), signal, 0);
  if (prepared === undefined) {
    stdout.write('Imported nothing: the import was stopped before it began. Run the same command again.\n');
    return 1;
  }
  const { importer, files } = prepared;
  const bytesTotal = files.reduce<number | undefined>(
    (sum, file) => (sum === undefined || file.bytesTotal === undefined ? undefined : sum + file.bytesTotal),
    0,
  );

  let counts = noCounts();
  let bytesRead = 0;
  let filesRead = 0;
  const end = { isIncomplete: false };
  const isStopped = (): boolean => signal.aborted;
  const problems: string[] = [];
  const running = importAll().finally(async () => {
    progress.clear();
    await importer.close();
  });
  if ((await beforeStopLimit(running, signal)) === undefined) {
    progress.clear();
    end.isIncomplete = true;
    problems.push(`The store did not finish within ${stopMsMax / 1000} s.`);
  }
  if (paths.includes('-')) process.stdin.destroy(); // an import that was stopped may still be waiting for it
  stdout.write(
    summaryText({
      counts,
      files: filesRead,
      problems,
      dryRun,
      isIncomplete: end.isIncomplete,
      isStopped: isStopped(),
      destination: importer.destination,
    }),
  );
  return problems.length > 0 || counts.refused + counts.skipped + requestsRejected(counts) > 0 ? 1 : 0;

  async function prepare(): Promise<{ importer: Importer; files: Awaited<ReturnType<typeof orderFiles>> }> {
    const opened = await openImporter(values, { ...options, decoder, progress, stderr });
    return {
      importer: opened,
      files: await orderFiles(paths, { decoder, lineBytesMax: values.COLLECTOR_LINE_BYTES_MAX }),
    };
  }

  async function importAll(): Promise<true> {
    for (const [at, { path }] of files.entries()) {
      const rest = (from: number): string =>
        files
          .slice(from)
          .map((file) => nameOf(file.path))
          .join(', ');
      if (isStopped()) {
        end.isIncomplete = true;
        problems.push(`The import was stopped before ${rest(at)}.`);
        break;
      }
      const before = counts;
      let result: Awaited<ReturnType<typeof importer.importFile>>;
      try {
        result = await importer.importFile(countBytes(readBytes(path)), (current) => {
          counts = sumOf(before, current);
          progress.show({ file: nameOf(path), lines: linesOf(counts), bytesRead, bytesTotal });
        });
      } catch (error) {
        problems.push(`${nameOf(path)}: ${messageOf(error)}`);
        end.isIncomplete = true;
        break;
      }
      counts = sumOf(before, result.counts);
      const problem = result.problem ?? (isLogless(result.counts) ? logless : undefined);
      if (problem !== undefined) problems.push(`${nameOf(path)}: ${problem}${/[.?]$/.test(problem) ? '' : '.'}`);
      if (isStopped() && result.problem !== undefined) end.isIncomplete = true;
      if (result.isOver !== true) continue;
      end.isIncomplete = true;
      if (at + 1 < files.length) problems.push(`The import ended before ${rest(at + 1)}.`);
      break;
    }
    return true;
  }

  async function* countBytes(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let isRead = false;
    const read = (): void => {
      if (!isRead) filesRead += 1;
      isRead = true;
    };
    for await (const chunk of bytes) {
      read();
      bytesRead += chunk.length;
      yield chunk;
    }
    read(); // an empty one
  }
}

const logless = 'no line of it is a log line of Caddy. Is it the right file?';

/**
 * How long an import goes on after it was stopped, in milliseconds: service managers and people wait for ten seconds.
 */
const stopMsMax = 9000;

/** What a promise resolves to; `undefined` when that takes longer than `stopMsMax` after the import was stopped. */
async function beforeStopLimit<Result>(
  running: Promise<Result>,
  signal: AbortSignal,
  limitMs = stopMsMax,
): Promise<Result | undefined> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort = (): void => undefined;
  const limit = new Promise<undefined>((resolve) => {
    onAbort = () => {
      timer = setTimeout(() => {
        resolve(undefined);
      }, limitMs);
    };
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([running, limit]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

/** Whether there were lines, and none of them was one of a logger. */
function isLogless(counts: ImportCounts): boolean {
  return (
    linesOf({ ...counts, rejected: {} }) + requestsRejected(counts) === 0 && Object.keys(counts.rejected).length > 0
  );
}

function nameOf(path: string): string {
  return path === '-' ? 'standard input' : printable(path);
}

interface OpenOptions extends ImportOptions {
  readonly decoder: Parameters<typeof createLocalImporter>[0]['decoder'];
  readonly progress: Progress;
  readonly stderr: ProgressStream;
}

/** What an import needs of a store. */
type ImportStore = Pick<
  Store,
  | 'description'
  | 'readRequests'
  | 'readRollups'
  | 'readImported'
  | 'listImports'
  | 'requestsFrom'
  | 'write'
  | 'createBatchEncoder'
  | 'bulkRequests'
  | 'ping'
  | 'close'
>;

/** Opens the store, or finds the collector that has it open. */
async function openImporter(
  values: SettingValues<typeof importSettings>,
  { decoder, dryRun, force, signal, given = new Set(), progress, stderr }: OpenOptions,
): Promise<Importer> {
  const settings = storeSettingsFrom(values);
  const log = createLog('import', {
    write(line) {
      progress.clear();
      stderr.write(line);
    },
  });
  const countryOf = countriesFrom(values, log);
  let store: ImportStore;
  try {
    store =
      dryRun && settings.kind === 'duckdb' && (await isMissing(settings.path))
        ? nothingStored(`DuckDB file ${resolve(settings.path)}`)
        : await openStore(settings, { log });
  } catch (error) {
    if (!(error instanceof StoreError) || !error.inUse || settings.kind !== 'duckdb') throw error;
    if (values.COLLECTOR_HTTP === undefined) {
      throw new StoreError(
        'stop',
        `${error.message} An import can go through that program, but COLLECTOR_HTTP is off.`,
        { cause: error },
      );
    }
    const wanted = Object.fromEntries(
      decoderSettings.flatMap((name) => (given.has(name) ? [[name, values[name]]] : [])),
    );
    return createRemoteImporter({
      http: values.COLLECTOR_HTTP,
      storePath: resolve(settings.path),
      wanted,
      dryRun,
      force,
      signal,
    });
  }
  try {
    await store.ping();
  } catch (error) {
    await store.close();
    throw error;
  }
  if (settings.kind === 'influxdb' && !(await spoolPassed(join(settings.spoolDir, 'collector'), spoolWaitMsMax))) {
    await store.close();
    throw new StoreError(
      'stop',
      `Requests wait in the collector's spool in ${settings.spoolDir} that would be counted twice if they are in these files too. Start the collector, wait until its /ledger says spooled 0, and import again.`,
    );
  }
  const taken = (await store.listImports()).map(({ importId }) => importId);
  const local = createLocalImporter({
    importId: newImportId(Date.now(), taken),
    store,
    log,
    decoder,
    dryRun,
    force,
    signal,
    lineBytesMax: values.COLLECTOR_LINE_BYTES_MAX,
    hostsMax: values.HOSTS_MAX,
    clientIp: values.CLIENT_IP,
    sampleRatio: values.SAMPLE_RATIO,
    countryOf,
    rollupRetentionMs: values.RETENTION_ROLLUPS,
    isAlone: settings.kind === 'duckdb', // no other process can have its file open
  });
  return {
    ...local,
    async close() {
      await local.close();
      await store.close();
    },
  };
}

/** How long an import waits for the spool of a collector beside it, in milliseconds. */
const spoolWaitMsMax = 30_000;

async function isMissing(path: string): Promise<boolean> {
  return await access(path).then(
    () => false,
    () => true,
  );
}

/** What a dry run finds in a DuckDB file that is not there yet: opening it would make it. */
function nothingStored(description: string): ImportStore {
  const nothing = (): Promise<never[]> => Promise.resolve([]);
  const done = (): Promise<void> => Promise.resolve();
  return {
    description,
    readRequests: nothing,
    readRollups: nothing,
    readImported: nothing,
    listImports: nothing,
    requestsFrom: () => Promise.resolve(-Infinity),
    write: () => Promise.resolve(0),
    ping: done,
    close: done,
  };
}
