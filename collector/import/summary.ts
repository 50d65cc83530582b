import { linesOf, requestReasons, type ImportCounts } from './counts.js';

/** Results of an import. */
export interface ImportReport {
  readonly counts: ImportCounts;
  /** Number of files read, without those that could not be opened. */
  readonly files: number;
  /** Reasons why files could not be read, or not to their end. */
  readonly problems: readonly string[];
  readonly dryRun: boolean;
  /**
   * Whether the import ended before all files were read: it was stopped, or the store or the running program failed.
   */
  readonly isIncomplete: boolean;
  /** Whether a signal stopped it, so that there is no problem to solve before the next attempt. */
  readonly isStopped: boolean;
  /** Description of the store, such as `DuckDB file /srv/requests.duckdb`. */
  readonly destination: string;
}

/** Formats the summary of an import: counts of lines by outcome, and problems of files. */
export function summaryText({
  counts,
  files,
  problems,
  dryRun,
  isIncomplete,
  isStopped,
  destination,
}: ImportReport): string {
  const next = isIncomplete ? [nextStep(counts, { dryRun, isStopped })] : [];
  if (files === 0)
    return [
      `${dryRun ? 'Read' : 'Imported'} nothing.`,
      ...problems.map((problem) => `Problem: ${problem}`),
      ...next,
      '',
    ].join('\n');
  const rows: readonly (readonly [string, number, string])[] = [
    [dryRun ? 'would be added' : 'added', counts.added, 'requests'],
    ['already there', counts.known, 'requests'],
    ['skipped', counts.skipped, 'requests (possible duplicates)'],
    ['refused', counts.refused, 'requests that the store refused; see the log'],
    ['not requests', counts.runtime, 'other log lines'],
    ...Object.entries(counts.rejected).map(([reason, count]) => ['rejected', count, reason] as const),
  ];
  const shown = rows.filter(([name, count]) => count > 0 || name.endsWith('added'));
  const width = Math.max(...shown.map(([, count]) => grouped(count).length));
  return [
    `${dryRun ? 'Read' : 'Imported'} ${counted(linesOf(counts), 'line', 'lines')} of ${counted(files, 'file', 'files')} ${dryRun ? 'and wrote nothing into' : 'into'} the ${destination}:`,
    ...shown.map(([name, count, what]) => `  ${name.padEnd(15)}${grouped(count).padStart(width)}  ${what}`),
    ...(counts.skipped === 0
      ? []
      : [
          `${grouped(counts.skipped)} of the requests were skipped: they may be counted already. Requests of their time are not all stored, because of`,
          'RETENTION_REQUESTS or SAMPLE_RATIO, so duplicates cannot be ruled out. If you know that they are not counted yet, add them with --force.',
        ]),
    ...requestReasons.flatMap((reason) =>
      (counts.rejected[reason] ?? 0) === 0
        ? []
        : [
            `${counted(counts.rejected[reason]!, 'request was', 'requests were')} rejected as ${reason}: ${remedies[reason]}.`,
          ],
    ),
    ...problems.map((problem) => `Problem: ${problem}`),
    ...next,
    '',
  ].join('\n');
}

/** Cause and remedy of rejected requests, by reason. */
const remedies: Readonly<Record<(typeof requestReasons)[number], string>> = {
  'bad-time':
    'their time is older than RETENTION_ROLLUPS, is more than a day ahead, or cannot be read. To import an older log, raise RETENTION_ROLLUPS (of the running program, if it has the store open). Otherwise check the clock and the time_format of the machine that wrote them',
  'bad-status': 'they have no status. A filter of Caddy may have removed it',
  'memory-full':
    'they are in parts, between the parts of lines of more than 15 other streams. Import the log of each container by itself',
  'unknown-encoder': 'their encoder is not supported, such as ECS, GELF or logfmt. Use `format json` in Caddy',
};

/** Next step after an incomplete import. */
function nextStep({ added }: ImportCounts, { dryRun, isStopped }: Pick<ImportReport, 'dryRun' | 'isStopped'>): string {
  const again = `${isStopped ? 'Run' : 'Solve the problem above, then run'} the same command again`;
  if (dryRun) return `The dry run did not finish. ${again}.`;
  return `The import did not finish: ${counted(added, 'request has', 'requests have')} been added so far. ${again} to add the rest: nothing is counted twice.`;
}

/** A count with its noun: `1 line`, `1,234 lines`. */
export function counted(count: number, one: string, several: string): string {
  return `${grouped(count)} ${count === 1 ? one : several}`;
}

/** A count with separators: `1,234,567`. */
export function grouped(count: number): string {
  return count.toLocaleString('en');
}
