/** The top lists of the page. */
import type { ClientIpPolicy } from '../../shared/record/bounds.js';
import { caddySource } from '../../shared/request-event.js';
import { isCut } from '../../shared/sketch/space-saving.js';
import { agentName } from '../stats/agents.js';
import { shareOf } from '../stats/figures.js';
import { barOf, bytes, clientText, count, duration, nbsp, percent, printable } from '../format.js';
import { errorShares, healthRequestsMin } from '../stats/health.js';
import { filterHref, type Link } from './link.js';
import { limitMax } from '../query/query.js';
import type { Traffic } from '../query/read-traffic.js';
import { exactList, listOf, type ListedDimension, type TopList, type TopLists } from '../stats/top-lists.js';

/** Number of rows of a list on the page. The CSV has more. */
export const topRowsMax = 10;
/** Share of possibly uncounted requests above which a count is marked with `≥`. */
const missedShareMax = 0.01;

const countries = new Intl.DisplayNames('en', { type: 'region' });

/** `labelOf` returns the text to show for a value. Default: the value. */
const lists: readonly {
  readonly name: ListedDimension | 'host' | 'method';
  readonly title: string;
  readonly labelOf?: (value: string) => string | undefined;
}[] = [
  { name: 'error', title: 'Reasons of errors' },
  { name: 'upstream', title: 'Upstreams' },
  { name: 'path', title: 'Paths' },
  { name: 'host', title: 'Hosts' },
  { name: 'method', title: 'Methods' },
  { name: 'referrer', title: 'Referrers', labelOf: (referrer) => referrer.replace(/^https?:\/\//, '') },
  { name: 'client', title: 'Clients' },
  { name: 'country', title: 'Countries', labelOf: (code) => countries.of(code) },
  { name: 'who', title: 'People and bots' },
  { name: 'browser', title: 'Browsers' },
  { name: 'system', title: 'Systems' },
  { name: 'bot', title: 'Bots' },
  { name: 'user_agent', title: 'User agents', labelOf: agentName },
];

/** Returns the lists of the first source, without empty ones. */
export function topPanels(traffic: Traffic, { bySource }: TopLists, link: Link, clientIp: ClientIpPolicy | undefined) {
  const [first = caddySource] = traffic.sources.keys();
  return lists
    .map(({ name, title, labelOf = String }) => ({
      name,
      title,
      labelOf: name === 'client' ? (address: string) => clientText(address, clientIp) : labelOf,
      href: (value: string) => (isCut(value) ? undefined : filterHref(link, name, value)),
      csvHref: link({ refresh: undefined, limit: String(limitMax) }, `/api/top/${name}.csv`),
      list:
        name === 'host'
          ? exactList(traffic.hosts.figures, traffic.hosts)
          : name === 'method'
            ? exactList(traffic.methods)
            : listOf(bySource.get(first), name),
    }))
    .filter(({ list }) => list.values.size > 0)
    .map(topPanel);
}

function topPanel({
  name,
  title,
  labelOf,
  href,
  csvHref,
  list: { total, values, count: valuesCount = values.size },
}: {
  name: string;
  title: string;
  labelOf: (value: string) => string | undefined;
  href: (value: string) => string | undefined;
  csvHref: string;
  list: TopList;
}) {
  return {
    name,
    title,
    csvHref,
    more: Math.max(0, valuesCount - topRowsMax),
    rows: [...values].slice(0, topRowsMax).map(([value, { requests, errors, bytes: size, latencyMs, missedMax }]) => ({
      text: printable(labelOf(value) ?? value, 60) || 'none',
      full: value.length > 60 || labelOf(value) !== value ? printable(value, 250) : undefined,
      href: href(value),
      count: missedMax > requests * missedShareMax ? `≥${nbsp}${count(requests)}` : count(requests),
      share: percent(shareOf(requests, total)),
      bar: barOf(shareOf(requests, total)),
      errors: count(errors),
      alarm: requests >= healthRequestsMin && errors / requests > errorShares.degraded.enter,
      p95: duration(latencyMs.p95),
      bytes: bytes(size),
    })),
  };
}
