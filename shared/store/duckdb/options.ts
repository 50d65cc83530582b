import type { Retention } from '../../rollup/rollup.js';

/** Location and limits of the embedded store. */
export interface DuckdbOptions {
  /** The database file. Created with its folder if missing. */
  readonly path: string;
  readonly retention: Retention;
  /** See `RetentionGuard`. */
  readonly retentionDelayMs?: number | undefined;
  /**
   * Memory limit of DuckDB, in bytes. Default: see `defaultMemoryBytes`. Beyond it, DuckDB spills to the folder
   * `PATH.tmp`.
   */
  readonly memoryBytesMax?: number | undefined;
  /** Size of the write-ahead log that forces a checkpoint, in bytes. Default: 32 MiB. */
  readonly logBytesMax?: number | undefined;
}
