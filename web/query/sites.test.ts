import test from 'ava';
import fc from 'fast-check';
import type { HostCounts } from '../../shared/store/store.js';
import { afterOf, parseSitePage, siteSorts, sitesOfPage } from './sites.js';

const site = fc.record({
  source: fc.constantFrom('caddy', 'app'),
  host: fc.constantFrom('a.example', 'b.example', 'c.example', 'd/e', ''),
  requests: fc.nat(4),
  errors: fc.nat(2),
  clientErrors: fc.nat(2),
  bytes: fc.nat(3),
});
const sites = fc.uniqueArray(site, { selector: ({ source, host }) => `${source} ${host}`, maxLength: 10 });

test('returns every site with requests exactly once over all pages, in the requested order', (t) => {
  fc.assert(
    fc.property(sites, fc.constantFrom(...siteSorts), fc.integer({ min: 1, max: 4 }), (counts, sort, limit) => {
      const paged: HostCounts[] = [];
      for (let after: string | undefined; ; ) {
        const page = sitesOfPage(counts, parseSitePage({ sort, after }, limit));
        paged.push(...page.sites);
        if (!page.hasMore) break;
        after = afterOf(page.sites.at(-1)!);
      }
      const whole = sitesOfPage(counts, parseSitePage({ sort }, 100)).sites;
      return (
        JSON.stringify(paged) === JSON.stringify(whole) &&
        whole.length === counts.filter(({ requests }) => requests > 0).length
      );
    }),
  );
  t.deepEqual(sitesOfPage([], parseSitePage({ after: 'caddy/gone.example' }, 5)), { sites: [], hasMore: false });
});

test('refuses an unknown sort or an invalid cursor and names the allowed values', (t) => {
  t.throws(() => parseSitePage({ sort: 'p95' }, 1), { message: /sort is "p95"; allowed is requests, errors/ });
  t.throws(() => parseSitePage({ after: 'caddy' }, 1), { message: /after is "caddy"/ });
  t.throws(() => parseSitePage({ after: '%/a' }, 1), { message: /after is "%\/a"/ });
});
