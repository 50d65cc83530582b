import test from 'ava';
import type { CaddyEvent } from '../../shared/caddy-event.js';
import type { EventRow } from '../../shared/record/event-folder.js';
import { problemsOf } from './problems.js';

const startMs = Date.UTC(2026, 10, 29);

function row(event: Partial<CaddyEvent>, { count = 1, atMs = 0 } = {}): EventRow {
  return {
    windowMs: startMs,
    rowId: 1,
    count,
    lastMs: startMs + atMs + 100,
    event: {
      timeMs: startMs + atMs,
      timeNs: 0,
      level: 'error',
      logger: 'http.log.error',
      message: '',
      error: '',
      reason: 'refused',
      host: 'a.example',
      method: 'GET',
      uri: '/',
      status: 502,
      errorId: '',
      upstream: '10.0.0.3:80',
      fields: '',
      ...event,
    },
  };
}

test('groups events by reason and upstream, with hosts and times, most events first', (t) => {
  t.deepEqual(
    problemsOf([
      row({ host: 'b.example' }, { count: 2, atMs: 5000 }),
      row({ upstream: '10.0.0.4:80' }, { count: 4 }),
      row({}, { count: 3, atMs: 1000 }),
      row({ host: 'b.example' }, { count: 2 }),
    ]),
    [
      {
        reason: 'refused',
        upstream: '10.0.0.3:80',
        count: 7,
        hosts: [
          { host: 'b.example', count: 4 },
          { host: 'a.example', count: 3 },
        ],
        requests: 7,
        firstMs: startMs,
        lastMs: startMs + 5100,
      },
      {
        reason: 'refused',
        upstream: '10.0.0.4:80',
        count: 4,
        hosts: [{ host: 'a.example', count: 4 }],
        requests: 4,
        firstMs: startMs,
        lastMs: startMs + 100,
      },
    ],
  );
});

test('takes failures of requests, health checks and certificates, and nothing else', (t) => {
  const reasons = problemsOf([
    row({ reason: '5xx' }),
    row({ reason: '404', status: 404 }),
    row({ reason: 'cut', level: 'warn', logger: 'http.handlers.reverse_proxy', status: 0, error: 'EOF' }),
    row({ reason: 'HTTP/3 skipped', level: 'warn', logger: 'http', status: 0 }),
    row({
      reason: 'unhealthy',
      level: 'info',
      logger: 'http.handlers.reverse_proxy.health_checker.active',
      status: 0,
      error: 'EOF',
    }),
    row({
      reason: 'host is up',
      level: 'info',
      logger: 'http.handlers.reverse_proxy.health_checker.active',
      status: 0,
    }),
    row({ reason: 'no route', logger: 'tls.obtain', status: 0 }),
    row({ reason: '' }),
  ]).map(({ reason }) => reason);
  t.deepEqual(reasons.sort(), ['5xx', 'cut', 'no route', 'unhealthy']);
});
