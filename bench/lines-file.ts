import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { temporaryFolder } from '../test/program.js';
import { shiftedSample } from '../test/shifted-sample.js';

/** Lines of Caddy's in a file of their own. */
export interface LinesFile {
  readonly path: string;
  readonly lines: number;
}

/**
 * Writes the sample's lines, repeated to `lines` of them, with times spread evenly over `minutes`, the last ones unless
 * they ended `minutesAgo`.
 */
export async function makeLinesFile(lines: number, { minutes = 10, minutesAgo = 0 } = {}): Promise<LinesFile> {
  const path = join(await temporaryFolder(), 'access.log');
  const endMs = Date.now() - minutesAgo * 60_000;
  await pipeline(shiftedSample(lines, { startMs: endMs - minutes * 60_000, endMs }), createWriteStream(path));
  return { path, lines };
}

/**
 * Sends a file over TCP to this machine by a process that takes next to nothing itself: `cat`, writing to a socket that
 * bash opened.
 */
export async function sendFile({ path }: LinesFile, port: number): Promise<void> {
  const sender = spawn('bash', ['-c', `exec cat -- "$0" > /dev/tcp/127.0.0.1/${port}`, path], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [status] = (await once(sender, 'exit')) as [number | null];
  if (status !== 0) throw new Error(`Sending ${path} to port ${port} ended with status ${status}.`);
}
