/** Visitors of the two demo sites, and their requests. All names and addresses are reserved for examples. */
import type { Random, Weighted } from './random.js';

/** The site in front of the app. */
export const shopHost = 'shop.example.com';
/** The static site. */
const blogHost = 'blog.example.org';

/** A page, with the distribution of its responses. */
export interface Page {
  readonly method: string;
  readonly uri: string;
  /** The app's route; `''` if Caddy answers itself. */
  readonly endpoint: string;
  /** Median duration, in milliseconds. */
  readonly medianMs: number;
  /** Median size of the body, in bytes. */
  readonly medianBytes: number;
  readonly statuses: readonly Weighted<number>[];
  /** Whether visitors may arrive here from other sites. */
  readonly isEntry: boolean;
}

type MakePage = (random: Random) => Page;

const read: readonly Weighted<number>[] = [
  [96, 200],
  [4, 304],
];
const cached: readonly Weighted<number>[] = [
  [70, 200],
  [30, 304],
];

/** A file, served by Caddy, or by the app if it has a route. */
function file(uri: string, medianBytes: number, endpoint = ''): Page {
  return {
    method: 'GET',
    uri,
    endpoint,
    medianMs: endpoint === '' ? 0.5 : 1.6,
    medianBytes,
    statuses: cached,
    isEntry: false,
  };
}

const products = [
  'oak-desk',
  'walnut-shelf',
  'linen-sofa',
  'reading-lamp',
  'wool-rug',
  'ash-stool',
  'steel-rack',
  'clay-vase',
  'cork-board',
  'cedar-chest',
  'rattan-chair',
  'brass-hook',
];
const searches = ['desk', 'lamp', 'shelf oak', 'rug', 'chair', 'stool', 'sofa bed', 'hook', 'sale'];
const posts = [
  'a-year-with-one-server',
  'sockets-do-not-wait',
  'how-we-store-time',
  'small-tools',
  'counting-requests',
  'notes-on-caches',
  'the-slow-query',
  'restarts-without-fear',
];

const shopPages: readonly Weighted<MakePage>[] = [
  [
    14,
    () => ({
      method: 'GET',
      uri: '/',
      endpoint: '/',
      medianMs: 14,
      medianBytes: 21_000,
      statuses: read,
      isEntry: true,
    }),
  ],
  [
    26,
    (random) => ({
      method: 'GET',
      uri: `/products/${products[random.popular(products.length)]!}`,
      endpoint: '/products/:name',
      medianMs: 19,
      medianBytes: 26_000,
      statuses: [
        [95, 200],
        [3, 304],
        [2, 404],
      ],
      isEntry: true,
    }),
  ],
  [
    8,
    (random) => ({
      method: 'GET',
      uri: `/search?q=${encodeURIComponent(searches[random.popular(searches.length)]!)}`,
      endpoint: '/search',
      medianMs: 46,
      medianBytes: 18_000,
      statuses: [[1, 200]],
      isEntry: false,
    }),
  ],
  [
    6,
    () => ({
      method: 'GET',
      uri: '/api/cart',
      endpoint: '/api/cart',
      medianMs: 7,
      medianBytes: 640,
      statuses: [
        [98, 200],
        [2, 401],
      ],
      isEntry: false,
    }),
  ],
  [
    4,
    () => ({
      method: 'POST',
      uri: '/api/cart/items',
      endpoint: '/api/cart/items',
      medianMs: 22,
      medianBytes: 310,
      statuses: [
        [94, 201],
        [4, 422],
        [2, 409],
      ],
      isEntry: false,
    }),
  ],
  [
    2,
    () => ({
      method: 'POST',
      uri: '/login',
      endpoint: '/login',
      medianMs: 85,
      medianBytes: 0,
      statuses: [
        [80, 302],
        [18, 401],
        [2, 429],
      ],
      isEntry: false,
    }),
  ],
  [
    2,
    () => ({
      method: 'POST',
      uri: '/checkout',
      endpoint: '/checkout',
      medianMs: 140,
      medianBytes: 420,
      statuses: [
        [93, 303],
        [6, 422],
        [1, 500],
      ],
      isEntry: false,
    }),
  ],
  [
    1,
    () => ({
      method: 'GET',
      uri: '/old-catalogue',
      endpoint: '',
      medianMs: 0.3,
      medianBytes: 0,
      statuses: [[1, 308]],
      isEntry: true,
    }),
  ],
  [12, () => file('/assets/shop.5f31c2.css', 14_000, '/assets/:file')],
  [12, () => file('/assets/shop.a41d09.js', 38_000, '/assets/:file')],
  [28, (random) => file(`/images/${products[random.popular(products.length)]!}.webp`, 62_000, '/images/:file')],
];

const blogPages: readonly Weighted<MakePage>[] = [
  [
    16,
    () => ({
      method: 'GET',
      uri: '/',
      endpoint: '',
      medianMs: 0.8,
      medianBytes: 9000,
      statuses: cached,
      isEntry: true,
    }),
  ],
  [
    44,
    (random) => ({
      method: 'GET',
      uri: `/posts/${posts[random.popular(posts.length)]!}/`,
      endpoint: '',
      medianMs: 0.9,
      medianBytes: 15_000,
      statuses: [
        [85, 200],
        [14, 304],
        [1, 404],
      ],
      isEntry: true,
    }),
  ],
  [
    3,
    () => ({
      method: 'GET',
      uri: '/about/',
      endpoint: '',
      medianMs: 0.7,
      medianBytes: 5200,
      statuses: cached,
      isEntry: false,
    }),
  ],
  [
    5,
    () => ({
      method: 'HEAD',
      uri: '/',
      endpoint: '',
      medianMs: 0.3,
      medianBytes: 0,
      statuses: [[1, 200]],
      isEntry: true,
    }),
  ],
  [20, () => file('/assets/blog.77be10.css', 6100)],
  [10, () => file('/assets/portrait.avif', 24_000)],
  [5, () => file('/favicon.ico', 1200)],
];

const feed: Page = {
  method: 'GET',
  uri: '/feed.xml',
  endpoint: '',
  medianMs: 0.6,
  medianBytes: 31_000,
  statuses: [
    [25, 200],
    [75, 304],
  ],
  isEntry: true,
};
const robots: Page = {
  method: 'GET',
  uri: '/robots.txt',
  endpoint: '',
  medianMs: 0.3,
  medianBytes: 120,
  statuses: [[1, 200]],
  isEntry: true,
};

const scanned = [
  '/wp-login.php',
  '/.env',
  '/.git/config',
  '/xmlrpc.php',
  '/admin/',
  '/phpmyadmin/',
  '/backup.zip',
  '/cgi-bin/luci',
  '/actuator/health',
];

/** A page that scanners look for. */
export function scannedPage(host: string, random: Random): Page {
  return {
    method: 'GET',
    uri: scanned[random.popular(scanned.length)]!,
    endpoint: host === shopHost ? 'unmatched' : '',
    medianMs: 0.9,
    medianBytes: 0,
    statuses: [
      [9, 404],
      [1, 403],
    ],
    isEntry: true,
  };
}

/** An HTTP client. */
export interface Agent {
  readonly userAgent: string;
  readonly kind: 'browser' | 'crawler' | 'feed-reader' | 'scanner';
}

const agents: readonly Weighted<Agent>[] = [
  ...(
    [
      [
        30,
        'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36',
      ],
      [
        18,
        'Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1',
      ],
      [
        15,
        'Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36',
      ],
      [
        9,
        'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Safari/605.1.15',
      ],
      [7, 'Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0'],
      [6, 'Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:144.0) Gecko/20100101 Firefox/144.0'],
      [
        5,
        'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0',
      ],
    ] as const
  ).map(([weight, userAgent]) => [weight, { userAgent, kind: 'browser' }] as const),
  ...(
    [
      [5, 'Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)'],
      [3, 'Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)'],
      [3, 'Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)'],
      [2, 'Mozilla/5.0 (compatible; AhrefsBot/7.0; +http://ahrefs.com/robot/)'],
    ] as const
  ).map(([weight, userAgent]) => [weight, { userAgent, kind: 'crawler' }] as const),
  [3, { userAgent: 'Feedly/1.0 (+http://www.feedly.com/fetcher.html)', kind: 'feed-reader' }],
  [2, { userAgent: 'FreshRSS/1.27.0 (Linux; https://freshrss.org)', kind: 'feed-reader' }],
  [1.5, { userAgent: 'python-requests/2.32.3', kind: 'scanner' }],
  [0.5, { userAgent: 'curl/8.14.1', kind: 'scanner' }],
];

const elsewhere: readonly Weighted<string>[] = [
  [45, ''],
  [30, 'https://www.google.com/'],
  [8, 'https://duckduckgo.com/'],
  [6, 'https://www.bing.com/'],
  [5, 'https://news.ycombinator.com/'],
  [3, 'https://www.reddit.com/'],
  [3, 'https://lobste.rs/'],
];

/** Picks an agent. */
export function visitor(random: Random): Agent {
  return random.pick(agents);
}

/** Picks the host, page and referrer of a visit. */
export function visit({ kind }: Agent, random: Random): { host: string; page: Page; referrer: string } {
  if (kind === 'feed-reader') return { host: blogHost, page: feed, referrer: '' };
  const host = random.next() < 0.64 ? shopHost : blogHost;
  if (kind === 'scanner') return { host, page: scannedPage(host, random), referrer: '' };
  if (kind === 'crawler')
    return {
      host,
      page:
        random.next() < 0.06 ? { ...robots, endpoint: host === shopHost ? '/robots.txt' : '' } : crawled(host, random),
      referrer: '',
    };
  const page = pageOf(host, random);
  return { host, page, referrer: page.isEntry && random.next() < 0.6 ? random.pick(elsewhere) : `https://${host}/` };
}

/** Picks the address of one of some thousand visitors, from the ranges of RFC 2544 and RFC 3849 (IPv6). */
export function clientAddress(random: Random): string {
  const number = random.popular(24_000);
  if (number % 4 === 0) return `2001:db8:${(number >> 4).toString(16)}:1::${(number & 255).toString(16)}`;
  return `198.${18 + (number & 1)}.${(number >> 6) & 255}.${1 + (number % 250)}`;
}

function pageOf(host: string, random: Random): Page {
  return random.pick(host === shopHost ? shopPages : blogPages)(random);
}

/** Picks a page for a crawler, which follows links, but neither logs in nor buys. */
function crawled(host: string, random: Random): Page {
  for (;;) {
    const page = pageOf(host, random);
    if (page.method === 'GET' && page.isEntry) return page;
  }
}
