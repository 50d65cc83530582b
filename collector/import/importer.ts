import type { ImportCounts } from './counts.js';

/** Imports files into a store, directly or through the collector that has it open. */
export interface Importer {
  /** Description of the store, such as `DuckDB file /srv/requests.duckdb`. */
  readonly destination: string;
  /**
   * Imports one file, and reports the counts as they grow. Resolves to the final counts, and to the reason why the
   * file was not read to its end. `isOver`: whether no further file can be imported. Throws an `Error` if the import
   * failed.
   */
  importFile(
    bytes: AsyncIterable<Buffer>,
    onCounts: (counts: ImportCounts) => void,
  ): Promise<{ counts: ImportCounts; problem: string | undefined; isOver?: boolean }>;
  close(): Promise<void>;
}
