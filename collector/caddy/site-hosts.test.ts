import test from 'ava';
import fc from 'fast-check';
import { siteHosts } from './site-hosts.js';

test('finds the hosts of all routes, as they are logged', (t) => {
  const config = {
    apps: {
      http: {
        servers: {
          first: {
            routes: [
              {
                match: [
                  { host: ['Shop.example', '*.shop.example'] },
                  { path: ['/any'] },
                  { host: ['bücher.example.'] },
                ],
                handle: [
                  {
                    handler: 'subroute',
                    routes: [
                      { match: [{ host: ['nested.example'] }] },
                      {
                        handle: [
                          {
                            handler: 'reverse_proxy',
                            handle_response: [
                              { match: { status_code: [5] }, routes: [{ match: [{ host: ['deep.example'] }] }] },
                            ],
                          },
                        ],
                      },
                    ],
                  },
                ],
              },
              { match: [{ host: ['{env.HOST}', 'shop.example'] }, { not: [{ host: ['other.example'] }] }] },
            ],
          },
          second: {
            routes: [],
            errors: { routes: [{ match: [{ host: ['errors.example'] }] }] },
            named_routes: { some: { match: [{ host: ['named.example'] }] } },
          },
        },
      },
    },
  };
  t.deepEqual(siteHosts(config).sort(), [
    '*.shop.example',
    'deep.example',
    'errors.example',
    'named.example',
    'nested.example',
    'shop.example',
    'xn--bcher-kva.example',
  ]);
});

test('accepts a configuration of any shape', (t) => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      for (const config of [
        value,
        { apps: value },
        { apps: { http: { servers: value } } },
        { apps: { http: { servers: { a: { routes: [{ match: value }, { match: [{ host: value }] }] } } } } },
      ]) {
        t.true(siteHosts(config).every((host) => typeof host === 'string'));
      }
    }),
  );
});
