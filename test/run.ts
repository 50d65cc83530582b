/**
 * Runs ava with the given arguments over a temporary folder of its own, which is removed afterwards, and says at the
 * end what was skipped for want of a server.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingPartsVariable } from './missing-part.js';

const folder = mkdtempSync(join(tmpdir(), 'sink-')); // short: the path of a unix socket has 107 bytes at most
const missingParts = join(folder, 'missing-parts');
const env = { ...process.env, TMPDIR: folder, [missingPartsVariable]: missingParts };
const running = spawn('ava', process.argv.slice(2), { stdio: 'inherit', env }); // npm has put it on the PATH
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    running.kill(signal);
  });
const [status] = (await once(running, 'exit')) as [number | null];
for (const missing of new Set(linesOf(missingParts))) process.stderr.write(`Skipped: ${missing}\n`);
rmSync(folder, { recursive: true, force: true });
process.exitCode = status ?? 1;

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return []; // nothing was missing
  }
}
