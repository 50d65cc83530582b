import test from 'ava';
import { crossSiteRefusal } from './cross-site.js';

const host = '127.0.0.1:3000';

test('allows programs other than browsers', (t) => {
  for (const headers of [{ host }, {}, { host, 'sec-fetch-mode': 'cors' /* fetch of Node */ }]) {
    for (const method of ['GET', 'POST', 'OPTIONS']) t.is(crossSiteRefusal({ method, headers }), undefined);
  }
});

test('allows our own pages, the address bar and links', (t) => {
  for (const headers of [
    { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty' },
    { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors', origin: `http://${host}` },
    { 'sec-fetch-site': 'none', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
    { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' },
    {
      'sec-fetch-site': 'same-site',
      'sec-fetch-mode': 'navigate',
      'sec-fetch-dest': 'document',
      'sec-fetch-user': '?1',
    },
  ])
    t.is(crossSiteRefusal({ method: 'GET', headers: { host, ...headers } }), undefined, JSON.stringify(headers));
});

for (const site of ['cross-site', 'same-site', 'cross-site, same-origin', 'anything else']) {
  test(`refuses subresources, frames and posts when Sec-Fetch-Site is ${site}`, (t) => {
    const refused = (headers: Record<string, string>, method = 'GET'): void => {
      t.regex(
        crossSiteRefusal({ method, headers: { host, 'sec-fetch-site': site, ...headers } }) ?? '',
        /^Sec-Fetch-Site is "/,
        JSON.stringify(headers),
      );
    };
    for (const mode of ['no-cors', 'cors', 'same-origin', 'websocket']) {
      for (const dest of ['image', 'script', 'style', 'empty', 'document'])
        refused({ 'sec-fetch-mode': mode, 'sec-fetch-dest': dest });
    }
    for (const dest of ['iframe', 'frame', 'embed', 'object', 'fencedframe', 'empty'])
      refused({ 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': dest });
    refused({ 'sec-fetch-mode': 'navigate' });
    refused({});
    const page = { 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' };
    for (const method of ['POST', 'OPTIONS', 'PUT']) refused(page, method);
    refused({ ...page, 'sec-purpose': 'prefetch' });
    refused({ ...page, 'sec-purpose': 'prefetch;prerender' });
  });
}

for (const [origin, ownHost] of [
  ['http://127.0.0.1:3000', '127.0.0.1:3000'],
  ['http://LOCALHOST:3000', 'localhost:3000'],
  ['http://[::1]:3000', '[::1]:3000'],
  ['http://stats.example', 'stats.example'],
  ['http://stats.example', 'stats.example:80'],
  // Behind a proxy that terminates TLS and forwards the request as HTTP.
  ['https://stats.example', 'stats.example'],
  ['https://stats.example', 'stats.example:443'],
  ['https://stats.example:8443', 'stats.example:8443'],
] as const) {
  test(`accepts ${origin} as our own origin when Host is ${ownHost}`, (t) => {
    for (const method of ['GET', 'POST', 'OPTIONS'])
      t.is(crossSiteRefusal({ method, headers: { host: ownHost, origin } }), undefined);
  });
}

for (const [origin, ownHost] of [
  ['null', '127.0.0.1:3000'],
  ['', '127.0.0.1:3000'],
  ['http://127.0.0.1:8080', '127.0.0.1:3000'],
  ['http://127.0.0.1', '127.0.0.1:3000'],
  ['http://localhost:3000', '127.0.0.1:3000'],
  ['https://stats.example', 'stats.example:80'],
  ['http://stats.example', 'stats.example:443'],
  ['http://evil.example', 'stats.example'],
  ['http://stats.example.evil.example', 'stats.example'],
  ['http://stats.example, http://evil.example', 'stats.example'],
  ['http://stats.example@evil.example', 'stats.example'],
  ['http://evil.example@stats.example', 'stats.example'],
  ['http://stats.example/path', 'stats.example'],
  ['http://stats.example', 'stats.example/path'],
  ['chrome-extension://stats.example', 'stats.example'],
  ['file://', ''],
  ['http://', ''],
  ['http://stats.example', undefined],
] as const) {
  test(`refuses the origin ${JSON.stringify(origin)} when Host is ${ownHost}, with any other headers`, (t) => {
    const refusal = crossSiteRefusal({
      method: 'GET',
      headers: {
        ...(ownHost !== undefined && { host: ownHost }),
        origin,
        'sec-fetch-site': 'same-origin',
        'sec-fetch-mode': 'navigate',
        'sec-fetch-dest': 'document',
      },
    });
    t.true(refusal?.startsWith('Origin is '));
  });
}
