import { messageOf, stackOf, StoreError } from '../../errors.js';

/**
 * DuckDB errors about values of a batch: it would fail again. A duplicate key is not one of them: rows with a key are
 * upserted, so only an inconsistent index can report it. Nor is a statement that DuckDB cannot run, or values that are
 * bound in a wrong way: these are bugs of this program, and must not cost data.
 */
const wrongValue = /^(?!Constraint Error: Duplicate key)(?:Constraint|Conversion|Out of Range) Error:/;

/** DuckDB errors about how this program uses it. */
const wrongUse = /^(?:Invalid Input|Mismatch Type|Invalid Type) Error:/;

/**
 * Converts an error caught during `action` (`write to`). Only an error about the values of a batch that was being
 * written (`isOfBatch`) is 'drop': an unknown error, or a bug of this program, never discards anything.
 */
export function storeError(
  action: string,
  description: string,
  error: unknown,
  { isOfBatch = false }: { isOfBatch?: boolean } = {},
): StoreError {
  if (error instanceof StoreError) return error;
  const text = messageOf(error);
  if (wrongValue.test(text))
    return new StoreError(
      isOfBatch ? 'drop' : 'hold',
      `Cannot ${action} the ${description}: the data does not fit the tables. The log has the details.`,
      { cause: error, detail: text },
    );
  if (error instanceof TypeError || error instanceof RangeError || wrongUse.test(text)) {
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
