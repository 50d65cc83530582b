/** When the data of a store begins and ends. Nothing is compared with, or divided by, a time before the first data. */
import { levels, type Level } from '../../shared/rollup.js';
import type { Store, StoredWindows } from '../../shared/store/store.js';

/** The time from the first data to the last, in milliseconds since 1970. */
export interface DataSpan {
  readonly firstMs: number;
  /** The start of the newest window. */
  readonly newestMs: number;
}

/** How long an answer is used, in milliseconds: what is too old is deleted, and what others import is added, without notice. */
const keptMs = 10_000;

/** Remembers when the data of each source of a store begins, until older data is written. */
export class FirstData {
  readonly #store: Pick<Store, 'readStoredWindows'>;
  readonly #clock: () => number;
  #known: { readonly readMs: number; readonly windows: ReadonlyMap<string, StoredWindows> } | undefined;
  /** Goes up with each batch: what is being read at that moment may lack its rows. */
  #version = 0;

  constructor(store: Pick<Store, 'readStoredWindows' | 'changes'>, { clock = () => performance.now() } = {}) {
    this.#store = store;
    this.#clock = clock;
    store.changes?.listen(({ rollups }) => {
      this.#version += 1;
      if (rollups.some(({ level, windowMs, series }) => !((this.#known?.windows.get(series.source)?.oldest.get(level) ?? Infinity) <= windowMs))) this.#known = undefined;
    });
    store.changes?.listenForExchange(() => {
      this.#version += 1;
      this.#known = undefined;
    });
  }

  /** By source. Throws the store's `StoreError`. */
  async spans(inTime: (run: (signal: AbortSignal) => ReturnType<Store['readStoredWindows']>) => ReturnType<Store['readStoredWindows']>): Promise<ReadonlyMap<string, DataSpan>> {
    if (this.#known !== undefined && this.#clock() - this.#known.readMs <= keptMs) return spansOf(this.#known.windows);
    const [version, readMs] = [this.#version, this.#clock()];
    const windows = await inTime((signal) => this.#store.readStoredWindows({ signal }));
    if (version === this.#version) this.#known = { readMs, windows };
    return spansOf(windows);
  }
}

/** From the first data of any of them to the last; `undefined` where there are none. */
export function unionOf(spans: Iterable<DataSpan>): DataSpan | undefined {
  const all = [...spans];
  return all.length === 0 ? undefined : { firstMs: Math.min(...all.map(({ firstMs }) => firstMs)), newestMs: Math.max(...all.map(({ newestMs }) => newestMs)) };
}

function spansOf(windows: ReadonlyMap<string, StoredWindows>): ReadonlyMap<string, DataSpan> {
  return new Map([...windows].flatMap(([source, { oldest, newestMs }]) => {
    const firstMs = firstOf(oldest);
    return firstMs === undefined ? [] : [[source, { firstMs, newestMs: Math.max(firstMs, newestMs) }] as const];
  }));
}

/** The oldest window, found in the coarsest level, which is kept longest, and told as exactly as the finer levels tell it. */
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
