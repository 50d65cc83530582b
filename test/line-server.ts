import { once } from 'node:events';
import { createServer, type AddressInfo } from 'node:net';
import { createInterface } from 'node:readline';
import type { ExecutionContext } from 'ava';

/** A line of Caddy's log, decoded. */
export interface CaddyLine {
  readonly level: string;
  readonly logger?: string;
  readonly msg: string;
  readonly status?: number;
  readonly request?: { readonly host: string; readonly uri: string; readonly remote_port: string };
}

/** A plain TCP server in place of the collector. */
export interface LineServer {
  readonly port: number;
  /** Its address in Caddy's syntax. */
  readonly address: string;
  /** All lines so far, in order of arrival. */
  readonly lines: readonly CaddyLine[];
  /** The number of connections that Caddy has not closed. */
  readonly openConnections: () => number;
}

/** Starts a server that decodes each line, until the test ends. */
export async function startLineServer(t: ExecutionContext): Promise<LineServer> {
  const lines: CaddyLine[] = [];
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.once('close', () => (connections -= 1));
    socket.on('error', () => undefined);
    t.teardown(() => socket.destroy());
    createInterface(socket).on('line', (line) => lines.push(JSON.parse(line) as CaddyLine));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  const { port } = server.address() as AddressInfo;
  return { port, address: `tcp/127.0.0.1:${port}`, lines, openConnections: () => connections };
}
