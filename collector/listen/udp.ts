import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { readFile } from 'node:fs/promises';
import { messageOf } from '../../shared/errors.js';
import { splitLines } from '../lines.js';
import type { ListenAddress } from './address.js';
import type { Listener, ListenOptions } from './listener.js';

/** Requested size of the kernel's receive buffer, in bytes. The kernel grants at most `net.core.rmem_max`. */
const receiveBufferBytes = 8 * 2 ** 20;

/** Maximum number of turns of the event loop for which a stopping listener goes on reading. */
const drainTurnsMax = 100;

/** Listens on UDP. Each datagram holds whole lines; Caddy sends one in each. Rejects with the system's error. */
export async function listenUdp(
  address: Extract<ListenAddress, { port: number }>,
  options: ListenOptions,
): Promise<Listener> {
  const socket = createSocket({
    type: address.family === 6 ? 'udp6' : 'udp4',
    ipv6Only: address.family === 6 && address.host !== '',
    recvBufferSize: receiveBufferBytes,
  });
  let received = 0;
  socket.on('message', (datagram, { address: remoteAddress }) => {
    received += 1;
    if (!options.isAllowed(remoteAddress)) {
      options.onRefused('not-allowed', remoteAddress);
      return;
    }
    options.sources.current = options.sources.sender(remoteAddress);
    // The end of the datagram ends its last line.
    splitLines(datagram, { from: 0, to: datagram.length, lineBytesMax: options.lineBytesMax }, options);
  });
  socket.bind({ port: address.port, ...(address.host === '' ? {} : { address: address.host }) });
  await once(socket, 'listening'); // rejects on 'error'
  socket.on('error', (error) => {
    options.onError(messageOf(error));
  });
  const { port } = socket.address();
  return {
    lost: () => droppedByKernel(address.family, port),
    address: { ...address, port },
    async stop() {
      // Read what has arrived. A peer that never pauses is abandoned between two reads.
      for (let before = -1, turns = 0; before !== received && turns < drainTurnsMax; turns += 1) {
        before = received;
        await turn();
        await turn();
      }
      const closed = once(socket, 'close');
      socket.close();
      await closed;
    },
  };
}

/**
 * The number of datagrams that the kernel has dropped on a UDP port since its socket was opened: the last column of
 * `/proc/net/udp` (Linux, proc(5)). Does not include datagrams lost in the network, which cannot be known.
 */
async function droppedByKernel(family: 4 | 6, port: number): Promise<number | undefined> {
  const table = await readFile(family === 6 ? '/proc/net/udp6' : '/proc/net/udp', 'utf8').catch(() => undefined);
  const hexPort = port.toString(16).toUpperCase().padStart(4, '0');
  const sockets = table
    ?.split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local]) => local?.endsWith(`:${hexPort}`));
  if (sockets === undefined || sockets.length === 0) return undefined;
  return sockets.reduce((sum, columns) => sum + Number(columns.at(-1)), 0);
}
