/** When the data of a store begins and ends. Rates and comparisons exclude the time before the first data. */
import { levels, type Level, type RowKey } from '../../shared/rollup/rollup.js';
import type { Store, StoredWindows } from '../../shared/store/store.js';

/** The time from the first data to the last, in milliseconds since 1970. */
export interface DataSpan {
  readonly firstMs: number;
  /** The start of the newest window. */
  readonly newestMs: number;
}

/** TTL, in milliseconds. Retention and imports by other processes change the data without notification. */
const ttlMs = 10_000;

/** Caches when the data of each source begins and ends. Invalidated when older data is written. */
export class FirstData {
  readonly #store: Pick<Store, 'readStoredWindows'>;
  readonly #clock: () => number;
  #known: { readonly readMs: number; readonly windows: ReadonlyMap<string, StoredWindows> } | undefined;
  /** For each read in progress, the oldest windows written since its start, which it may miss. */
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

  /** Returns the data span of each source. Throws a `StoreError`. */
  async spans(
    inTime: (
      run: (signal: AbortSignal) => ReturnType<Store['readStoredWindows']>,
    ) => ReturnType<Store['readStoredWindows']>,
  ): Promise<ReadonlyMap<string, DataSpan>> {
    if (this.#known !== undefined && this.#clock() - this.#known.readMs <= ttlMs) return spansOf(this.#known.windows);
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

/** Whether any of these rows is older than the known data. */
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

/** The span that covers all given spans; `undefined` if there are none. */
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

/** Start of the oldest window. The coarsest level has the longest retention; finer levels refine its start. */
export function firstOf(oldest: ReadonlyMap<Level, number>): number | undefined {
  const [coarsest, ...finer] = levels.filter((level) => oldest.has(level)).toReversed();
  if (coarsest === undefined) return undefined;
  let firstMs = oldest.get(coarsest)!;
  let endMs = firstMs + coarsest * 1000;
  for (const level of finer) {
    const windowMs = oldest.get(level)!;
    if (windowMs >= endMs) break; // this level's rows at the start of the window have been deleted
    firstMs = Math.max(firstMs, windowMs);
    endMs = firstMs + level * 1000;
  }
  return firstMs;
}
