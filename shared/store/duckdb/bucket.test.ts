import { DOUBLE, DuckDBInstance } from '@duckdb/node-api';
import test from 'ava';
import fc from 'fast-check';
import { bucketOfDuration, bucketOfDurationSql } from '../../sketch/histogram.js';

test('assigns a duration to the same bucket in SQL as in the recorder', async (t) => {
  const instance = await DuckDBInstance.create(':memory:');
  const connection = await instance.connect();
  const logarithm = fc.double({ min: -20, max: 30, noNaN: true });
  const duration = fc.oneof(
    { weight: 8, arbitrary: logarithm.map(Math.exp) },
    fc.double({ min: 0, max: 1e13, noNaN: true }),
    fc.constantFrom(0, 1e-6, 1e-7, 1, 1000, 1e12, 1e300, 5e-324),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(duration, { minLength: 1, maxLength: 200 }), async (durations) => {
      const rows = durations.map((_, at) => `(${at}, $${at + 1})`).join(', ');
      const result = await connection.run(
        `SELECT ${bucketOfDurationSql('duration_ms')} FROM (VALUES ${rows}) AS sample(number, duration_ms) ORDER BY number`,
        durations,
        durations.map(() => DOUBLE),
      );
      t.deepEqual(
        (await result.getColumns())[0],
        durations.map((each) => bucketOfDuration(each) + 0),
      ); // -0 is no other bucket than 0
    }),
    { numRuns: 100 },
  );
  connection.closeSync();
  instance.closeSync();
});
