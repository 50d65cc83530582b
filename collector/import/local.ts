import type { Log } from '../../shared/log.js';
import { storesAllRequests } from '../../shared/record/batch-builder.js';
import { createRecorder, type Recorder, type RecorderOptions } from '../../shared/record/recorder.js';
import type { RecordingPolicy } from '../../shared/record/recording-policy.js';
import type { Store } from '../../shared/store/store.js';
import { noCounts } from './counts.js';
import { importLimits, importLines, type ImportLimits, type ImportParts } from './import-lines.js';
import type { Importer } from './importer.js';

/** Dependencies and options of a local import. */
export interface LocalImportParts extends RecordingPolicy, Omit<ImportParts, 'recorder' | 'store'> {
  readonly store: ImportParts['store'] & ImportRecorderOptions['store'] & Pick<Store, 'description'>;
  readonly log: Log;
  readonly importId: number;
}

/** Options of the recorder of an import. */
interface ImportRecorderOptions extends RecordingPolicy {
  readonly store: RecorderOptions['store'] & Pick<Store, 'bulkRequests'>;
  readonly log: Log;
  readonly importId: number;
  /** See `ImportParts`. */
  readonly isAlone?: boolean;
  readonly limits?: ImportLimits | undefined;
}

/**
 * Creates the recorder of an import. Its name differs from the collector's, since both may record requests of the same
 * times. If nobody else uses the store, it writes batches of the size that is cheapest for the store.
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
    isAlone && bulkRequests !== undefined && storesAllRequests(options)
      ? { ...bulkSizes, sparseRequestsMax: batchRequestsMax, batchRequestsMax: bulkRequests }
      : { ...defaultSizes, batchRequestsMax };
  return createRecorder({ store, log, name: `import-${importId}`, importId, ...options, ...size });
}

/**
 * Sizes of the recorder's buffers: memory for two batches, since a third would not be faster. Flushes rarely, since
 * fewer and larger batches are faster, and nobody waits for imported requests.
 */
const defaultSizes = { memoryBytesMax: 20 * 2 ** 20, flushMs: 1000 };

/**
 * Sizes for bulk writes: memory for one batch of lines of average length and the beginning of the next. Batches of
 * sparse traffic, where rollup rows dominate, are limited by `sparseRequestsMax`.
 */
const bulkSizes = {
  batchBytesMax: 112 * 2 ** 20,
  memoryBytesMax: 150 * 2 ** 20,
  batchesWaitingMax: 0,
  flushMs: 10_000,
};

const progressMs = 100;

/** Creates an importer for a store that this process has open. The store stays open. */
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
