import { messageOf } from '../../shared/errors.js';
import { printable } from '../../shared/printable.js';
import { linesOf, noCounts, requestsRejected, sumOf, type ImportCounts } from './counts.js';
import { readBytes, type ImportFile } from './files.js';
import type { Importer } from './importer.js';
import type { Progress } from './progress.js';
import type { ImportReport } from './summary.js';

/** What an import needs, once the store is open and the files are in order. */
export interface PreparedImport {
  readonly importer: Importer;
  readonly files: readonly ImportFile[];
}

const noLogLines = 'no line of it is a log line of Caddy. Is it the right file?';

/** Imports the files one after the other. */
export class ImportRun {
  readonly #importer: Importer;
  readonly #files: readonly ImportFile[];
  readonly #progress: Progress;
  readonly #signal: AbortSignal;
  readonly #bytesTotal: number | undefined;
  readonly #problems: string[] = [];
  #counts = noCounts();
  #bytesRead = 0;
  #filesRead = 0;
  #isIncomplete = false;

  constructor({ importer, files, progress, signal }: PreparedImport & { progress: Progress; signal: AbortSignal }) {
    this.#importer = importer;
    this.#files = files;
    this.#progress = progress;
    this.#signal = signal;
    this.#bytesTotal = files.reduce<number | undefined>(
      (sum, { bytesTotal }) => (sum === undefined || bytesTotal === undefined ? undefined : sum + bytesTotal),
      0,
    );
  }

  /** The results so far. */
  get report(): Pick<ImportReport, 'counts' | 'files' | 'problems' | 'isIncomplete'> {
    return {
      counts: this.#counts,
      files: this.#filesRead,
      problems: this.#problems,
      isIncomplete: this.#isIncomplete,
    };
  }

  /** Ends a stopped import whose store did not finish within `limitMs`. */
  giveUp(limitMs: number): void {
    this.#isIncomplete = true;
    this.#problems.push(`The store did not finish within ${limitMs / 1000} s.`);
  }

  /** Imports all files, or those before the one at which the import ends. */
  async importAll(): Promise<true> {
    for (const [at, { path }] of this.#files.entries()) {
      if (this.#signal.aborted) {
        this.#isIncomplete = true;
        this.#problems.push(`The import was stopped before ${this.#namesFrom(at)}.`);
        break;
      }
      const end = await this.#importFile(path);
      if (end === 'read') continue;
      this.#isIncomplete = true;
      if (end === 'over' && at + 1 < this.#files.length)
        this.#problems.push(`The import ended before ${this.#namesFrom(at + 1)}.`);
      break;
    }
    return true;
  }

  /** Imports a file. Resolves to whether it was read, possibly with a problem, or why no further file is imported. */
  async #importFile(path: string): Promise<'read' | 'over' | 'failed'> {
    const before = this.#counts;
    try {
      const result = await this.#importer.importFile(this.#countBytes(readBytes(path)), (current) => {
        this.#counts = sumOf(before, current);
        this.#showProgress(path);
      });
      this.#counts = sumOf(before, result.counts);
      const problem = result.problem ?? (hasNoLogLines(result.counts) ? noLogLines : undefined);
      if (problem !== undefined) this.#problems.push(`${nameOf(path)}: ${problem}${/[.?]$/.test(problem) ? '' : '.'}`);
      if (this.#signal.aborted && result.problem !== undefined) this.#isIncomplete = true;
      return result.isOver === true ? 'over' : 'read';
    } catch (error) {
      this.#problems.push(`${nameOf(path)}: ${messageOf(error)}`);
      return 'failed';
    }
  }

  #showProgress(path: string): void {
    this.#progress.show({
      file: nameOf(path),
      lines: linesOf(this.#counts),
      bytesRead: this.#bytesRead,
      bytesTotal: this.#bytesTotal,
    });
  }

  async *#countBytes(bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    let isRead = false;
    const read = (): void => {
      if (!isRead) this.#filesRead += 1;
      isRead = true;
    };
    for await (const chunk of bytes) {
      read();
      this.#bytesRead += chunk.length;
      yield chunk;
    }
    read(); // an empty file
  }

  #namesFrom(at: number): string {
    return this.#files
      .slice(at)
      .map(({ path }) => nameOf(path))
      .join(', ');
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
