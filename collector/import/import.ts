import { access } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ObjectEncoder } from '../../shared/record/batch-builder.js';
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
import { createLocalImporter, type LocalImportParts } from './local.js';
import { createProgress, type Progress, type ProgressStream } from './progress.js';
import { createRemoteImporter } from './remote.js';
import type { importSettings } from './settings.js';
import { decoderSettings } from './endpoint.js';
import { summaryText } from './summary.js';

/** Options of an import. */
export interface ImportOptions {
  /** Files, and `-` for standard input. */
  readonly paths: readonly string[];
  /** Reads everything and reports what would be added, but writes nothing. */
  readonly dryRun: boolean;
  /** Adds possible duplicates instead of skipping them. */
  readonly force: boolean;
  /** Stops the import. Imports what was read until then. */
  readonly signal: AbortSignal;
  /** Names of the settings that are set explicitly. A running program refuses values that differ from its own. */
  readonly explicitSettings?: ReadonlySet<string> | undefined;
  readonly stdout?: Pick<NodeJS.WriteStream, 'write'>;
  readonly stderr?: ProgressStream;
}

/**
 * Imports access logs from files, and prints a summary. Resolves to the exit status: 0, or 1 if something could not be
 * imported. Throws a `UsageError` if there is nothing to import, and a `StoreError` if the store cannot be used.
 */
export async function runImport(values: SettingValues<typeof importSettings>, options: ImportOptions): Promise<0 | 1> {
  const { paths, dryRun, signal, stdout = process.stdout, stderr = process.stderr } = options;
  if (paths.length === 0) throw new UsageError('Name the files to import, or - for standard input.');
  if (paths.filter((path) => path === '-').length > 1)
    throw new UsageError('Standard input (-) is named twice: name it once.');
  // A closed pipe (`| head`) must not end the import.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const progress = createProgress(stderr);
  const decoder = { timeZone: values.COLLECTOR_TIME_ZONE, durationFormat: values.COLLECTOR_DURATION_FORMAT };
  const prepared = await beforeStopLimit(prepare(), signal, 0);
  if (prepared === undefined) {
    stdout.write('Imported nothing: the import was stopped before it started. Run the same command again.\n');
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
  if (paths.includes('-')) process.stdin.destroy(); // a stopped import may still be waiting for it
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
      const problem = result.problem ?? (hasNoLogLines(result.counts) ? noLogLines : undefined);
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
    read(); // an empty file
  }
}

const noLogLines = 'no line of it is a log line of Caddy. Is it the right file?';

/** Maximum time for a stopped import to end, in milliseconds: service managers wait for ten seconds. */
const stopMsMax = 9000;

/**
 * Resolves to the result of a promise, or to `undefined` if it takes longer than `limitMs` after the import was
 * stopped.
 */
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

/** Whether all lines were rejected, and none of them as a request. */
function hasNoLogLines(counts: ImportCounts): boolean {
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

/** The store methods that an import needs. */
type ImportStore = LocalImportParts['store'] & Pick<Store, 'description' | 'listImports' | 'ping' | 'close'>;

/** Opens the store, or connects to the collector that has it open. */
async function openImporter(
  values: SettingValues<typeof importSettings>,
  { decoder, dryRun, force, signal, explicitSettings = new Set(), progress, stderr }: OpenOptions,
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
        ? emptyStore(`DuckDB file ${resolve(settings.path)}`)
        : await openStore(settings, { log });
  } catch (error) {
    if (!(error instanceof StoreError) || !error.inUse || settings.kind !== 'duckdb') throw error;
    if (values.COLLECTOR_HTTP === undefined) {
      throw new StoreError(
        'stop',
        `${error.message} An import could go through that program, but COLLECTOR_HTTP is off.`,
        { cause: error },
      );
    }
    const requiredSettings = Object.fromEntries(
      decoderSettings.flatMap((name) => (explicitSettings.has(name) ? [[name, values[name]]] : [])),
    );
    return createRemoteImporter({
      http: values.COLLECTOR_HTTP,
      storePath: resolve(settings.path),
      requiredSettings,
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
      `The collector's spool in ${settings.spoolDir} has undelivered requests, which would be counted twice if these files contain them. Start the collector, wait until its /ledger shows spooled 0, and import again.`,
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

/** Maximum time for the collector's spool to be delivered, in milliseconds. */
const spoolWaitMsMax = 30_000;

async function isMissing(path: string): Promise<boolean> {
  return await access(path).then(
    () => false,
    () => true,
  );
}

/** An empty store, for a dry run without a DuckDB file: opening it would create the file. */
function emptyStore(description: string): ImportStore {
  const noRows = (): Promise<never[]> => Promise.resolve([]);
  const done = (): Promise<void> => Promise.resolve();
  return {
    description,
    readRequests: noRows,
    readRollups: noRows,
    readImported: noRows,
    listImports: noRows,
    requestsFrom: () => Promise.resolve(-Infinity),
    write: () => Promise.resolve(0),
    createBatchEncoder: () => new ObjectEncoder(),
    mergesRollups: true,
    bulkRequests: undefined,
    ping: done,
    close: done,
  };
}
