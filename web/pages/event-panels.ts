/** The sections of the page about what Caddy logs besides requests: problems, and events. */
import type { EventRow } from '../../shared/record/event-folder.js';
import { isoTime } from '../../shared/time-range.js';
import { count, dayOf, printable } from '../format.js';
import { problemsOf } from '../stats/problems.js';
import { filterHref, type Link } from './link.js';

/** Number of problems and of events on the page. The API has more. */
const problemsMax = 10;
const eventsMax = 10;
/** Number of hosts that a problem lists. */
const hostsMax = 3;

/** See `DashboardData`. */
interface Shown {
  readonly link: Link;
  readonly nowMs: number;
}

/** Returns the sections. `events`: those of the range, newest first. */
export function eventPanels(events: readonly EventRow[], { link, nowMs }: Shown) {
  const problems = problemsOf(events);
  const time = (timeMs: number) => ({
    iso: isoTime(timeMs),
    text: `${dayOf(timeMs, nowMs)} ${new Date(timeMs).toISOString().slice(11, 19)}`.trim(),
  });
  const value = (name: string, text: string, lengthMax = 60) => ({
    text: printable(text, lengthMax),
    full: text.length > lengthMax ? printable(text, 1000) : undefined,
    href: filterHref(link, name, text),
  });
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
