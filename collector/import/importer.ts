import type { ImportCounts } from './counts.js';

/** Takes files into a store: by itself, or through the collector that has it open. */
export interface Importer {
  /** What the requests go into, such as `DuckDB file /srv/requests.duckdb`. */
  readonly destination: string;
  /**
   * Imports one file, and tells the counts as they grow. Resolves to them, with why the file was not read to its end.
   * `isOver` says that no other file can be imported either. Throws an `Error` when nothing more can be imported.
   */
  importFile(
    bytes: AsyncIterable<Buffer>,
    onCounts: (counts: ImportCounts) => void,
  ): Promise<{ counts: ImportCounts; problem: string | undefined; isOver?: boolean }>;
  close(): Promise<void>;
}
