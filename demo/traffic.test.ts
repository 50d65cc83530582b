import test from 'ava';
import { createTraffic } from './traffic.js';

const hour = { fromS: -4 * 3600, toS: -3 * 3600 };

function requestsOf({ seed = 1, startMs = 0, fromS = hour.fromS, toS = hour.toS } = {}) {
  const traffic = createTraffic({ seed, requestsPerDay: 50_000, startMs });
  return Array.from({ length: toS - fromS }, (_, at) => traffic.requestsOf(fromS + at)).flat();
}

test('generates the same requests for a seed, shifted in time, and others for another seed', (t) => {
  const early = requestsOf({ startMs: 0 });
  const late = requestsOf({ startMs: 5000 });
  t.deepEqual(
    late,
    early.map(({ edge, app }) => ({
      edge: { ...edge, timeMs: edge.timeMs + 5000 },
      app: app && { ...app, timeMs: app.timeMs + 5000 },
    })),
  );
  t.notDeepEqual(requestsOf({ seed: 2 }).slice(0, 5), early.slice(0, 5));
});

test('returns the requests of a second in order of time', (t) => {
  const traffic = createTraffic({ seed: 1, requestsPerDay: 1_000_000, startMs: 60_000 });
  const times = traffic.requestsOf(3).map(({ edge }) => edge.timeMs);
  t.true(times.length > 1);
  t.deepEqual(
    times,
    times.toSorted((a, b) => a - b),
  );
  t.true(times.every((timeMs) => timeMs >= 63_000 && timeMs < 64_000));
});

test('gives each request a unique id, shared by Caddy and the app', (t) => {
  const requests = requestsOf();
  const ids = requests.map(({ edge }) => edge.requestId);
  t.is(new Set(ids).size, requests.length);
  for (const id of ids) t.regex(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  t.true(requests.every(({ edge, app }) => app === undefined || app.requestId === edge.requestId));
});

test('fails during the incident, with errors that only Caddy sees', (t) => {
  const share = (requests: ReturnType<typeof requestsOf>): number =>
    requests.filter(({ edge }) => edge.status >= 500).length / requests.length;
  const incident = requestsOf({ fromS: -12_240, toS: -11_040 });
  t.true(share(incident) > 0.05, String(share(incident)));
  t.true(share(requestsOf({ fromS: -11_000, toS: -9000 })) < 0.01);
  const unseen = incident.filter(({ edge, app }) => edge.status >= 502 && app === undefined);
  t.true(unseen.length > 0);
});
