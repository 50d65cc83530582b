/**
 * Brings the DuckDB file that it is given to this program's version, and kills itself (-9) before the statement of the
 * number that it is given, or, where that is how many there are, when all are done and the file is still open: the
 * process that the test of migrations ends in the middle.
 */
import { fileURLToPath } from 'node:url';
import { DuckDBInstance, type DuckDBConnection } from '@duckdb/node-api';
import { createLog } from '../shared/log.js';
import { prepareSchema } from '../shared/store/duckdb/schema.js';

/** The program, for Node. */
export const duckdbMigrator = fileURLToPath(import.meta.url);

if (process.argv[1] === duckdbMigrator) await migrate(process.argv[2]!, Number(process.argv[3]));

async function migrate(path: string, killAt: number): Promise<void> {
  const instance = await DuckDBInstance.create(path);
  const connection = await instance.connect();
  let statement = 0;
  const kill = (): void => {
    if (statement === killAt) process.kill(process.pid, 'SIGKILL');
    statement += 1;
  };
  const real = connection.run.bind(connection);
  const run: DuckDBConnection['run'] = (...args) => {
    kill();
    return real(...args);
  };
  await prepareSchema(Object.assign(connection, { run }), path, { nowMs: Date.now(), log: createLog('store') });
  kill();
  connection.closeSync();
  instance.closeSync();
}
