/** What a store remembers of imported requests, hour by hour, for one file. */
import { importKey, unpackImported } from '../../shared/record/imported-requests.js';
import type { RequestEvent } from '../../shared/request-event.js';
import { windowStart } from '../../shared/rollup/rollup.js';
import type { Store } from '../../shared/store/store.js';

/** The hours of the requests at hand. Other hours are let go of: files are in about the order of time. */
export class ImportedHours {
  readonly #store: Pick<Store, 'readImported'>;
  #hours = new Map<number, Hour>();

  constructor(store: Pick<Store, 'readImported'>) {
    this.#store = store;
  }

  /** Loads the hours of requests that are looked up next. Throws the store's `StoreError`. */
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

  /** How often a request was imported. Its hour has been loaded. */
  count(request: RequestEvent): number {
    const keys = this.#hours.get(hourOf(request.timeMs))?.keys;
    if (keys === undefined || keys.length === 0) return 0;
    const key = importKey(request);
    let count = 0;
    for (let at = lowerBound(keys, key); keys[at] === key; at += 1) count += 1;
    return count;
  }

  /** How many requests of an hour and a source were imported. The hour has been loaded. */
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

/** The index of the first key that is not less. */
function lowerBound(keys: Float64Array, key: number): number {
  let [from, to] = [0, keys.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (keys[middle]! < key) from = middle + 1;
    else to = middle;
  }
  return from;
}
