/** When the data of a store begins and ends. Nothing is compared with, or divided by, a time before the first data. */
import { levels, type Level, type RowKey } from '../../shared/rollup/rollup.js';
import type { Store, StoredWindows } from '../../shared/store/store.js';

/** The time from the first data to the last, in milliseconds since 1970. */
export interface DataSpan {
  readonly firstMs: number;
  /** The start of the newest window. */
  readonly newestMs: number;
}

/**
 * How long an answer is used, in milliseconds: what is too old is deleted, and what others import is added, without
 * notice.
 */
const keptMs = 10_000;

/** Remembers when the data of each source of a store begins, until older data is written. */
export class FirstData {
  readonly #store: Pick<Store, 'readStoredWindows'>;
  readonly #clock: () => number;
  #known: { readonly readMs: number; readonly windows: ReadonlyMap<string, StoredWindows> } | undefined;
  /** For each read in progress, the oldest windows that batches have written meanwhile: it may lack them. */
  readonly #written = new Set<RollupKey[]>();

  constructor(store: Pick<Store, 'readStoredWindows' | 'changes'>, { clock = () => performance.now() } = {}) {
    this.#store = store;
    this.#clock = clock;
    store.changes?.listen(({ rollups }) => {
      for (const written of this.#written) written.push(...oldestOf(rollups));
      if (this.#known !== undefined && isOlder(rollups, this.#known.windows)) this.#known = undefined;
    });
    store.changes?.listenForExchange(() => {
      this.#written.clear();
      this.#known = undefined;
    });
  }

  /** By source. Throws the store's `StoreError`. */
  async spans(
    inTime: (
      run: (signal: AbortSignal) => ReturnType<Store['readStoredWindows']>,
    ) => ReturnType<Store['readStoredWindows']>,
  ): Promise<ReadonlyMap<string, DataSpan>> {
    if (this.#known !== undefined && this.#clock() - this.#known.readMs <= keptMs) return spansOf(this.#known.windows);
    const readMs = this.#clock();
    const written: RollupKey[] = [];
    this.#written.add(written);
    try {
      const windows = await inTime((signal) => this.#store.readStoredWindows({ signal }));
      if (this.#written.has(written) && !isOlder(written, windows)) this.#known = { readMs, windows };
      return spansOf(windows);
    } finally {
      this.#written.delete(written);
    }
  }
}

type RollupKey = Pick<RowKey, 'level' | 'windowMs' | 'source'>;

/** Whether any of these rows is of a time before the data that is known. */
function isOlder(rows: readonly RollupKey[], known: ReadonlyMap<string, StoredWindows>): boolean {
  return rows.some(({ level, windowMs, source }) => (known.get(source)?.oldest.get(level) ?? Infinity) > windowMs);
}

/** The oldest row of each source and level. */
function oldestOf(rows: readonly RollupKey[]): RollupKey[] {
  const oldest = new Map<string, RollupKey>();
  for (const row of rows) {
    const key = `${row.level} ${row.source}`;
    if (row.windowMs < (oldest.get(key)?.windowMs ?? Infinity)) oldest.set(key, row);
  }
  return [...oldest.values()];
}

/** From the first data of any of them to the last; `undefined` where there are none. */
export function unionOf(spans: Iterable<DataSpan>): DataSpan | undefined {
  const all = [...spans];
  return all.length === 0
    ? undefined
    : {
        firstMs: Math.min(...all.map(({ firstMs }) => firstMs)),
        newestMs: Math.max(...all.map(({ newestMs }) => newestMs)),
      };
}

function spansOf(windows: ReadonlyMap<string, StoredWindows>): ReadonlyMap<string, DataSpan> {
  return new Map(
    [...windows].flatMap(([source, { oldest, newestMs }]) => {
      const firstMs = firstOf(oldest);
      return firstMs === undefined ? [] : [[source, { firstMs, newestMs: Math.max(firstMs, newestMs) }] as const];
    }),
  );
}

/**
 * The oldest window, found in the coarsest level, which is kept longest, and told as exactly as the finer levels tell
 * it.
 */
export function firstOf(oldest: ReadonlyMap<Level, number>): number | undefined {
  const [coarsest, ...finer] = levels.filter((level) => oldest.has(level)).toReversed();
  if (coarsest === undefined) return undefined;
  let firstMs = oldest.get(coarsest)!;
  let endMs = firstMs + coarsest * 1000;
  for (const level of finer) {
    const windowMs = oldest.get(level)!;
    if (windowMs >= endMs) break; // the rows of this level that began it are deleted
    firstMs = Math.max(firstMs, windowMs);
    endMs = firstMs + level * 1000;
  }
  return firstMs;
}
