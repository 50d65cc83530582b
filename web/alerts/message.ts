import { caddySource } from '../../shared/request-event.js';
import { reportSilenceMsMax } from '../stats/collection.js';
import { sumOf } from '../stats/fold.js';
import { duration, percent, printable, reasonsText } from '../format.js';
import { errorShares, slowFactors } from '../stats/health.js';
import type { Change, Finding } from './watch.js';

/** The JSON body of an alert. See `docs/alerts.md`. */
export interface AlertMessage {
  readonly status: 'firing' | 'resolved';
  readonly kind: Finding['kind'];
  /** `store` for `not-stored`; the collector for `no-report` and `dropping`. */
  readonly source: string;
  readonly value: number;
  readonly threshold: number;
  readonly unit: 'share' | 'ms' | 's' | 'lines';
  /** RFC 3339. */
  readonly since: string;
  /** RFC 3339. */
  readonly at: string;
  readonly url: string;
  /** One sentence. Chat servers display this field. */
  readonly text: string;
}

/** Time before the start of the alert that the linked page shows, in milliseconds. */
const beforeMs = 30 * 60_000;

/** Returns the message of an alert that fires or is resolved. `dashboardUrl` has no trailing slash. */
export function alertMessage(
  { status, source, finding, sinceMs }: Change,
  { dashboardUrl, nowMs }: { dashboardUrl: string; nowMs: number },
): AlertMessage {
  const measured = measure(finding, nowMs);
  const since = new Date(sinceMs).toISOString();
  const isOfSource = finding.kind === 'errors' || finding.kind === 'slow' || finding.kind === 'silent';
  const place = isOfSource && source === caddySource ? 'Caddy' : printable(source, 60);
  const query = new URLSearchParams({
    from: new Date(sinceMs - beforeMs).toISOString(),
    to: 'now',
    ...(isOfSource && { source }),
  });
  return {
    status,
    kind: finding.kind,
    source,
    ...measured,
    since,
    at: new Date(nowMs).toISOString(),
    url: `${dashboardUrl}/?${query.toString()}`,
    text: `${status === 'firing' ? 'Firing' : 'Resolved'}: ${sentence(finding, place, status)}, since ${since}.`,
  };
}

function measure(finding: Finding, nowMs: number): Pick<AlertMessage, 'value' | 'threshold' | 'unit'> {
  switch (finding.kind) {
    case 'errors':
      return { value: rounded(finding.share, 4), threshold: errorShares.degraded.enter, unit: 'share' };
    case 'slow':
      return {
        value: rounded(finding.p95Ms, 3),
        threshold: rounded(slowFactors.enter * finding.usualMs, 3),
        unit: 'ms',
      };
    case 'silent':
      return { value: secondsSince(finding.sinceMs, nowMs), threshold: Math.round(finding.limitMs / 1000), unit: 's' };
    case 'not-stored':
      return { value: secondsSince(finding.sinceMs, nowMs), threshold: 0, unit: 's' };
    case 'no-report':
      return { value: secondsSince(finding.sinceMs, nowMs), threshold: reportSilenceMsMax / 1000, unit: 's' };
    case 'dropping':
      return { value: sumOf(finding.dropped), threshold: 0, unit: 'lines' };
  }
}

function sentence(finding: Finding, place: string, status: Change['status']): string {
  const verb = status === 'firing' ? 'are' : 'were';
  switch (finding.kind) {
    case 'errors':
      return `${percent(finding.share)} of the requests to ${place} ${verb} answered with 5xx`;
    case 'slow':
      return `the p95 of ${place} ${status === 'firing' ? 'is' : 'was'} ${duration(finding.p95Ms)}, after ${duration(finding.usualMs)} in the period before`;
    case 'silent':
      return `there ${verb} no requests from ${place}`;
    case 'not-stored':
      return `nothing ${status === 'firing' ? 'is being stored' : 'was stored'} (${printable(finding.problem, 500).replace(/\.$/, '')})`;
    case 'no-report':
      return `there ${status === 'firing' ? 'is' : 'was'} no report from the collector ${place}`;
    case 'dropping':
      return `the collector ${place} ${status === 'firing' ? 'is dropping' : 'dropped'} log lines (${reasonsText(finding.dropped)} since it started)`;
  }
}

function secondsSince(sinceMs: number, nowMs: number): number {
  return Math.round((nowMs - sinceMs) / 1000);
}

function rounded(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
