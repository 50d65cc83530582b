import { access } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { ObjectEncoder } from '../../shared/record/batch-builder.js';
import { countriesFrom } from '../../shared/record/countries.js';
import { StoreError, UsageError } from '../../shared/errors.js';
import { createLog } from '../../shared/log.js';
import { newImportId } from '../../shared/rollup/rollup.js';
import type { SettingValues } from '../../shared/settings/settings.js';
import { spoolPassed } from '../../shared/store/spool/spool.js';
import { openStore } from '../../shared/store/open.js';
import { storeSettingsFrom } from '../../shared/settings/store-settings.js';
import type { Store } from '../../shared/store/store.js';
import { requestsRejected } from './counts.js';
import { orderFiles } from './files.js';
import { ImportRun, type PreparedImport } from './import-run.js';
import type { Importer } from './importer.js';
import { createLocalImporter, type LocalImportParts } from './local.js';
import { createProgress, type Progress, type ProgressStream } from './progress.js';
import { createRemoteImporter } from './remote.js';
import type { importSettings } from './settings.js';
import { decoderSettings } from './endpoint.js';
import { summaryText } from './summary.js';
import { beforeStopLimit } from './until-aborted.js';

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

/** Maximum time for a stopped import to end, in milliseconds: service managers wait for ten seconds. */
const stopMsMax = 9000;

/**
 * Imports access logs from files, and prints a summary. Resolves to the exit status: 0, or 1 if something could not be
 * imported. Throws a `UsageError` if there is nothing to import, and a `StoreError` if the store cannot be used.
 */
export async function runImport(values: SettingValues<typeof importSettings>, options: ImportOptions): Promise<0 | 1> {
  const { paths, signal, stdout = process.stdout, stderr = process.stderr } = options;
  if (paths.length === 0) throw new UsageError('Name the files to import, or - for standard input.');
  if (paths.filter((path) => path === '-').length > 1)
    throw new UsageError('Standard input (-) is named twice: name it once.');
  // A closed pipe (`| head`) must not end the import.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  const progress = createProgress(stderr);
  const prepared = await beforeStopLimit(prepare(values, options, { progress, stderr }), signal, 0);
  if (prepared === undefined) {
    stdout.write('Imported nothing: the import was stopped before it started. Run the same command again.\n');
    return 1;
  }
  const run = new ImportRun({ ...prepared, progress, signal });
  const running = run.importAll().finally(async () => {
    progress.clear();
    await prepared.importer.close();
  });
  if ((await beforeStopLimit(running, signal, stopMsMax)) === undefined) {
    progress.clear();
    run.giveUp(stopMsMax);
  }
  if (paths.includes('-')) process.stdin.destroy(); // a stopped import may still be waiting for it
  const report = { ...run.report, dryRun: options.dryRun, isStopped: signal.aborted };
  stdout.write(summaryText({ ...report, destination: prepared.importer.destination }));
  const { problems, counts } = report;
  return problems.length > 0 || counts.refused + counts.skipped + requestsRejected(counts) > 0 ? 1 : 0;
}

async function prepare(
  values: SettingValues<typeof importSettings>,
  options: ImportOptions,
  output: Pick<OpenOptions, 'progress' | 'stderr'>,
): Promise<PreparedImport> {
  const decoder = { timeZone: values.COLLECTOR_TIME_ZONE, durationFormat: values.COLLECTOR_DURATION_FORMAT };
  const importer = await openImporter(values, { ...options, ...output, decoder });
  const files = await orderFiles(options.paths, { decoder, lineBytesMax: values.COLLECTOR_LINE_BYTES_MAX });
  return { importer, files };
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
