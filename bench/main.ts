/** `npm run bench -- [NAME…]`: runs the benchmarks of these names, or all, and prints their results as one table. */
import { tableOf, type Result } from './compare.js';
import { benchBusy } from './busy.js';
import { benchBytes } from './bytes.js';
import { benchCollector } from './collector.js';
import { benchCollectors } from './collectors.js';
import { benchDecode } from './decode.js';
import { benchEmbedded } from './embedded.js';
import { benchFreshness } from './freshness.js';
import { benchHosts } from './hosts.js';
import { benchImport } from './import.js';
import { benchMemory } from './memory.js';
import { benchMiddleware } from './middleware.js';
import { benchPages } from './pages.js';
import { benchStart } from './start.js';

const benches: Readonly<Record<string, (say: (text: string) => void) => Promise<Result[]>>> = {
  decode: benchDecode,
  collector: benchCollector,
  import: benchImport,
  middleware: benchMiddleware,
  start: benchStart,
  busy: benchBusy,
  embedded: benchEmbedded,
  freshness: benchFreshness,
  pages: benchPages,
  hosts: benchHosts,
  collectors: benchCollectors,
  memory: benchMemory,
  bytes: benchBytes,
};

const say = (text: string): void => {
  process.stderr.write(`${text}\n`);
};
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => benches[name] === undefined);
if (unknown.length > 0) {
  say(`There is no benchmark ${unknown.join(', ')}. There are: ${Object.keys(benches).join(', ')}.`);
  process.exit(2);
}
const results: Result[] = [];
for (const [name, bench] of Object.entries(benches)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  say(`— ${name}`);
  results.push(...(await bench(say)));
}
process.stdout.write(`${tableOf(results)}\n`);
process.exit(0);
