import type { IncomingHttpHeaders } from 'node:http';

/** The parts of a request by which a browser identifies its origin. Pages cannot set these headers. */
export interface BrowserRequest {
  readonly method?: string | undefined;
  readonly headers: IncomingHttpHeaders;
}

/**
 * Decides whether a browser sent a request on behalf of a page of another origin. Returns the reason to refuse it, with
 * the offending header; `undefined` for requests of our own pages, user navigation (address bar, bookmark, link) and
 * programs other than browsers.
 *
 * Another port or subdomain (`same-site`) is another origin. From other origins, only plain links are allowed: GET or
 * HEAD that opens a whole page. Headers: https://www.w3.org/TR/fetch-metadata/ and RFC 6454; `Sec-Purpose` marks
 * prefetching.
 */
export function crossSiteRefusal({ method, headers }: BrowserRequest): string | undefined {
  const { origin, host } = headers;
  if (origin !== undefined && !isOwnOrigin(origin, host))
    return `Origin is ${quoted(origin)}, and Host is ${quoted(host ?? '')}`;
  const site = headers['sec-fetch-site'];
  if (site === undefined || site === 'same-origin' || site === 'none') return undefined;
  const isLink =
    (method === 'GET' || method === 'HEAD') &&
    headers['sec-fetch-mode'] === 'navigate' &&
    headers['sec-fetch-dest'] === 'document' &&
    headers['sec-purpose'] === undefined;
  return isLink ? undefined : `Sec-Fetch-Site is ${quoted(site)}`;
}

/** Compares host and port only: behind a proxy that terminates TLS, the scheme is known from the origin alone. */
function isOwnOrigin(origin: string, host: string | undefined): boolean {
  const scheme = /^https?:\/\//.exec(origin)?.[0];
  if (scheme === undefined || host === undefined) return false;
  const [sender, server] = [origin, scheme + host].map((url) => (URL.canParse(url) ? new URL(url) : undefined));
  // An origin is a scheme, a host and a port. Anything else in either value makes it invalid.
  return (
    sender !== undefined &&
    sender.host === server?.host &&
    [sender, server].every(({ href, protocol, host: name }) => href === `${protocol}//${name}/`)
  );
}

function quoted(text: string): string {
  return JSON.stringify(text.slice(0, 100));
}
