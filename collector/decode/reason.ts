/**
 * Why a request failed, from the messages of Caddy and Go's net package. A reason is the same for all failures of one
 * cause: what varies (ports of connections, ids, addresses of clients) is removed, and the upstream's address stays.
 */
import { isIP } from 'node:net';
import { eventTextLengthMax } from '../../shared/caddy-event.js';
import { redactSecrets } from './redact.js';

const address = String.raw`\[[\da-f:.%\w]{1,60}\]|(?<![\w.-])[\w.-]{1,255}`;
/** A connection in an error of Go (`net.OpError`): `read tcp 10.0.0.2:53412->10.0.0.3:8080: …`. */
const connection = new RegExp(String.raw`(${address}):(\d+)->(${address}):(\d+)`, 'gi');
const dialled = new RegExp(String.raw`\bdial (?:tcp[46]?|udp[46]?) ((?:${address}):\d+)(?=:)`, 'i');
const fromClient = new RegExp(String.raw`\bfrom (?:${address}):\d+`, 'gi');
const dialledSocket = /\bdial unix(?:gram|packet)? (\/[^\s:]+)(?=:)/;
const lookedUp = /\bdial tcp[46]?: lookup ([\w.-]+)/i;

/** Addresses of a request's client: as the proxy before Caddy names it, and those of the connection. */
export interface ClientAddresses {
  readonly clientIp: string;
  readonly remoteIp: string;
  readonly remotePort: string;
}

/** Maximum length of a message or target that is read, in UTF-16 code units. */
export const readMax = 2 * eventTextLengthMax;

/**
 * Returns a message without secrets and addresses of clients. `client` is that of the request; `undefined` if the
 * message is not about a request.
 */
export function withoutSecrets(message: string, client?: ClientAddresses): string {
  const text = redactSecrets(message.slice(0, readMax))
    .replace(connection, (_, _local: string, localPort: string, remote: string, port: string) =>
      isClient(port, client) || isClient(localPort, client) ? 'client' : `${remote}:${port}`,
    )
    .replace(fromClient, 'from client');
  const addresses = client === undefined ? [] : [client.clientIp, client.remoteIp];
  return addresses.reduce(withoutAddress, text).slice(0, eventTextLengthMax).trim();
}

/** Returns the reason in the output of `withoutSecrets`: it is the same for all failures of one cause. */
export function reasonOf(message: string): string {
  return message
    .replace(/^\{id=\w+\} /, '') // the error's id, before the place in the source where it happened
    .replace(/\b[\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12}\b/gi, '*')
    .replace(/\b(?=[a-f]*\d)(?=\d*[a-f])[\da-f]{8,}\b/gi, '*')
    .replace(/(?<![\w.:*-])\d{5,}(?![\w.:])/g, '*');
}

/** Returns the upstream that an error names: `HOST:PORT`, the path of a socket, or a name that was not found. */
export function upstreamIn(message: string, client?: ClientAddresses): string {
  const text = message.slice(0, readMax);
  const found = dialled.exec(text)?.[1] ?? dialledSocket.exec(text)?.[1] ?? lookedUp.exec(text)?.[1];
  if (found !== undefined) return found;
  for (const [, , localPort, remote, port] of text.matchAll(connection))
    if (!isClient(port!, client) && !isClient(localPort!, client)) return `${remote}:${port}`;
  return '';
}

/** Whether a port is that of the client's connection. If the line hides it, any may be. */
function isClient(port: string, client: ClientAddresses | undefined): boolean {
  return client !== undefined && (client.remotePort === '' || client.remotePort === port);
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
