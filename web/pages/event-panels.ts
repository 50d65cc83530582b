/** The sections of the page about what Caddy logs besides requests: problems, and events. */
import type { EventRow } from '../../shared/record/event-folder.js';
import { isoTime } from '../../shared/time-range.js';
import type { Marker } from '../chart/time-chart.js';
import { count, dayOf, moment, printable } from '../format.js';
import type { CaddyStart } from '../stats/caddy-starts.js';
import { problemsOf } from '../stats/problems.js';
import { linkedValue, type Link } from './link.js';

/** Number of problems and of events on the page. The API has more. */
const problemsMax = 10;
const eventsMax = 10;
/** Number of starts and reloads to list. */
const startsMax = 3;
/** Number of hosts that a problem lists. */
const hostsMax = 3;

/** See `DashboardData`. */
interface Shown {
  readonly link: Link;
  readonly nowMs: number;
}

/** The times at which Caddy started or reloaded, as markers of charts. */
export function startMarkers(starts: readonly CaddyStart[], nowMs: number): Marker[] {
  return starts.map(({ kind, timeMs }) => ({
    timeMs,
    // Usually only Caddy's default logger gets the message that tells a start from a reload.
    label: `Caddy ${kind === 'start' ? 'started' : 'started or reloaded'} at ${moment(timeMs, nowMs)} UTC`,
  }));
}

/** The same as a sentence, for those who do not see the charts; `undefined` if there are none. */
export function startsSentence(starts: readonly CaddyStart[], nowMs: number): string | undefined {
  if (starts.length === 0) return undefined;
  const last = startMarkers(starts.slice(-startsMax), nowMs).map(({ label }) => label);
  return `Vertical lines: ${last.join('; ')}${starts.length > startsMax ? `; and ${starts.length - startsMax} before` : ''}.`;
}

/** Returns the sections. `events`: those of the range, newest first. */
export function eventPanels(events: readonly EventRow[], { link, nowMs }: Shown) {
  const problems = problemsOf(events);
  const time = (timeMs: number) => ({
    iso: isoTime(timeMs),
    text: `${dayOf(timeMs, nowMs)} ${new Date(timeMs).toISOString().slice(11, 19)}`,
  });
  const value = (name: string, text: string, lengthMax: number) => linkedValue(link, name, text, { lengthMax });
  return {
    reasons: problems.slice(0, problemsMax).map((problem) => ({
      reason:
        problem.requests > 0
          ? value('error', problem.reason, 200)
          : { text: printable(problem.reason, 200), full: undefined, href: undefined },
      count: count(problem.count),
      upstream: value('upstream', problem.upstream, 40),
      hosts: problem.hosts.slice(0, hostsMax).map(({ host }) => value('host', host, 40)),
      moreHosts: Math.max(0, problem.hosts.length - hostsMax),
      first: time(problem.firstMs),
      last: time(problem.lastMs),
    })),
    moreReasons: Math.max(0, problems.length - problemsMax),
    events: events.slice(0, eventsMax).map(({ event, count: events, lastMs }) => ({
      time: time(lastMs),
      level: event.level,
      logger: printable(event.logger, 60),
      message: printable([event.message, event.error].filter((text) => text !== '').join(': ') || event.reason, 200),
      host: value('host', event.host, 40),
      count: events === 1 ? '' : `${count(events)}×`,
    })),
    eventsCsvHref: link({ refresh: undefined }, '/api/events.csv'),
  };
}
