import { DuckDBInstance } from '@duckdb/node-api';
import test from 'ava';
import { storeError } from './duckdb-error.js';

const statements = [
  ["INSERT INTO numbers VALUES ('one')", 'Conversion', 'drop'],
  ['INSERT INTO numbers SELECT 9223372036854775807 + value FROM numbers', 'Out of Range', 'drop'],
  ['INSERT INTO numbers VALUES (NULL)', 'Constraint', 'drop'],
  ['INSERT INTO numbers VALUES (1)', 'Constraint', 'retry'],
  ['INSERT INTO numbers VALUES ($1)', 'Invalid Input', 'hold'],
  ['SELECT missing FROM numbers', 'Binder', 'retry'],
  ['SELECT value FROM missing', 'Catalog', 'retry'],
  ['SELEC 1', 'Parser', 'retry'],
] as const;

for (const [sql, kind, action] of statements) {
  test(`gives ${action} to a batch, and never drop to anything else, after ${kind} Error: ${sql}`, async (t) => {
    const connection = await (await DuckDBInstance.create(':memory:')).connect();
    await connection.run('CREATE TABLE numbers (value BIGINT PRIMARY KEY)');
    await connection.run('INSERT INTO numbers VALUES (1)');
    const caught = await t.throwsAsync(connection.run(sql), { message: new RegExp(`^${kind} Error: `) });
    const ofBatch = storeError('write to', 'DuckDB file', caught, { isOfBatch: true });
    t.is(ofBatch.action, action);
    t.regex(ofBatch.message, /^Cannot write to the DuckDB file/);
    t.true(ofBatch.detail!.includes(caught.message));
    t.is(storeError('read', 'DuckDB file', caught).action, action === 'drop' ? 'hold' : action);
    connection.closeSync();
  });
}

for (const caught of [new TypeError('x is not a function'), new RangeError('1.5 is not an integer')]) {
  test(`holds a batch after a ${caught.name} of this program, and reports its stack`, (t) => {
    const error = storeError('write to', 'DuckDB file', caught, { isOfBatch: true });
    t.is(error.action, 'hold');
    t.is(error.detail, caught.stack);
  });
}

test('retries a batch after an unknown error', (t) => {
  for (const caught of [new Error('?'), 'thrown text', undefined])
    t.is(storeError('write to', 'DuckDB file', caught, { isOfBatch: true }).action, 'retry');
});
