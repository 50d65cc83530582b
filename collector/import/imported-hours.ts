/** Caches the store's records of imported requests, by hour, during the import of one file. */
import { importKey, unpackImported } from '../../shared/record/imported-requests.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { windowStart } from '../../shared/rollup/rollup.js';
import type { Store } from '../../shared/store/store.js';

/** Holds the hours of the current requests only, since files are approximately in order of time. */
export class ImportedHours {
  readonly #store: Pick<Store, 'readImported'>;
  #hours = new Map<number, Hour>();

  constructor(store: Pick<Store, 'readImported'>) {
    this.#store = store;
  }

  /** Loads the hours of the next requests. Throws the store's `StoreError`. */
  async load(requests: readonly RequestEvent[]): Promise<void> {
    const wanted = new Set(requests.map(({ timeMs }) => hourOf(timeMs)));
    this.#hours = new Map([...this.#hours].filter(([startMs]) => wanted.has(startMs)));
    const missing = [...wanted].filter((startMs) => !this.#hours.has(startMs)).toSorted((one, other) => one - other);
    if (missing.length === 0) return;
    const builders = new Map(
      missing.map((startMs) => [startMs, { keys: [] as number[], countBySource: new Map<string, number>() }]),
    );
    for (const row of await this.#store.readImported({ fromMs: missing[0]!, toMs: missing.at(-1)! + 1 })) {
      const builder = builders.get(row.windowMs);
      if (builder === undefined) continue;
      const requestsOfRow = unpackImported(row);
      for (const { key } of requestsOfRow) builder.keys.push(key);
      builder.countBySource.set(row.source, (builder.countBySource.get(row.source) ?? 0) + requestsOfRow.length);
    }
    for (const [startMs, { keys, countBySource }] of builders)
      this.#hours.set(startMs, { keys: Float64Array.from(keys).sort(), countBySource });
  }

  /** How often a request was imported. Its hour must be loaded. */
  count(request: RequestEvent): number {
    const keys = this.#hours.get(hourOf(request.timeMs))?.keys;
    if (keys === undefined || keys.length === 0) return 0;
    const key = importKey(request);
    let count = 0;
    for (let at = lowerBound(keys, key); keys[at] === key; at += 1) count += 1;
    return count;
  }

  /** Number of imported requests of an hour and a source. The hour must be loaded. */
  countOf(hourMs: number, source: string): number {
    return this.#hours.get(hourMs)?.countBySource.get(source) ?? 0;
  }
}

interface Hour {
  /** In ascending order. */
  readonly keys: Float64Array;
  readonly countBySource: ReadonlyMap<string, number>;
}

function hourOf(timeMs: number): number {
  return windowStart(timeMs, 3600);
}

/** Index of the first key that is not less than `key`. */
function lowerBound(keys: Float64Array, key: number): number {
  let [from, to] = [0, keys.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (keys[middle]! < key) from = middle + 1;
    else to = middle;
  }
  return from;
}
