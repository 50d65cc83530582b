import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { messageOf, UsageError } from '../errors.js';
import { formatAddress, type Address } from '../settings/settings.js';

/** A listening HTTP server. */
export interface HttpListener {
  /** Its address on this machine, with the actual port: `http://127.0.0.1:3000`. */
  readonly url: string;
  /**
   * Stops accepting connections, lets pending responses finish for `drainMsMax`, then closes the remaining
   * connections.
   */
  stop(): Promise<void>;
}

/** Options of a listener. */
export interface HttpListenerOptions {
  /** The setting that the address is from. */
  readonly setting: string;
  /** Additional advice at the end of error messages: `, or to off`. */
  readonly orElse?: string;
  /** How long pending responses may take at shutdown, in milliseconds. A silent connection must not block it. */
  readonly drainMsMax: number;
}

/** Starts to listen. Throws a `UsageError` with the setting if that fails. */
export async function listenHttp(
  server: Server,
  address: Address,
  { setting, orElse = '', drainMsMax }: HttpListenerOptions,
): Promise<HttpListener> {
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject); // also for later errors, such as a lack of file descriptors, which must not end the process
    server.listen({ port: address.port, ...(address.host !== '' && { host: address.host }) }, resolve);
  }).catch((error: unknown) => {
    throw new UsageError(`Cannot listen on http://${formatAddress(address)}: ${explain(error, setting)}${orElse}.`, {
      cause: error,
    });
  });
  return {
    url: urlOf(server.address() as AddressInfo),
    async stop() {
      const closed = new Promise<void>((resolve) => {
        server.close(() => {
          resolve();
        });
      });
      const timer = setTimeout(() => {
        server.closeAllConnections();
      }, drainMsMax);
      await closed;
      clearTimeout(timer);
    },
  };
}

function explain(error: unknown, setting: string): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE':
      return `the port is in use. Stop the other process, or set ${setting} to a free port`;
    case 'EACCES':
      return `this user is not allowed to use that port. Set ${setting} to one from 1024 on`;
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `this machine does not have that address. Set ${setting} to an address of this machine`;
    default:
      return `${messageOf(error)}. Set ${setting} to another address`;
  }
}

function urlOf({ address, port }: AddressInfo): string {
  return `http://${formatAddress({ host: { '0.0.0.0': '127.0.0.1', '::': '::1' }[address] ?? address, port })}`;
}
