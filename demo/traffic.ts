/**
 * Generates the traffic of the demo: two sites behind one Caddy, one of them in front of an app. The time of day is
 * relative to the start of the demo, so that a seed generates the same requests at any hour, shifted in time.
 */
import { caddySource, type RequestEvent } from '../shared/request-event.js';
import { isClientError, isServerError } from '../shared/status.js';
import { createRandom, type Random } from './random.js';
import { clientAddress, scannedPage, shopHost, visit, visitor, type Agent, type Page } from './visitors.js';

/** A request as logged by Caddy, and by the app if it got there. */
export interface DemoRequest {
  readonly edge: RequestEvent;
  readonly app: RequestEvent | undefined;
}

/** A generator of requests. */
export interface Traffic {
  /**
   * Returns the requests that end in the second at `offsetS` seconds after the start, or before it if negative, in
   * order of time. Call it with increasing offsets.
   */
  requestsOf(offsetS: number): DemoRequest[];
}

/** The app's name. */
export const appSource = 'shop';

const dayS = 86_400;
/** Hour of the demo's day at its start: near the peak of the traffic. */
const startHour = 15;
/** Time of the app's incident, in seconds after the start. */
const incident = { fromS: -3.4 * 3600, toS: -3.4 * 3600 + 20 * 60 } as const;
/** Minimum duration of responses that use the app's database, in milliseconds. */
const dataMsMin = 5;
/** Time of a scan of both sites, in seconds after the start. */
const scan = { fromS: -8.2 * 3600, toS: -8.2 * 3600 + 240, perS: 4 } as const;

/**
 * Creates a generator. `requestsPerDay`: average number of requests to Caddy. `startMs`: start of the demo, in
 * milliseconds since 1970.
 */
export function createTraffic({
  seed,
  requestsPerDay,
  startMs,
}: {
  seed: number;
  requestsPerDay: number;
  startMs: number;
}): Traffic {
  const random = createRandom(seed);
  // A separate generator, so that ids do not affect the requests.
  const ids = createRandom(~seed);
  return {
    requestsOf(offsetS) {
      const requests: DemoRequest[] = [];
      const parts = { random, ids, startMs, offsetS };
      // In steps of 10, since Knuth's method needs small means.
      for (let left = (rhythm(offsetS) * requestsPerDay) / dayS; left > 0; left -= 10) {
        for (let more = random.arrivals(Math.min(left, 10)); more > 0; more -= 1) {
          const agent = visitor(random);
          requests.push(requestOf(agent, visit(agent, random), parts));
        }
      }
      if (isWithin(scan, offsetS)) {
        for (let more = random.arrivals((scan.perS * requestsPerDay) / 100_000); more > 0; more -= 1) {
          requests.push(
            requestOf(
              { userAgent: 'Mozilla/5.0 zgrab/0.x', kind: 'scanner' },
              { host: shopHost, page: scannedPage(shopHost, random), referrer: '' },
              parts,
            ),
          );
        }
      }
      return requests.sort((a, b) => a.edge.timeMs - b.edge.timeMs || a.edge.timeNs - b.edge.timeNs);
    },
  };
}

/** Traffic at a time, as a multiple of the mean: lowest before dawn, with waves of some minutes. */
function rhythm(offsetS: number): number {
  const hour = startHour + offsetS / 3600;
  const day = 1 - 0.62 * Math.cos(((hour - 4.5) / 24) * 2 * Math.PI) - 0.16 * Math.cos(((hour - 1) / 12) * 2 * Math.PI);
  return Math.max(0.1, day * (1 + 0.1 * Math.sin(offsetS / 700) + 0.07 * Math.sin(offsetS / 170)));
}

function isWithin({ fromS, toS }: { readonly fromS: number; readonly toS: number }, offsetS: number): boolean {
  return offsetS >= fromS && offsetS < toS;
}

interface Moment {
  readonly random: Random;
  readonly ids: Random;
  readonly startMs: number;
  readonly offsetS: number;
}

function requestOf(
  { userAgent, kind }: Agent,
  { host, page, referrer }: ReturnType<typeof visit>,
  { random, ids, startMs, offsetS }: Moment,
): DemoRequest {
  // The incident affects the database: other pages are served as usual.
  const isInIncident = page.endpoint !== '' && page.medianMs > dataMsMin && isWithin(incident, offsetS);
  const { status, reachesApp } = outcome(page, isInIncident, random);
  const withoutBody = status === 304 || page.method === 'HEAD' || status === 0;
  const appMs =
    page.endpoint === ''
      ? undefined
      : isInIncident
        ? random.around(page.medianMs * 14, 0.7)
        : random.around(page.medianMs, 0.45);
  // Caddy's overhead: TLS, and sending to clients, which may be slow.
  const edgeMs = (appMs ?? random.around(page.medianMs, 0.8)) + random.around(0.4, 0.9);
  const at = {
    timeMs: startMs + offsetS * 1000 + Math.floor(random.next() * 1000),
    timeNs: Math.floor(random.next() * 1_000_000),
  };
  const edge: RequestEvent = {
    ...at,
    source: caddySource,
    host,
    method: page.method,
    status,
    durationMs: round(edgeMs),
    size: withoutBody
      ? 0
      : Math.round(isClientError(status) || isServerError(status) ? 120 : random.around(page.medianBytes, 0.25)),
    bytesRead: page.method === 'POST' ? 40 + Math.floor(random.next() * 200) : 0,
    uri: page.uri,
    endpoint: '',
    clientIp: clientAddress(random),
    userAgent,
    referrer,
    protocol: kind === 'browser' ? (random.next() < 0.6 ? 'HTTP/2.0' : 'HTTP/3.0') : 'HTTP/1.1',
    tls: 'TLS 1.3',
    upstreamMs: reachesApp && appMs !== undefined ? round(appMs) : null,
    error: '',
    errorId: '',
    upstream: '',
    retries: null,
    contentType: '',
    requestId: uuid(ids),
  };
  if (!reachesApp || appMs === undefined) return { edge, app: undefined };
  return {
    edge,
    app: {
      ...edge,
      source: appSource,
      endpoint: page.endpoint,
      durationMs: round(appMs),
      protocol: 'HTTP/1.1',
      tls: '',
      upstreamMs: null,
      error: '',
      errorId: '',
      upstream: '',
      retries: null,
      contentType: '',
    },
  };
}

/** During the incident, the app fails (500), is too slow for Caddy (504), or cannot be reached (502). */
function outcome(page: Page, isInIncident: boolean, random: Random): { status: number; reachesApp: boolean } {
  const usual = { status: random.pick(page.statuses), reachesApp: page.endpoint !== '' };
  if (isInIncident) {
    const fate = random.next();
    if (fate < 0.2) return { status: 500, reachesApp: true };
    if (fate < 0.26) return { status: 504, reachesApp: false };
    if (fate < 0.3) return { status: 502, reachesApp: false };
    return usual;
  }
  const fate = random.next();
  if (fate < 0.0008 && usual.reachesApp) return { status: 502, reachesApp: false };
  if (fate < 0.002) return { status: 0, reachesApp: false }; // the client disconnected
  return usual;
}

/** A UUID like `{http.request.uuid}`: version 4 of RFC 9562. */
function uuid({ next }: Random): string {
  const [a, b, c, d] = Array.from({ length: 4 }, () =>
    Math.floor(next() * 2 ** 32)
      .toString(16)
      .padStart(8, '0'),
  ) as [string, string, string, string];
  return `${a}-${b.slice(0, 4)}-4${b.slice(5)}-${'89ab'[Math.floor(next() * 4)]}${c.slice(1, 4)}-${c.slice(4)}${d}`;
}

/** Rounds to microseconds. */
function round(durationMs: number): number {
  return Math.round(durationMs * 1000) / 1000;
}
