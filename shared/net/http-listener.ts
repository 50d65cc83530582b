import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { messageOf, UsageError } from '../errors.js';
import { formatAddress, type Address } from '../settings/settings.js';

/** An HTTP server that listens. */
export interface HttpListener {
  /** Where this machine reaches it, with the port that was really taken: `http://127.0.0.1:3000`. */
  readonly url: string;
  /** Takes no more connections, lets answers finish for `drainMsMax`, then closes what is left. */
  stop(): Promise<void>;
}

/** What there is to say of an address. */
export interface HttpListenerOptions {
  /** The setting that names it. */
  readonly setting: string;
  /** How else the setting can be mended, as its message ends: `, or to off`. */
  readonly orElse?: string;
  /** How long answers in flight may take at the end, in milliseconds; a silent connection must not keep the process. */
  readonly drainMsMax: number;
}

/** Lets a server listen. Throws a `UsageError` that names the setting when it cannot. */
export async function listenHttp(
  server: Server,
  address: Address,
  { setting, orElse = '', drainMsMax }: HttpListenerOptions,
): Promise<HttpListener> {
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject); // it stays: a later connection that cannot be taken, for want of file descriptors, ends nothing
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
      return `this user may not use that port. Set ${setting} to one from 1024 on`;
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return `this machine does not have that address. Set ${setting} to one that it has`;
    default:
      return `${messageOf(error)}. Set ${setting} to another address`;
  }
}

function urlOf({ address, port }: AddressInfo): string {
  return `http://${formatAddress({ host: { '0.0.0.0': '127.0.0.1', '::': '::1' }[address] ?? address, port })}`;
}
