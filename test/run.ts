/**
 * Runs ava with the given arguments over a temporary folder of its own, which is removed afterwards, and says at the
 * end what was skipped for want of a server.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { missingPartsVariable } from './missing-part.js';

const folder = mkdtempSync(join(tmpdir(), 'sink-')); // short: the path of a unix socket has 107 bytes at most
const missingParts = join(folder, 'missing-parts');
const env = { ...process.env, TMPDIR: folder, [missingPartsVariable]: missingParts };
const args = process.argv.slice(2).flatMap((arg) => (arg === '--unit' ? unitTests() : [arg]));
const running = spawn('ava', args, { stdio: 'inherit', env }); // npm has put it on the PATH
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.on(signal, () => {
    running.kill(signal);
  });
const [status] = (await once(running, 'exit')) as [number | null];
for (const missing of new Set(linesOf(missingParts))) process.stderr.write(`Skipped: ${missing}\n`);
rmSync(folder, { recursive: true, force: true });
process.exitCode = status ?? 1;

/** The tests beside the code that start no program, open no store and listen on no port. */
function unitTests(): string[] {
  const needsMore =
    /from '[^']*(?:test\/(?!golden|sample|rollup-rows|web-samples|zipf|until)|\/duckdb\/|duckdb-store|database|\/open|store\/contract)[^']*\.js'|createServer|createWebApp/;
  return readdirSync('dist', { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.test.js') && !path.startsWith('test/'))
    .map((path) => join('dist', path))
    .filter((path) => !needsMore.test(readFileSync(path, 'utf8')));
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').trimEnd().split('\n');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return []; // nothing was missing
  }
}
