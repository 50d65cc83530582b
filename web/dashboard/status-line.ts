/** The sentence at the top of the page. */
import { caddySource } from '../../shared/request-event.js';
import { isoTime } from '../../shared/time-range.js';
import { day, duration, elapsed, moment, nbsp, percent, printable, rate } from './format.js';
import type { Figures } from './figures.js';
import { judge, pastErrors, type State, type Verdict } from './judge.js';
import { phrase, textOf, type Phrase, type Time } from './phrase.js';
import type { Traffic } from './read.js';

/** How the site does. */
export interface Status {
  readonly state: State | 'quiet';
  readonly word: string;
  readonly detail: Phrase;
  /** Of what kind it is: it stays the same while figures change. */
  readonly key: string;
  /** What else is not well. */
  readonly more: readonly Phrase[];
  readonly title: string;
}

/** The sentence at the top: the gravest that is found of any source, or how the edge does (the first app, where no edge is seen). */
export function statusOf({ sources, hosts, windows, range, stepMs, previous }: Traffic, { lastRequestMs, nowMs, isFiltered }: { lastRequestMs: ReadonlyMap<string, number>; nowMs: number; isFiltered: boolean }): Status {
  const [first] = sources;
  if (first === undefined) {
    const detail = `no requests ${isFiltered ? 'under this filter ' : ''}in this range`;
    return { state: 'quiet', key: 'quiet', word: 'Quiet:', detail: [detail], more: [], title: `Quiet: ${detail}` };
  }
  const [firstSource, figures] = first;
  const facts = [
    rate(figures.requests, elapsed(range, nowMs), `${nbsp}req`),
    ...(figures.latencyMs.p95 === null ? [] : [`p95 ${duration(figures.latencyMs.p95)}`]),
    `${percent(figures.errors / figures.requests)} errors`,
  ].join(', ');
  const liveMs = nowMs < range.toMs + stepMs ? nowMs : undefined;
  const verdicts = [...sources.keys()].map((source) => {
    const ofSource = windows.filter((window) => window.source === source);
    return { source, verdict: judge(ofSource, { stepMs, previous: previous?.sources.get(source), lastMs: lastRequestMs.get(source), liveMs }), past: pastErrors(ofSource) };
  });
  const found = verdicts.flatMap(({ source, verdict }) => findingOf(source, verdict, { nowMs, host: source === firstSource ? worstHost(hosts) : undefined }) ?? []);
  const over = verdicts.flatMap(({ source, past }) => (past === undefined ? [] : [phrase`5xx were up to ${percent(past.share)} from ${minute(past.fromMs, nowMs)} to ${minute(past.toMs, day(past.toMs) === day(past.fromMs) ? past.toMs : nowMs)} UTC at ${placeOf(source)}`]));
  const [worst, ...rest] = [...found.filter(({ state }) => state === 'failing'), ...found.filter(({ state }) => state === 'troubled')];
  if (worst !== undefined) {
    return { state: worst.state, key: worst.key, word: worst.word, detail: worst.detail, more: [...rest.map(({ word, detail }) => phrase`${word} ${detail}`), ...over], title: `${worst.word} ${textOf(worst.detail)}` };
  }
  const judged = verdicts.some(({ verdict }) => verdict.kind !== 'unjudged');
  const word = judged ? 'All well' : 'Too little traffic to judge';
  const state = judged ? 'well' : 'quiet';
  return { state, key: state, word: `${word}:`, detail: phrase`${facts} at ${placeOf(firstSource)}`, more: over, title: `${word}: ${facts}` };
}

function findingOf(source: string, verdict: Verdict, { nowMs, host }: { nowMs: number; host: string | undefined }): { state: State; key: string; word: string; detail: Phrase } | undefined {
  const key = `${verdict.kind} ${source}`;
  switch (verdict.kind) {
    case 'errors': return { state: verdict.state, key: `${verdict.state} ${key}`, word: `5xx rose to ${percent(verdict.share)}`, detail: phrase`at ${minute(verdict.sinceMs, nowMs)} UTC at ${placeOf(source)}${host === undefined ? '' : `, most of them on ${printable(host, 60)}`}` };
    case 'slow': return { state: verdict.state, key, word: `p95 rose to ${duration(verdict.p95Ms)}`, detail: phrase`at ${minute(verdict.sinceMs, nowMs)} UTC at ${placeOf(source)}; the period before it was ${duration(verdict.usualMs)}` };
    case 'silent': return { state: verdict.state, key, word: `No requests from ${printable(source, 60)}`, detail: phrase`since ${{ iso: isoTime(verdict.sinceMs), text: moment(verdict.sinceMs, nowMs) }} UTC` };
    case 'well':
    case 'unjudged': return undefined;
  }
}

/** Where a source is, in a sentence. */
export function placeOf(source: string): string {
  return source === caddySource ? 'the edge' : printable(source, 60);
}

function minute(timeMs: number, nowMs: number): Time {
  return { iso: isoTime(timeMs), text: moment(timeMs, nowMs).slice(0, -3) };
}

/** The host that most errors are on, where there are several. */
function worstHost(hosts: ReadonlyMap<string, Figures>): string | undefined {
  if (hosts.size < 2) return undefined;
  const errors = [...hosts.values()].reduce((sum, figures) => sum + figures.errors, 0);
  return [...hosts].find(([, figures]) => figures.errors > errors * 2 / 3)?.[0];
}
