import { messageOf, UsageError } from '../../shared/errors.js';
import { formatListenAddress, type ListenAddress } from './address.js';
import type { Listener, ListenOptions } from './listener.js';
import { openStream, type OpenStream } from './sockets.js';
import { listenStream } from './stream.js';
import { listenUdp } from './udp.js';

/** Listens on all addresses or on none. Throws a `UsageError` that says which one failed, why, and what to do. */
export async function listen(
  addresses: readonly ListenAddress[],
  options: ListenOptions,
  open: OpenStream = openStream,
): Promise<Listener[]> {
  const results = await Promise.allSettled(
    addresses.map((address) =>
      address.kind === 'udp' ? listenUdp(address, options) : listenStream(address, options, open),
    ),
  );
  const listeners = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  const failed = results.findIndex((result) => result.status === 'rejected');
  if (failed === -1) return listeners;
  await Promise.all(listeners.map((listener) => listener.stop()));
  const reason: unknown = (results[failed] as PromiseRejectedResult).reason;
  throw cannotListen(formatListenAddress(addresses[failed]!), reason);
}

/** The error for an address that could not be opened. `error` is the system's. */
export function cannotListen(address: string, error: unknown): UsageError {
  return new UsageError(`Cannot listen on ${address}: ${explain(error)}`, { cause: error });
}

function explain(error: unknown): string {
  switch ((error as NodeJS.ErrnoException).code) {
    case 'EADDRINUSE':
      return 'the address is in use. Stop the other process, or set COLLECTOR_LISTEN to a free one.';
    case 'EACCES':
      return 'permission denied, or the folder of the path is missing. Set COLLECTOR_LISTEN to a port above 1023, or to a path in a folder that this user can write to.';
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return 'this machine does not have that address. Set COLLECTOR_LISTEN to an address of this machine.';
    default:
      return messageOf(error);
  }
}
