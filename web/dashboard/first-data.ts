/** When the data of a store begins. Nothing is compared with, or divided by, a time before that. */
import { levels, type Level } from '../../shared/rollup.js';
import type { Store } from '../../shared/store/store.js';

/** How long an answer is used, in milliseconds: what is too old is deleted, and what others import is added, without notice. */
const keptMs = 10_000;

/** Remembers the oldest windows of a store until older ones are written. */
export class FirstData {
  readonly #store: Pick<Store, 'readOldestWindows'>;
  readonly #clock: () => number;
  #known: { readonly readMs: number; readonly windows: ReadonlyMap<Level, number> } | undefined;
  /** Goes up when what is being read at this moment may lack rows. */
  #version = 0;

  constructor(store: Pick<Store, 'readOldestWindows' | 'changes'>, { clock = () => performance.now() } = {}) {
    this.#store = store;
    this.#clock = clock;
    store.changes?.listen(({ rollups }) => {
      const windows = this.#known?.windows;
      if (windows === undefined || rollups.some(({ level, windowMs }) => !((windows.get(level) ?? Infinity) <= windowMs))) this.#forget();
    });
    store.changes?.listenForExchange(() => { this.#forget(); });
  }

  /** Milliseconds since 1970; `undefined` while nothing is stored. Throws the store's `StoreError`. */
  async ms(read: (run: (signal: AbortSignal) => ReturnType<Store['readOldestWindows']>) => ReturnType<Store['readOldestWindows']>): Promise<number | undefined> {
    if (this.#known !== undefined && this.#clock() - this.#known.readMs <= keptMs) return firstOf(this.#known.windows);
    const [version, readMs] = [this.#version, this.#clock()];
    const windows = await read((signal) => this.#store.readOldestWindows({ signal }));
    if (version === this.#version && windows.size > 0) this.#known = { readMs, windows };
    return firstOf(windows);
  }

  #forget(): void {
    this.#known = undefined;
    this.#version += 1;
  }
}

/** The oldest window, found in the coarsest level, which is kept longest, and told as exactly as the finer levels tell it. */
export function firstOf(windows: ReadonlyMap<Level, number>): number | undefined {
  const [coarsest, ...finer] = levels.filter((level) => windows.has(level)).toReversed();
  if (coarsest === undefined) return undefined;
  let firstMs = windows.get(coarsest)!;
  let endMs = firstMs + coarsest * 1000;
  for (const level of finer) {
    const windowMs = windows.get(level)!;
    if (windowMs >= endMs) break; // the rows of this level that began it are deleted
    firstMs = Math.max(firstMs, windowMs);
    endMs = firstMs + level * 1000;
  }
  return firstMs;
}
