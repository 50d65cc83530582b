/** The status line at the top of the page. */
import { groupBy } from '../../shared/group-by.js';
import { caddySource, dashboardSource } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import { collectionFindings, isNothingStored, type CollectionFinding } from '../stats/collection.js';
import { count, covered, day, duration, moment, nbsp, percent, printable, rate, reasonsText } from '../format.js';
import { shareOf } from '../stats/figures.js';
import type { HostList } from '../stats/fold.js';
import { evaluateHealth, pastErrors, type State, type HealthStatus } from '../stats/health.js';
import { phrase, textOf, type Phrase, type Time } from './phrase.js';
import type { Traffic } from '../query/read-traffic.js';

/** The content of the status line. */
export interface Status {
  readonly state: State | 'quiet';
  readonly word: string;
  readonly detail: Phrase;
  /** Kind of status, which does not change with the figures. */
  readonly key: string;
  /** Less severe and past findings. */
  readonly more: readonly Phrase[];
  readonly title: string;
}

/** Why most requests failed, and how many. */
export interface LeadingReason {
  readonly reason: string;
  readonly requests: number;
}

/** Context of `statusOf`. */
export interface StatusContext {
  readonly lastRequestMs: ReadonlyMap<string, number>;
  /** The clock of the page, which ticks in parts of a window. */
  readonly nowMs: number;
  /** The exact time. */
  readonly exactMs: number;
  readonly isFiltered: boolean;
  /** The most frequent reason of errors of a source in the range, if any is known. */
  readonly leadingReasonOf: (source: string) => LeadingReason | undefined;
  /** Whether the query asks for the dashboard's own requests. They are not evaluated otherwise. */
  readonly includesOwn: boolean;
}

/**
 * Returns the status line: why requests are not being stored, or the most severe finding of any source, or the
 * figures of the first source. While nothing is stored, the status is never `well` and no source counts as silent.
 */
export function statusOf(
  { sources, hosts, windows, range, stepMs, firstMs, previous, recent }: Traffic,
  { lastRequestMs, nowMs, exactMs, isFiltered, leadingReasonOf, includesOwn }: StatusContext,
): Status {
  const collection = recent === undefined ? [] : collectionFindings(recent, exactMs);
  const liveMs = nowMs < range.toMs + stepMs && !isNothingStored(collection) ? nowMs : undefined;
  const recentWindows = groupBy(recent?.windows ?? [], ({ source }) => source);
  const [firstSource] = sources.keys();
  const evaluatedSources = [...new Set([...sources.keys(), ...recentWindows.keys()])].filter(
    (source) => source !== dashboardSource || includesOwn,
  );
  const healthBySource = evaluatedSources.map((source) => {
    const ofSource = windows.filter((window) => window.source === source);
    const ofRecent =
      recent === undefined ? undefined : { windows: recentWindows.get(source) ?? [], stepMs: recent.stepMs };
    return {
      source,
      health: evaluateHealth(ofSource, {
        stepMs,
        previous: previous?.sources.get(source),
        lastMs: lastRequestMs.get(source),
        liveMs,
        recent: ofRecent,
        ownSinceMs: recent?.ownSinceMs,
      }),
      past: pastErrors(ofSource),
    };
  });
  const found = [
    // The title omits the reason, for which it has no space.
    ...collection
      .map((finding): StatusFinding => collectionFindingOf(finding, nowMs))
      .map((finding) => ({ ...finding, title: finding.word.replace(/:$/, '') })),
    ...healthBySource.flatMap(
      ({ source, health }) =>
        findingOf(source, health, {
          nowMs,
          host: source === firstSource ? worstHost(hosts) : undefined,
          leading: leadingReasonOf(source),
        }) ?? [],
    ),
  ];
  const over = healthBySource.flatMap(({ source, past }) =>
    past === undefined
      ? []
      : [
          phrase`5xx peaked at ${percent(past.share)} between ${minute(past.fromMs, nowMs)} and ${minute(past.toMs, day(past.toMs) === day(past.fromMs) ? past.toMs : nowMs)} UTC at ${placeOf(source)}`,
        ],
  );
  const [worst, ...rest] = [
    ...found.filter(({ state }) => state === 'failing'),
    ...found.filter(({ state }) => state === 'degraded'),
  ];
  if (worst !== undefined) {
    return {
      state: worst.state,
      key: worst.key,
      word: worst.word,
      detail: worst.detail,
      more: [...rest.map(({ word, detail }) => phrase`${word} ${detail}`), ...over],
      title: worst.title ?? `${worst.word} ${textOf(worst.detail)}`,
    };
  }
  const figures = firstSource === undefined ? undefined : sources.get(firstSource);
  if (firstSource === undefined || figures === undefined) {
    const detail = `no requests ${isFiltered ? 'under this filter ' : ''}in this range`;
    return { state: 'quiet', key: 'quiet', word: 'Quiet:', detail: [detail], more: [], title: `Quiet: ${detail}` };
  }
  const facts = [
    rate(figures.requests, covered(range, { firstMs, nowMs: exactMs }), `${nbsp}req`),
    ...(figures.latencyMs.p95 === null ? [] : [`p95 ${duration(figures.latencyMs.p95)}`]),
    `${percent(shareOf(figures.errors, figures.requests))} errors`,
  ].join(', ');
  const evaluated = healthBySource.some(({ health }) => health.kind !== 'unknown');
  const word = evaluated ? 'All well' : 'Too little traffic to evaluate';
  const state = evaluated ? 'well' : 'quiet';
  return {
    state,
    key: state,
    word: `${word}:`,
    detail: phrase`${facts} at ${placeOf(firstSource)}`,
    more: over,
    title: `${word}: ${facts}`,
  };
}

/** A finding as shown in the status line. */
interface StatusFinding extends Pick<Status, 'key' | 'word' | 'detail'> {
  readonly state: State;
  /** Default: `word` and `detail`. */
  readonly title?: string;
}

function collectionFindingOf(finding: CollectionFinding, nowMs: number): StatusFinding {
  const { kind, state } = finding;
  const collector = kind === 'not-stored' ? '' : printable(finding.collector, 40);
  const since = (sinceMs: number): Phrase =>
    phrase`since ${{ iso: isoTime(sinceMs), text: moment(sinceMs, nowMs) }} UTC`;
  switch (kind) {
    case 'not-stored':
      return {
        state,
        key: kind,
        word: 'Nothing is being stored:',
        detail: phrase`${printable(finding.problem, 500)} Requests${finding.sinceMs === undefined ? '' : phrase` ${since(finding.sinceMs)}`} are queued in ${finding.heldIn === 'memory' ? 'memory, up to MEMORY_BYTES_MAX' : 'the spool, up to SPOOL_BYTES_MAX'}. Beyond that, new requests are dropped.`,
      };
    case 'no-report':
      return {
        state,
        key: `${kind} ${finding.collector}`,
        word: `No report from the collector ${collector}`,
        detail: phrase`${since(finding.sinceMs)}: it has stopped or cannot write to the store. Check its log, and start it if it is down.`,
      };
    case 'dropping':
      return {
        state,
        key: `${kind} ${finding.collector}`,
        word: `The collector ${collector} is dropping log lines`,
        detail: phrase`(${reasonsText(finding.dropped)} since its start). These lines are lost. ${Object.keys(
          finding.dropped,
        )
          .map((reason) => dropAdvice[reason] ?? '')
          .join(' ')}`,
      };
  }
}

/** Remedies for dropped lines, by reason. */
const dropAdvice: Readonly<Record<string, string>> = {
  'memory-full': 'Give the store a faster disk, or raise MEMORY_BYTES_MAX.',
  'spool-full': 'Restore InfluxDB, or raise SPOOL_BYTES_MAX.',
  'disk-full': 'Free disk space for SPOOL_DIR.',
  'no-worker': 'Check its log: the worker hung or did not start.',
};

function findingOf(
  source: string,
  health: HealthStatus,
  { nowMs, host, leading }: { nowMs: number; host: string | undefined; leading: LeadingReason | undefined },
): StatusFinding | undefined {
  const key = `${health.kind} ${source}`;
  switch (health.kind) {
    case 'errors':
      return {
        state: health.state,
        key: `${health.state} ${key}`,
        word: `5xx rose to ${percent(health.share)}`,
        detail: phrase`at ${minute(health.sinceMs, nowMs)} UTC at ${placeOf(source)}${host === undefined ? '' : `, most of them on ${printable(host, 60)}`}${leading === undefined ? '' : `: ${printable(leading.reason, 200)} (${count(leading.requests)})`}`,
      };
    case 'slow':
      return {
        state: health.state,
        key,
        word: `p95 rose to ${duration(health.p95Ms)}`,
        detail: phrase`at ${minute(health.sinceMs, nowMs)} UTC at ${placeOf(source)}, up from ${duration(health.usualMs)} in the previous period`,
      };
    case 'silent':
      return {
        state: health.state,
        key,
        word: `No requests from ${printable(source, 60)}`,
        detail: phrase`since ${{ iso: isoTime(health.sinceMs), text: moment(health.sinceMs, nowMs) }} UTC`,
      };
    case 'well':
    case 'unknown':
      return undefined;
  }
}

/** The name of a source in a sentence. */
export function placeOf(source: string): string {
  return source === caddySource ? 'Caddy' : printable(source, 60);
}

function minute(timeMs: number, nowMs: number): Time {
  return { iso: isoTime(timeMs), text: moment(timeMs, nowMs).slice(0, -3) };
}

/** The host with more than two thirds of the errors, if there are several hosts. */
function worstHost({ count, errors, worst }: HostList): string | undefined {
  return count > 1 && worst !== undefined && worst.errors > (errors * 2) / 3 ? worst.host : undefined;
}
