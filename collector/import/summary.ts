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
  /** Where it went, such as `DuckDB file /srv/requests.duckdb`. */
  readonly destination: string;
}

/** The end of an import in words: what became of every line, and which files have problems. */
export function summaryText({ counts, files, problems, dryRun, isIncomplete, destination }: ImportReport): string {
  const next = isIncomplete ? [nextStep(counts, dryRun)] : [];
  if (files === 0) return [`${dryRun ? 'Read' : 'Imported'} nothing.`, ...problems.map((problem) => `Problem: ${problem}`), ...next, ''].join('\n');
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
    `${dryRun ? 'Read' : 'Imported'} ${grouped(linesOf(counts))} lines of ${files} ${files === 1 ? 'file' : 'files'} ${dryRun ? 'and wrote nothing into' : 'into'} the ${destination}:`,
    ...shown.map(([name, count, what]) => `  ${name.padEnd(15)}${grouped(count).padStart(width)}  ${what}`),
    ...(counts.skipped === 0 ? [] : [
      `${grouped(counts.skipped)} of the requests were skipped: the totals of their time hold requests that are not stored one by one (any more), because of`,
      'RETENTION_REQUESTS or SAMPLE_RATIO, so these may be among them. If you know that they are not counted yet, add them with --force.',
    ]),
    ...requestReasons.flatMap((reason) => (counts.rejected[reason] ?? 0) === 0 ? [] : [`${grouped(counts.rejected[reason]!)} requests were rejected as ${reason}: ${remedies[reason]}.`]),
    ...problems.map((problem) => `Problem: ${problem}`),
    ...next,
    '',
  ].join('\n');
}

/** Why requests were rejected, and the way out. */
const remedies: Readonly<Record<(typeof requestReasons)[number], string>> = {
  'bad-time': 'their time cannot be read, is more than a day ahead, or is older than RETENTION_ROLLUPS. The clock of their machine was wrong, or its time_format is not supported',
  'bad-status': 'they have no status. A filter of Caddy may have removed it',
  'unknown-encoder': 'their encoder is not read, such as ECS, GELF or logfmt. Let Caddy write `format json`',
};

/** What to do about an import that did not get to its end. */
function nextStep({ added }: ImportCounts, dryRun: boolean): string {
  if (dryRun) return 'The dry run did not get to its end. Run the same command again.';
  return `The import did not get to its end: ${grouped(added)} requests are added so far. Run the same command again to add the rest: nothing is counted twice.`;
}

/** A count for people: `1,234,567`. */
export function grouped(count: number): string {
  return count.toLocaleString('en');
}
