/**
 * The program with `--restartable`, whose supervisor's SIGKILL does not end the worker: as that of a worker which hangs
 * in the kernel. A test stops the worker, so that it never reads again, and kills it when it likes.
 */
import { fileURLToPath } from 'node:url';
import { runSupervisor } from '../collector/supervisor/supervisor.js';
import { createLog } from '../shared/log.js';

const program = fileURLToPath(new URL('../../bin/caddy-log-sink.js', import.meta.url));
process.exit(
  await runSupervisor({ program, args: process.argv.slice(2), log: createLog('supervisor'), kill: () => undefined }),
);
