import type { ClientIpPolicy } from '../../shared/record/bounds.js';
import type { CountryOf } from '../../shared/record/countries.js';
import type { Log } from '../../shared/log.js';
import { createRecorder, type Recorder, type RecorderOptions } from '../../shared/record/recorder.js';
import type { Store } from '../../shared/store/store.js';
import { noCounts } from './counts.js';
import { importLimits, importLines, type ImportLimits, type ImportParts } from './import-lines.js';
import type { Importer } from './importer.js';

/** What a local import works with. */
export interface LocalImportParts extends Omit<ImportParts, 'recorder' | 'store'> {
  readonly store: Pick<
    Store,
    | 'description'
    | 'readRequests'
    | 'readRollups'
    | 'readImported'
    | 'requestsFrom'
    | 'write'
    | 'createBatchEncoder'
    | 'bulkRequests'
  >;
  readonly log: Log;
  readonly importId: number;
  readonly hostsMax: number;
  readonly clientIp: ClientIpPolicy;
  /** As a recorder takes it. */
  readonly sampleRatio?: number | undefined;
  readonly countryOf: CountryOf | undefined;
}

/** What the recorder of an import works with. */
interface ImportRecorderOptions
  extends Pick<RecorderOptions, 'log' | 'hostsMax' | 'configuredHosts' | 'clientIp' | 'sampleRatio' | 'countryOf'> {
  readonly store: Pick<Store, 'write' | 'createBatchEncoder' | 'bulkRequests'>;
  /** Of this import: see `RecorderOptions`. */
  readonly importId: number;
  /** As an import has it. */
  readonly isAlone?: boolean;
  readonly limits?: ImportLimits | undefined;
}

/**
 * The recorder of an import. It has a name of its own beside the collector's: their times may be those of the
 * collector's requests. Where nobody else uses the store, it writes as many at once as take the store the least work.
 */
export function createImportRecorder({
  store,
  log,
  importId,
  isAlone = false,
  limits: { batchRequestsMax } = importLimits,
  ...options
}: ImportRecorderOptions): Recorder {
  const { bulkRequests } = store;
  const size =
    isAlone && bulkRequests !== undefined && (options.sampleRatio ?? 1) === 1
      ? { ...bulk, sparseRequestsMax: batchRequestsMax, batchRequestsMax: bulkRequests }
      : { ...usual, batchRequestsMax };
  return createRecorder({ store, log, name: `import-${importId}`, importId, ...options, ...size });
}

/**
 * What waits while the store writes, in bytes as a recorder estimates them: two batches. With three, an import of 1.5
 * million lines holds 30 MB more, and is no faster. Nobody waits for a request of a file to be on a page: fewer and
 * larger batches take less time.
 */
const usual = { memoryBytesMax: 20 * 2 ** 20, flushMs: 1000 };

/**
 * The same for batches that a store takes in bulk: one as a rule, where lines are of the usual length, and the
 * beginning of the next. A quiet day has nearly as many totals as requests: its batches are no larger than those of
 * others.
 */
const bulk = { batchBytesMax: 112 * 2 ** 20, memoryBytesMax: 150 * 2 ** 20, batchesWaitingMax: 0, flushMs: 10_000 };

const progressMs = 100;

/** Imports into a store that this process has open. The store stays open. */
export function createLocalImporter(parts: LocalImportParts): Importer {
  const recorder = createImportRecorder(parts);
  return {
    destination: parts.store.description,
    async importFile(bytes, onCounts) {
      const counts = noCounts();
      const timer = setInterval(() => {
        onCounts(counts);
      }, progressMs);
      try {
        const problem = await importLines(bytes, counts, { ...parts, recorder });
        return { counts, problem };
      } finally {
        clearInterval(timer);
        onCounts(counts);
      }
    },
    close: async () => {
      await recorder.close(parts.signal.aborted ? { drainMsMax: (parts.limits ?? importLimits).stopDrainMsMax } : {});
    },
  };
}
