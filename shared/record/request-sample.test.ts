import test from 'ava';
import fc from 'fast-check';
import { event } from '../../test/web-samples.js';
import { createRequestSample } from './request-sample.js';

const requests = Array.from({ length: 20_000 }, (_, at) =>
  event({
    timeMs: 1_764_000_000_000 + at,
    timeNs: (at * 1000) % 1_000_000,
    uri: `/${at % 50}`,
    status: at % 10 === 0 ? 404 : 200,
  }),
);

test('samples the requested fraction of every status and path', (t) => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1, noNaN: true }), (ratio) => {
      const isKept = createRequestSample(ratio);
      for (const some of [
        requests,
        requests.filter(({ status }) => status === 404),
        requests.filter(({ uri }) => uri === '/7'),
      ]) {
        const kept = some.filter(isKept).length;
        const deviation = Math.sqrt(some.length * ratio * (1 - ratio));
        // Six standard deviations: once in 500 million.
        if (Math.abs(kept - some.length * ratio) > 6 * deviation + 1)
          throw new Error(`${kept} of ${some.length} are kept, where ${ratio} of them are wanted`);
      }
    }),
    { numRuns: 50 },
  );
  t.pass();
});

test('samples deterministically, and a larger fraction includes a smaller one', (t) => {
  const [small, again, great] = [0.1, 0.1, 0.3].map(createRequestSample) as [
    ReturnType<typeof createRequestSample>,
    ReturnType<typeof createRequestSample>,
    ReturnType<typeof createRequestSample>,
  ];
  for (const request of requests) {
    if (small(request) !== again({ ...request })) t.fail('two collectors choose otherwise');
    if (small(request) && !great(request)) t.fail('what is kept of a tenth is not kept of three tenths');
  }
  t.pass();
});

test('samples all requests with 1, and none with 0', (t) => {
  t.true(requests.every(createRequestSample(1)));
  t.false(requests.some(createRequestSample(0)));
});

test('samples the same requests of Caddy and an app that share ids', (t) => {
  const isKept = createRequestSample(0.2);
  const ids = Array.from({ length: 2000 }, (_, at) => `id-${at}`);
  const kept = ids.filter((requestId) => isKept(event({ requestId, timeMs: 1, uri: '/a' })));
  t.deepEqual(
    ids.filter((requestId) => isKept(event({ requestId, source: 'app', timeMs: 2, uri: '/b', status: 500 }))),
    kept,
  );
  t.true(kept.length > 300 && kept.length < 500);
});

test('rejects any other fraction', (t) => {
  for (const ratio of [-0.1, 1.1, Number.NaN, Infinity])
    t.throws(() => createRequestSample(ratio), { instanceOf: RangeError, message: /from 0 to 1/ });
});
