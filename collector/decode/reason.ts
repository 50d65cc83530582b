/**
 * Why a request failed, from the messages of Caddy and Go's net package. A reason is the same for all failures of one
 * cause: what varies (ports of connections, ids, addresses of clients) is removed, and the upstream's address stays.
 */
import { isIP } from 'node:net';
import { eventTextLengthMax } from '../../shared/caddy-event.js';
import { redactSecrets } from './redact.js';

const address = String.raw`\[[\da-f:.%\w]+\]|[\w.-]+`;
/** A connection in an error of Go (`net.OpError`): `read tcp 10.0.0.2:53412->10.0.0.3:8080: …`. */
const connection = new RegExp(String.raw`(${address}):(\d+)->(${address}):(\d+)`, 'gi');
const dialled = new RegExp(String.raw`\bdial (?:tcp[46]?|udp[46]?) ((?:${address}):\d+)(?=:)`, 'i');
const dialledSocket = /\bdial unix(?:gram|packet)? (\/[^\s:]+)(?=:)/;
const lookedUp = /\bdial tcp[46]?: lookup ([\w.-]+)/i;

/** Addresses of a request's client: as the proxy before Caddy names it, and those of the connection. */
export interface ClientAddresses {
  readonly clientIp: string;
  readonly remoteIp: string;
  readonly remotePort: string;
}

const noClient: ClientAddresses = { clientIp: '', remoteIp: '', remotePort: '' };

/** Returns the reason in a message, without secrets. `client` is that of the request, if there is one. */
export function reasonOf(message: string, client = noClient): string {
  const text = redactSecrets(message.slice(0, 4 * eventTextLengthMax))
    .replace(/^\{id=\w+\} /, '') // the error's id, before the place in the source where it happened
    .replace(connection, (_, local: string, localPort: string, remote: string, port: string) =>
      isClient(remote, port, client) || isClient(local, localPort, client) ? 'client' : `${remote}:${port}`,
    )
    .replace(/\b[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\b/gi, '*')
    .replace(/\b(?=[a-f]*\d)(?=\d*[a-f])[\da-f]{8,}\b/gi, '*')
    .replace(/(?<![\w.:*-])\d{5,}(?![\w.:])/g, '*');
  const withoutClients = [client.clientIp, client.remoteIp].reduce(withoutAddress, text);
  return withoutClients.slice(0, eventTextLengthMax).trim();
}

/** Returns the upstream that an error names: `HOST:PORT`, the path of a socket, or a name that was not found. */
export function upstreamIn(message: string, client = noClient): string {
  const found = dialled.exec(message)?.[1] ?? dialledSocket.exec(message)?.[1] ?? lookedUp.exec(message)?.[1];
  if (found !== undefined) return found;
  for (const [, local, localPort, remote, port] of message.matchAll(connection))
    if (!isClient(remote!, port!, client) && !isClient(local!, localPort!, client)) return `${remote}:${port}`;
  return '';
}

function isClient(ip: string, port: string, { remoteIp, remotePort }: ClientAddresses): boolean {
  return remoteIp !== '' && ip.replace(/^\[|\]$/g, '') === remoteIp && port === remotePort;
}

/** Replaces a client's address, except where it is that of an upstream: in a dialled address or a URL. */
function withoutAddress(text: string, ip: string): string {
  if (isIP(ip) === 0) return text;
  const literal = ip.replace(/\./g, String.raw`\.`);
  return text.replace(
    new RegExp(String.raw`(?<!\b(?:tcp|udp)[46]? )(?<!\/\/)(?<![\w.:[])\[?${literal}\]?(?::\d+)?(?![\w.])`, 'g'),
    'client',
  );
}
