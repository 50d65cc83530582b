import { messageOf, stackOf, StoreError } from '../../errors.js';

/**
 * DuckDB errors caused by the values: the same batch would fail again. A duplicate key is not one of them: rows with a
 * key are upserted, so only an inconsistent index can report it. Nor is a statement that DuckDB cannot run: that is a
 * bug of this program, and must not cost data.
 */
const wrongForGood =
  /^(?!Constraint Error: Duplicate key)(?:Constraint|Conversion|Out of Range|Invalid Input|Mismatch Type|Invalid Type) Error:/;

/**
 * Converts an error caught during `action` (`write to`). An error of this program or an unknown one never discards a
 * batch.
 */
export function storeError(action: string, description: string, error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  const text = messageOf(error);
  if (wrongForGood.test(text))
    return new StoreError(
      'drop',
      `Cannot ${action} the ${description}: the data does not fit the tables. The log has the details.`,
      { cause: error, detail: text },
    );
  if (error instanceof TypeError || error instanceof RangeError) {
    return new StoreError(
      'hold',
      `Cannot ${action} the ${description}, for an unexpected reason. The log has the details; please report them. Nothing is discarded meanwhile.`,
      { cause: error, detail: stackOf(error) },
    );
  }
  const { why, todo } = explain(text);
  return new StoreError('retry', `Cannot ${action} the ${description}: ${why}. ${todo}`, {
    cause: error,
    detail: text,
  });
}

/** Explains an error of DuckDB to the operator: its cause, and what to do. */
function explain(text: string): { why: string; todo: string } {
  if (/No space left on device|Disk quota exceeded|File too large/i.test(text))
    return { why: 'its disk is full', todo: 'Make room: waiting requests are then stored.' };
  if (/Out of Memory|could not allocate block|failed to pin block/i.test(text))
    return { why: 'DuckDB is out of memory', todo: 'Raise DUCKDB_MEMORY_BYTES_MAX, or ask for a shorter range.' };
  return { why: 'DuckDB reported an error', todo: 'The log has the details. The next attempt may succeed.' };
}
