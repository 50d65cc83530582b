import test from 'ava';
import fc from 'fast-check';
import { Correlator, type ErrorReport, type RequestIdentity } from './correlate.js';

const startMs = Date.UTC(2026, 10, 29);
const none = { error: '', errorId: '', upstream: '' };

function identity(overrides: Partial<RequestIdentity> = {}): RequestIdentity {
  return {
    remoteIp: '198.51.100.7',
    remotePort: '49192',
    method: 'GET',
    host: 'dead.example',
    uri: '/a',
    status: 502,
    duration: 0.000501956,
    ...overrides,
  };
}

function report(overrides: Partial<ErrorReport> = {}): ErrorReport {
  return {
    timeMs: startMs,
    error: 'refused',
    errorId: 'hrgs1kzyk',
    upstream: '10.0.0.3:80',
    isFinal: true,
    ...overrides,
  };
}

test('gives a request the reason of its error line, once', (t) => {
  const correlator = new Correlator();
  correlator.add(identity(), report());
  t.deepEqual(correlator.take(identity(), startMs), {
    error: 'refused',
    errorId: 'hrgs1kzyk',
    upstream: '10.0.0.3:80',
  });
  t.is(correlator.take(identity(), startMs), undefined);
  t.is(correlator.size, 0);
});

test('gives no reason to another request of the same peer, target or connection', (t) => {
  const correlator = new Correlator();
  correlator.add(identity(), report());
  for (const other of [
    { remotePort: '49193' },
    { method: 'POST' },
    { host: 'a.example' },
    { uri: '/b' },
    { duration: 0.000501957 },
    { duration: undefined, remoteIp: '198.51.100.8' },
    { duration: '0.5ms', status: 200 },
  ])
    t.is(correlator.take(identity(other), startMs), undefined, JSON.stringify(other));
  t.is(correlator.size, 1);
});

test('compares the duration where one log masks the address, and the connection where durations differ in format', (t) => {
  const correlator = new Correlator();
  correlator.add(identity(), report());
  t.is(correlator.take(identity({ remoteIp: '198.51.0.0' }), startMs)?.error, 'refused');
  correlator.add(identity(), report());
  t.is(correlator.take(identity({ duration: '501.956µs' }), startMs)?.error, 'refused');
  correlator.add(identity({ remotePort: '' }), report());
  t.is(
    correlator.take(identity({ remotePort: '', duration: undefined }), startMs),
    undefined,
    'no connection to compare',
  );
  t.is(correlator.take(identity({ remotePort: '' }), startMs)?.error, 'refused');
});

test('a duration of a few digits does not tell requests apart', (t) => {
  const correlator = new Correlator();
  correlator.add(identity({ duration: 0.002 }), report());
  t.is(correlator.take(identity({ duration: 0.002, status: 200 }), startMs + 10), undefined, 'another status');
  t.is(correlator.take(identity({ duration: 0.002 }), startMs + 4000), undefined, 'seconds later');
  t.is(correlator.take(identity({ duration: 0.003 }), startMs), undefined, 'another duration');
  t.is(correlator.take(identity({ duration: '2ms' }), startMs)?.error, 'refused');
});

test('expires reports by their arrival, whatever the clock of another Caddy', (t) => {
  const correlator = new Correlator();
  correlator.add(identity(), report(), startMs);
  correlator.add(identity({ uri: '/fast' }), report({ timeMs: startMs + 60_000, errorId: 'b' }), startMs + 1);
  t.is(correlator.take(identity(), startMs, startMs + 2)?.error, 'refused');
  correlator.add(identity({ uri: '/later' }), report({ errorId: 'c' }), startMs + 10_000);
  t.is(correlator.size, 1);
});

test('a client that reuses its port gets no reason of an earlier request whose access line never came', (t) => {
  const correlator = new Correlator();
  correlator.add(identity({ duration: undefined }), report());
  t.is(correlator.take(identity({ duration: undefined, status: 200 }), startMs + 100), undefined, 'another status');
  t.is(correlator.take(identity({ duration: undefined }), startMs + 1001), undefined, 'too late');
  t.is(correlator.take(identity({ duration: undefined }), startMs + 5001), undefined);
  t.is(correlator.size, 0);
});

test('adds the upstream of the only failed attempt, and none of a request that then succeeded', (t) => {
  const correlator = new Correlator();
  const attempt = (upstream: string): void => {
    correlator.add(
      identity({ duration: undefined, status: 0 }),
      report({ isFinal: false, error: 'timeout', errorId: '', upstream }),
    );
  };
  attempt('10.0.0.1:80');
  correlator.add(identity(), report({ upstream: '' }));
  t.is(correlator.take(identity(), startMs)?.upstream, '10.0.0.1:80');
  attempt('10.0.0.1:80');
  attempt('10.0.0.2:80');
  correlator.add(identity(), report({ upstream: '' }));
  t.is(correlator.take(identity(), startMs)?.upstream, '', 'one of two');
  attempt('10.0.0.1:80');
  t.is(correlator.take(identity({ status: 200 }), startMs), undefined);
  t.is(correlator.size, 0);
});

test('several requests of one kind without comparable durations get what their reports have in common', (t) => {
  const correlator = new Correlator();
  const access = identity({ duration: undefined });
  for (const errorId of ['a', 'b']) correlator.add(identity(), report({ errorId }));
  t.deepEqual(correlator.take(access, startMs), { ...none, error: 'refused', upstream: '10.0.0.3:80' });
  t.is(correlator.take(access, startMs)?.errorId, 'b', 'one is left');
  for (const error of ['refused', 'timeout']) correlator.add(identity(), report({ error, errorId: error }));
  t.is(correlator.take(access, startMs), undefined, 'one of two reasons');
});

test('takes an error once that a site with several loggers has written several times', (t) => {
  const correlator = new Correlator();
  for (let times = 0; times < 2; times += 1) correlator.add(identity(), report());
  t.is(correlator.take(identity(), startMs)?.errorId, 'hrgs1kzyk');
  t.is(correlator.size, 0);
});

test('forgets the oldest reports beyond its limit', (t) => {
  const correlator = new Correlator();
  for (let at = 0; at < 50_000; at += 1) correlator.add(identity({ uri: `/${at}` }), report({ errorId: `${at}` }));
  t.is(correlator.size, 20_000);
  t.is(correlator.take(identity({ uri: '/0' }), startMs), undefined);
  t.truthy(correlator.take(identity({ uri: '/49999' }), startMs));
});

/** Requests on a few connections and targets, each with its own duration, of which some fail. */
const requests = fc.array(
  fc.record({
    remotePort: fc.constantFrom('1', '2'),
    uri: fc.constantFrom('/a', '/b'),
    fails: fc.boolean(),
    reportComes: fc.boolean(),
    accessComes: fc.boolean(),
    delay: fc.nat(40),
  }),
  { maxLength: 40 },
);

test('never gives a request the reason of another one, in any order of lines', (t) => {
  fc.assert(
    fc.property(requests, fc.boolean(), (all, hasDuration) => {
      const correlator = new Correlator();
      const lines = all.flatMap(({ remotePort, uri, fails, reportComes, accessComes, delay }, at) => {
        const own = identity({
          remotePort,
          uri,
          status: fails ? 502 : 200,
          duration: hasDuration ? (123_457 + 2 * at) / 1e9 : undefined,
        });
        const timeMs = startMs + at;
        return [
          ...(fails && reportComes
            ? [
                {
                  at,
                  order: at,
                  run: () => {
                    correlator.add(own, report({ timeMs, error: `${at}`, errorId: `${at}` }));
                  },
                },
              ]
            : []),
          ...(accessComes
            ? [
                {
                  at,
                  order: at + delay,
                  run: () => {
                    const reason = correlator.take(own, timeMs + delay);
                    if (reason === undefined) return;
                    if (hasDuration) t.is(reason.error, `${at}`);
                    else if (reason.error !== '') t.like(all[Number(reason.error)], { remotePort, uri });
                    t.true(fails);
                  },
                },
              ]
            : []),
        ];
      });
      for (const line of lines.sort((a, b) => a.order - b.order || a.at - b.at)) line.run();
      t.true(correlator.size <= all.length);
    }),
  );
});
