import { createServer } from 'node:net';

/**
 * Ports below those that the kernel gives to outgoing connections (32768 and up on Linux), so that nothing takes one
 * between the drawing and the use of it. Test processes run side by side: each begins elsewhere.
 */
const first = 10_000;
const portsInAll = 20_000;
const portsOfAProcess = 131;
let drawn = 0;

/** TCP ports on 127.0.0.1 that nothing listens on, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = first + ((process.pid * portsOfAProcess + drawn) % portsInAll);
    drawn += 1;
    if (await isFree(port)) ports.push(port);
  }
  return ports;
}

/** One port, as of `freePorts`. */
export async function freePort(): Promise<number> {
  const [port] = await freePorts(1);
  return port!;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => {
      resolve(false);
    });
    server.listen(port, '127.0.0.1', () => {
      server.close(() => {
        resolve(true);
      });
    });
  });
}
