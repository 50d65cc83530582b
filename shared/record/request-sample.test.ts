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
      const isSampled = createRequestSample(ratio);
      for (const subset of [
        requests,
        requests.filter(({ status }) => status === 404),
        requests.filter(({ uri }) => uri === '/7'),
      ]) {
        const sampled = subset.filter(isSampled).length;
        const deviation = Math.sqrt(subset.length * ratio * (1 - ratio));
        // Six standard deviations: once in 500 million.
        if (Math.abs(sampled - subset.length * ratio) > 6 * deviation + 1)
          throw new Error(`${sampled} of ${subset.length} are sampled instead of ${ratio} of them`);
      }
    }),
    { numRuns: 50 },
  );
  t.pass();
});

test('samples deterministically, and a larger fraction includes a smaller one', (t) => {
  const [small, repeated, large] = [0.1, 0.1, 0.3].map(createRequestSample) as [
    ReturnType<typeof createRequestSample>,
    ReturnType<typeof createRequestSample>,
    ReturnType<typeof createRequestSample>,
  ];
  for (const request of requests) {
    if (small(request) !== repeated({ ...request })) t.fail('two collectors sample differently');
    if (small(request) && !large(request)) t.fail('a request in a sample of 0.1 is not in one of 0.3');
  }
  t.pass();
});

test('samples all requests with 1, and none with 0', (t) => {
  t.true(requests.every(createRequestSample(1)));
  t.false(requests.some(createRequestSample(0)));
});

test('samples the same requests of Caddy and an app that share ids', (t) => {
  const isSampled = createRequestSample(0.2);
  const ids = Array.from({ length: 2000 }, (_, at) => `id-${at}`);
  const sampled = ids.filter((requestId) => isSampled(event({ requestId, timeMs: 1, uri: '/a' })));
  t.deepEqual(
    ids.filter((requestId) => isSampled(event({ requestId, source: 'app', timeMs: 2, uri: '/b', status: 500 }))),
    sampled,
  );
  t.true(sampled.length > 300 && sampled.length < 500);
});

test('rejects any other fraction', (t) => {
  for (const ratio of [-0.1, 1.1, Number.NaN, Infinity])
    t.throws(() => createRequestSample(ratio), { instanceOf: RangeError, message: /from 0 to 1/ });
});
