import type { IncomingHttpHeaders } from 'node:http';

/** What a browser says about a request, in headers that no page can set. */
export interface BrowserRequest {
  readonly method?: string | undefined;
  readonly headers: IncomingHttpHeaders;
}

/**
 * Decides whether a browser sent a request for a page of another origin. Returns why it must be refused, with what the browser
 * said; `undefined` for a request of our own pages, of a person (address bar, bookmark, link) or of a program that is no browser.
 *
 * Another port or subdomain (`same-site`) is another origin. Of its requests only a plain link passes: GET or HEAD that opens a
 * whole page. Headers: https://www.w3.org/TR/fetch-metadata/ and RFC 6454; `Sec-Purpose` marks prefetching.
 */
export function crossSiteRefusal({ method, headers }: BrowserRequest): string | undefined {
  const { origin, host } = headers;
  if (origin !== undefined && !isOwnOrigin(origin, host)) return `Origin is ${quoted(origin)}, and Host is ${quoted(host ?? '')}`;
  const site = headers['sec-fetch-site'];
  if (site === undefined || site === 'same-origin' || site === 'none') return undefined;
  const isLink = (method === 'GET' || method === 'HEAD') && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document' && headers['sec-purpose'] === undefined;
  return isLink ? undefined : `Sec-Fetch-Site is ${quoted(site)}`;
}

/** Compares host and port: a proxy in front may have ended TLS, so that the scheme is known from the origin alone. */
function isOwnOrigin(origin: string, host: string | undefined): boolean {
  const scheme = /^https?:\/\//.exec(origin)?.[0];
  if (scheme === undefined || host === undefined) return false;
  const [asked, own] = [origin, scheme + host].map((url) => (URL.canParse(url) ? new URL(url) : undefined));
  // An origin is a scheme, a host and a port: what holds more is none.
  return asked !== undefined && asked.host === own?.host && [asked, own].every(({ href, protocol, host: name }) => href === `${protocol}//${name}/`);
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
