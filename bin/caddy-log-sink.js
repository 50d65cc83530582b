#!/usr/bin/env -S node --max-semi-space-size=8 --
/**
 * Starts the program. Written for old versions of Node, too, so that it can say what is missing instead of a stack
 * trace.
 */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const { engines } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));
const [wantedMajor, wantedMinor] = engines.node.replace('>=', '').split('.').map(Number);
const [major, minor] = process.versions.node.split('.').map(Number);
const program = new URL('../dist/cli/main.js', import.meta.url);

if (major < wantedMajor || (major === wantedMajor && minor < wantedMinor)) {
  refuse(
    `This is Node ${process.versions.node}; caddy-log-sink needs ${wantedMajor}.${wantedMinor} or later. Install it from https://nodejs.org or with your package manager.`,
  );
} else if (!existsSync(program)) {
  refuse(
    `The program is not built: ${program.pathname} is missing. Run \`npm ci\`, which builds it, or \`npm run build\`.`,
  );
} else {
  const { main } = await import(program.href);
  await main(fileURLToPath(import.meta.url), process.argv.slice(2));
}

function refuse(reason) {
  process.stderr.write(`${reason}\n`);
  process.exitCode = 1;
}
