import { nextTurn } from '../../../next-turn.js';

/** Rows decoded per turn of the event loop: one or two milliseconds of work. */
const rowsPerTurn = 1024;
/** Fewer, since each top list has to be inflated. */
export const topRowsPerTurn = 64;

/** Like `map`, but yields to the event loop after every `perTurn` rows. */
export async function inTurns<Value, Row>(
  column: readonly Value[],
  make: (value: Value, at: number) => Row,
  perTurn = rowsPerTurn,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [at, value] of column.entries()) {
    if (at > 0 && at % perTurn === 0) await nextTurn();
    rows.push(make(value, at));
  }
  return rows;
}
