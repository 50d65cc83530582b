import type { ClientIpPolicy } from '../../shared/bounds.js';
import type { CountryOf } from '../../shared/countries.js';
import type { Log } from '../../shared/log.js';
import { createRecorder, type Recorder, type RecorderOptions } from '../../shared/recorder.js';
import type { Store } from '../../shared/store/store.js';
import { noCounts } from './counts.js';
import { importBatchRequestsMax, importLines, type ImportParts } from './import-lines.js';
import type { Importer } from './importer.js';

/** What a local import works with. */
export interface LocalImportParts extends Omit<ImportParts, 'recorder' | 'store'> {
  readonly store: Pick<Store, 'description' | 'readRequests' | 'readRollups' | 'write' | 'gatherRequests'>;
  readonly log: Log;
  readonly id: string;
  readonly hostsMax: number;
  readonly clientIp: ClientIpPolicy;
  /** As a recorder takes it. */
  readonly sampleRatio?: number | undefined;
  readonly countryOf: CountryOf | undefined;
}

/** The recorder of an import. It has a name of its own beside the collector's: their times may be those of the collector's requests. */
export function createImportRecorder({ store, log, id, hostsMax, clientIp, sampleRatio, countryOf }: Pick<RecorderOptions, 'store' | 'log' | 'hostsMax' | 'clientIp' | 'sampleRatio' | 'countryOf'> & { readonly id: string }): Recorder {
  return createRecorder({ store, log, name: `import-${id}`, hostsMax, clientIp, sampleRatio, countryOf, batchRequestsMax: importBatchRequestsMax, memoryBytesMax, flushMs });
}

/** What waits while the store writes, in bytes as a recorder estimates them: two batches. With three, an import of 1.5 million lines holds 409 MB instead of 374 and is no faster. */
const memoryBytesMax = 20 * 2 ** 20;

/** Nobody waits for a request of a file to be on a page: fewer and larger batches take less time. */
const flushMs = 1000;

const progressMs = 100;

/** Imports into a store that this process has open. The store stays open. */
export function createLocalImporter(parts: LocalImportParts): Importer {
  const recorder = createImportRecorder(parts);
  return {
    destination: parts.store.description,
    async importFile(bytes, onCounts) {
      const counts = noCounts();
      const timer = setInterval(() => { onCounts(counts); }, progressMs);
      try {
        const problem = await importLines(bytes, counts, { ...parts, recorder });
        return { counts, problem };
      } finally {
        clearInterval(timer);
        onCounts(counts);
      }
    },
    close: async () => { await recorder.close(); },
  };
}
