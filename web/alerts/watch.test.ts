import test from 'ava';
import { Watch, type Finding, type Observation } from './watch.js';

const errors: Finding = { kind: 'errors', state: 'degraded', sinceMs: 500, share: 0.03 };
const silent: Finding = { kind: 'silent', state: 'failing', sinceMs: 700, limitMs: 60_000 };

function caddy(...findings: Finding[]): Observation[] {
  return [{ source: 'caddy', findings, lastMs: 0 }];
}

test('fires a persistent finding once, and resolves it after it has been absent for a while', (t) => {
  const watch = new Watch({ fireAfterMs: 10, resolveAfterMs: 30 });
  t.deepEqual(watch.observe(caddy(errors), 0), []);
  t.deepEqual(watch.observe(caddy(errors), 9), []);
  t.deepEqual(watch.observe(caddy({ ...errors, share: 0.04, sinceMs: 900 }), 10), [
    { status: 'firing', source: 'caddy', finding: { ...errors, share: 0.04, sinceMs: 900 }, sinceMs: 500 },
  ]);
  t.deepEqual(watch.observe(caddy(errors), 20), []);
  t.deepEqual(watch.observe(caddy(), 30), []);
  t.deepEqual(watch.observe(caddy(errors), 50), [], 'it came back');
  t.deepEqual(watch.observe(caddy(), 60), []);
  t.deepEqual(watch.observe(caddy(), 89), []);
  t.deepEqual(watch.observe(caddy(), 90), [{ status: 'resolved', source: 'caddy', finding: errors, sinceMs: 500 }]);
  t.deepEqual(watch.observe(caddy(), 200), []);
  watch.observe(caddy(errors), 300);
  t.is(watch.observe(caddy(errors), 310)[0]?.status, 'firing', 'it may fire again');
});

test('never fires a finding that does not persist', (t) => {
  const watch = new Watch({ fireAfterMs: 10 });
  for (let nowMs = 0; nowMs < 100; nowMs += 10)
    t.deepEqual(watch.observe(nowMs % 20 === 0 ? caddy(errors) : caddy(), nowMs), []);
});

test('distinguishes kinds and sources', (t) => {
  const watch = new Watch({ fireAfterMs: 0 });
  const changes = watch.observe([...caddy(errors, silent), { source: 'shop', findings: [errors], lastMs: 0 }], 0);
  t.deepEqual(
    changes.map(({ source, finding }) => `${source} ${finding.kind}`),
    ['caddy errors', 'caddy silent', 'shop errors'],
  );
});

test('does not resolve errors with too few requests; resolves silence with any request', (t) => {
  const watch = new Watch({ fireAfterMs: 0, resolveAfterMs: 0 });
  t.is(watch.observe(caddy(errors, silent), 0).length, 2);
  t.deepEqual(watch.observe([], 100_000), []);
  t.deepEqual(watch.observe([{ source: 'caddy', findings: undefined, lastMs: 700 }], 100_000), []);
  t.deepEqual(
    watch.observe([{ source: 'caddy', findings: [errors], lastMs: 700 }], 100_000),
    [],
    'too few requests remain to find the silence, but there is no new request',
  );
  t.deepEqual(
    watch
      .observe([{ source: 'caddy', findings: undefined, lastMs: 100_000 }], 100_000)
      .map(({ finding }) => finding.kind),
    ['silent'],
  );
  t.deepEqual(
    watch.observe(caddy(), 200_000).map(({ finding }) => finding.kind),
    ['errors'],
  );
});

test('limits the number of concurrent alerts', (t) => {
  const watch = new Watch({ fireAfterMs: 0, alertsMax: 3 });
  t.is(
    watch.observe(
      Array.from({ length: 5 }, (_, at) => ({ source: `app-${at}`, findings: [errors], lastMs: 0 })),
      0,
    ).length,
    3,
  );
});
