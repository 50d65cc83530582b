import { mergeAggregate, copyAggregate, emptyAggregate, type Cell, type Aggregate } from './rollup.js';

/** Number of cells beyond which they are indexed by method. */
const unindexedMax = 16;

/** The cells of a row: one for each method and status. */
export class CellSet {
  readonly #cells: Cell[] = [];
  #byMethod: Map<string, Cell[]> | undefined;

  /** Number of cells. */
  get size(): number {
    return this.#cells.length;
  }

  [Symbol.iterator](): Iterator<Cell> {
    return this.#cells[Symbol.iterator]();
  }

  /**
   * Adds an aggregate to the cell of its method and status. With `isOwned`, the set takes ownership of the aggregate
   * instead of copying it.
   */
  add(method: string, status: number, aggregate: Aggregate, isOwned = false): void {
    const found = this.#find(method, status);
    if (found !== undefined) mergeAggregate(found, aggregate);
    else if (isOwned) this.#append({ method, status, ...aggregate });
    else this.#append({ method, status, ...copyAggregate(aggregate) });
  }

  /** The cell of a method and status, added if there is none. */
  at(method: string, status: number): Cell {
    return this.#find(method, status) ?? this.#append({ method, status, ...emptyAggregate() });
  }

  /** Returns copies of the cells. */
  copy(): Cell[] {
    return this.#cells.map((cell) => ({ ...copyAggregate(cell), method: cell.method, status: cell.status }));
  }

  #find(method: string, status: number): Cell | undefined {
    const cells = this.#byMethod === undefined ? this.#cells : (this.#byMethod.get(method) ?? []);
    for (const cell of cells) if (cell.status === status && cell.method === method) return cell;
    return undefined;
  }

  #append(cell: Cell): Cell {
    this.#cells.push(cell);
    if (this.#byMethod !== undefined) this.#index(cell);
    else if (this.#cells.length > unindexedMax) {
      this.#byMethod = new Map();
      for (const each of this.#cells) this.#index(each);
    }
    return cell;
  }

  #index(cell: Cell): void {
    const ofMethod = this.#byMethod!.get(cell.method);
    if (ofMethod === undefined) this.#byMethod!.set(cell.method, [cell]);
    else ofMethod.push(cell);
  }
}
