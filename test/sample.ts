import { createSocket } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { gunzipSync } from 'node:zlib';

/** 50,000 access lines that Caddy wrote: see `samples/README.md`. */
export interface Sample {
  readonly bytes: Buffer;
  readonly lines: readonly string[];
  /** How often each status occurs, read with a pattern and not with the product's decoder. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Sum of the response sizes, read in the same way. */
  readonly sizeSum: number;
  /** The query for the time range that holds all of it. */
  readonly range: string;
}

/** Reads the sample. */
export function readSample(): Sample {
  const written = gunzipSync(
    readFileSync(new URL('../../test/samples/caddy-2.11.4-mix-50000.ndjson.gz', import.meta.url)),
  ).toString('utf8');
  // All of it moves by whole seconds, to half an hour ago: what is older than the retention would be deleted.
  const endMs = Math.floor(Date.now() / 60_000 - 30) * 60_000;
  const lines = written.trimEnd().split('\n');
  const secondsOf = (line: string): number => Number(/"ts":(\d+)/.exec(line)![1]);
  const moveSeconds = Math.floor(endMs / 1000) - Math.max(...lines.map(secondsOf)) - 1;
  for (const [at, line] of lines.entries())
    lines[at] = line.replace(/"ts":(\d+)/, (_, seconds: string) => `"ts":${Number(seconds) + moveSeconds}`);
  const statuses: Record<string, number> = {};
  let sizeSum = 0;
  for (const line of lines) {
    const [, size, status] = /"size":(\d+),"status":(\d+)/.exec(line)!;
    statuses[status!] = (statuses[status!] ?? 0) + 1;
    sizeSum += Number(size);
  }
  const [from, to] = [endMs - 1_200_000, endMs].map((timeMs) => new Date(timeMs).toISOString());
  return { bytes: Buffer.from(`${lines.join('\n')}\n`), lines, statuses, sizeSum, range: `from=${from}&to=${to}` };
}

/** Connects; the caller writes and ends. */
export function openConnection(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port }, () => {
      resolve(socket);
    });
    socket.once('error', reject);
  });
}

/** Sends bytes over TCP in chunks of the given sizes, repeated, and ends the connection. */
export async function sendTcp(port: number, bytes: Buffer, chunkSizes: readonly number[]): Promise<void> {
  const socket = await openConnection(port);
  for (let from = 0, at = 0; from < bytes.length; at += 1) {
    const size = chunkSizes[at % chunkSizes.length]!;
    if (!socket.write(bytes.subarray(from, from + size))) await new Promise((resolve) => socket.once('drain', resolve));
    from += size;
  }
  await new Promise<void>((resolve) => {
    socket.end(resolve);
  });
}

/** Sends one line per datagram; after every `burst` it waits until `received` says that all have come in. */
export async function sendUdp(
  port: number,
  lines: readonly string[],
  { burst, received }: { burst: number; received: (count: number) => Promise<void> },
): Promise<void> {
  const socket = createSocket('udp4');
  for (let from = 0; from < lines.length; from += burst) {
    const part = lines.slice(from, from + burst);
    await Promise.all(
      part.map(
        (line) =>
          new Promise<void>((resolve, reject) => {
            socket.send(line, port, '127.0.0.1', (error) => {
              if (error === null) resolve();
              else reject(error);
            });
          }),
      ),
    );
    await received(from + part.length);
  }
  await new Promise<void>((resolve) => {
    socket.close(resolve);
  });
}
