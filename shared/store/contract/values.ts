import fc from 'fast-check';
import { rollUp } from '../../rollup/rollup-aggregator.js';
import { holdsRollups, sameRequests, sameRollups, takesSeries } from './assertions.js';
import { awkwardTexts, textArbitrary } from './awkward-texts.js';
import type { Declare } from './declare.js';
import { aroundHour, batchOf, hourMs, request, writerOf } from './samples.js';

/** Declares the tests of unusual texts and numbers, which read back unchanged. */
export function declareValues(declare: Declare): void {
  declare('treats text with syntax of line protocol, Flux or SQL as text', async (t, { store }) => {
    const requests = awkwardTexts.map((text, index) => {
      const plain = text.replaceAll(/\p{Cc}/gu, '\ufffd');
      return request({
        timeMs: hourMs + index,
        source: plain,
        host: plain,
        method: plain,
        endpoint: plain,
        uri: text,
        userAgent: text,
        referrer: text,
        clientIp: text,
        protocol: text,
        tls: text,
        error: text,
        errorId: text,
        upstream: text,
        contentType: text,
      });
    });
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 1000 }), requests.toReversed());
    for (const scope of ['all', 'host'] as const) await holdsRollups(t, store, requests, { level: 60, scope });
    const range = { fromMs: hourMs, toMs: hourMs + 1000 };
    for (const [index, one] of requests.entries()) {
      const filter = { source: one.source, host: one.host, method: one.method };
      const about = JSON.stringify(one.uri);
      const same = requests.filter(({ host }) => host === one.host);
      sameRequests(t, await store.readRequests({ ...range, filter, limit: 1000 }), same.toReversed(), about);
      sameRollups(
        t,
        await store.readRollups({ ...range, level: 60, scope: 'host', filter }),
        rollUp(same, 60, 'host'),
        about,
      );
      const samePath = requests.filter(({ uri }) => uri === one.uri || uri.startsWith(`${one.uri}?`));
      sameRequests(
        t,
        await store.readRequests({ ...range, filter: { path: one.uri }, limit: 1000 }),
        samePath.toReversed(),
        about,
      );
      t.true(samePath.includes(requests[index]!));
      for (const text of [
        { client: one.clientIp },
        { userAgent: one.userAgent },
        { error: one.error },
        { upstream: one.upstream },
      ]) {
        sameRequests(
          t,
          await store.readRequests({ ...range, filter: text, limit: 1000 }),
          requests.filter(({ uri }) => uri === one.uri).toReversed(),
          about,
        );
      }
    }
  });

  declare('reads any text as it was written, and filters by it', async (t, { store }) => {
    const writer = writerOf();
    let timeMs = hourMs;
    const text = fc.oneof(textArbitrary({ maxLength: 300 }), fc.constantFrom(...awkwardTexts));
    const tag = fc.oneof(textArbitrary({ maxLength: 255 }), fc.constantFrom(...awkwardTexts)).map((value) =>
      value
        .replaceAll(/\p{Cc}/gu, '\ufffd')
        .slice(0, 255)
        .toWellFormed(),
    );
    const texts = fc.record({
      source: tag,
      host: tag,
      method: tag,
      endpoint: tag,
      uri: text,
      userAgent: text,
      referrer: text,
      clientIp: text,
      protocol: text,
      tls: text,
      error: text,
      errorId: text,
      upstream: text,
      contentType: text,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(texts, { minLength: 1, maxLength: 30 }), async (samples) => {
        timeMs += 60_000;
        const range = { fromMs: timeMs, toMs: timeMs + 60_000 };
        const requests = samples.map((sample, index) => request({ ...sample, timeMs: timeMs + index }));
        await store.write(writer({ requests }));
        sameRequests(t, await store.readRequests({ ...range, filter: {}, limit: 100 }), requests.toReversed());
        sameRollups(
          t,
          await store.readRollups({ ...range, level: 60, scope: 'host', filter: {} }),
          rollUp(requests, 60, 'host'),
        );
        const { source, host, method } = requests[0]!;
        sameRollups(
          t,
          await store.readRollups({ ...range, level: 60, scope: 'host', filter: { source, host, method } }),
          rollUp(
            requests.filter((one) => takesSeries({ source, host, method }, one)),
            60,
            'host',
          ),
        );
      }),
      { numRuns: 25 },
    );
  });

  declare('reads texts of 64 KiB completely', async (t, { store }) => {
    const requests = [
      request({ timeMs: hourMs, uri: `/${'u'.repeat(65_000)}` }),
      request({ timeMs: hourMs + 1, userAgent: '€'.repeat(21_000) }),
      request({ timeMs: hourMs + 2, referrer: '"\\\n '.repeat(16_000) }),
      request({
        timeMs: hourMs + 3,
        source: '€'.repeat(255),
        host: '\\'.repeat(255),
        method: ' '.repeat(255),
        endpoint: ',='.repeat(127),
      }),
    ];
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.toReversed());
  });

  declare('stores special statuses and numbers at their limits exactly', async (t, { store }) => {
    const numbers = [
      { status: 0, durationMs: 0, size: 0, bytesRead: 0 },
      { status: 101, durationMs: 86_400_000.123456, size: Number.MAX_SAFE_INTEGER, bytesRead: Number.MAX_SAFE_INTEGER },
      { status: 599, durationMs: 1e-6, size: 1, bytesRead: 1 },
      { status: 999, durationMs: 0.1 + 0.2, size: 2 ** 32, bytesRead: 2 ** 31 },
      { status: 100, durationMs: 1e21, size: 5, bytesRead: 5 },
    ];
    const requests = numbers.map((one, index) => request({ ...one, timeMs: hourMs + index }));
    await store.write(batchOf({ requests }));
    sameRequests(t, await store.readRequests({ ...aroundHour, filter: {}, limit: 10 }), requests.toReversed());
    await holdsRollups(t, store, requests, { level: 10, scope: 'all' });
  });
}
