/** What a program that imports through a running collector and that collector say to each other. */
import type { ImportCounts } from './counts.js';

/** A line of the response. */
export interface ImportAnswer {
  readonly counts: ImportCounts;
  readonly done?: true;
  /** Why the file was not read to its end. */
  readonly problem?: string;
  /** Why the import ended early. */
  readonly error?: string;
}

/** The content type of the request. Not one that a web page can send without a CORS preflight. */
export const importContentType = 'application/x-ndjson';

/** The trailer of an interrupted body. */
export const stoppedTrailer = 'import-stopped';
