import { linesOf, requestReasons, type ImportCounts } from './counts.js';

/** What the summary tells about. */
export interface ImportReport {
  readonly counts: ImportCounts;
  /** Files that were read, not those that could not be opened. */
  readonly files: number;
  /** Files that could not be read, or not to their end: why. */
  readonly problems: readonly string[];
  readonly dryRun: boolean;
  /** The import ended before all files were read: it was stopped, or the store or the running program went away. */
  readonly isIncomplete: boolean;
  /** A signal stopped it, so no problem has to be solved before the next attempt. */
  readonly isStopped: boolean;
  /** Where it went, such as `DuckDB file /srv/requests.duckdb`. */
  readonly destination: string;
}

/** The end of an import in words: what became of every line, and which files have problems. */
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
    ['skipped', counts.skipped, 'requests that may be counted already'],
    ['refused', counts.refused, 'requests that the store did not take; the log says why'],
    ['not requests', counts.runtime, 'lines of other loggers'],
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
          `${grouped(counts.skipped)} of the requests were skipped: the totals of their time hold requests that are not stored one by one (any more), because of`,
          'RETENTION_REQUESTS or SAMPLE_RATIO, so these may be among them. If you know that they are not counted yet, add them with --force.',
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

/** Cause and remedy, by the reason for which requests were rejected. */
const remedies: Readonly<Record<(typeof requestReasons)[number], string>> = {
  'bad-time':
    'their time is older than RETENTION_ROLLUPS, is more than a day ahead, or cannot be read. To import an older log, raise RETENTION_ROLLUPS: that of the running program, if one has the store open. Otherwise check the clock and the time_format of the machine that wrote them',
  'bad-status': 'they have no status. A filter of Caddy may have removed it',
  'unknown-encoder': 'their encoder is not read, such as ECS, GELF or logfmt. Let Caddy write `format json`',
};

/** What to do about an import that did not finish. */
function nextStep({ added }: ImportCounts, { dryRun, isStopped }: Pick<ImportReport, 'dryRun' | 'isStopped'>): string {
  const again = `${isStopped ? 'Run' : 'Solve the problem above, then run'} the same command again`;
  if (dryRun) return `The dry run did not finish. ${again}.`;
  return `The import did not finish: ${counted(added, 'request has', 'requests have')} been added so far. ${again} to add the rest: nothing is counted twice.`;
}

/** A count with its noun: `1 line`, `1,234 lines`. */
export function counted(count: number, one: string, several: string): string {
  return `${grouped(count)} ${count === 1 ? one : several}`;
}

/** A count for people: `1,234,567`. */
export function grouped(count: number): string {
  return count.toLocaleString('en');
}
