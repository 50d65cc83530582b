/** Reads that have nothing to keep: viewers who come at about the same time make one together. */
import type { StoreChanges } from '../../shared/store/changes.js';
import type { TimeRange } from '../../shared/store/store.js';

/**
 * Makes a read, or takes part in one of the same name and query that was started a moment ago; its range may be as much as that moment
 * older. Where the store tells of its changes, one that a batch has overtaken is made anew.
 */
export type SharedReads = <Query, Answer>(name: string, range: TimeRange, query: Query, read: (range: TimeRange, query: Query) => Promise<Answer>) => Promise<Answer>;

/** How long ago the read may have been started, in milliseconds. */
const momentMs = 200;
/** So many are kept in mind; those that were started first go first. */
const readsMax = 100;

/** Makes the reads of one store. */
export function createSharedReads(changes: StoreChanges | undefined, { clock = () => performance.now() } = {}): SharedReads {
  const started = new Map<string, { readonly range: TimeRange; readonly atMs: number; readonly answer: Promise<unknown> }>();
  changes?.listen(() => { started.clear(); });
  return async <Query, Answer>(name: string, range: TimeRange, query: Query, read: (range: TimeRange, query: Query) => Promise<Answer>): Promise<Answer> => {
    const key = JSON.stringify([name, query]);
    const known = started.get(key);
    const isNear = known !== undefined && clock() - known.atMs <= momentMs && (['fromMs', 'toMs'] as const).every((end) => range[end] >= known.range[end] && range[end] - known.range[end] <= momentMs);
    if (isNear) return await (known.answer as Promise<Answer>);
    const answer = read(range, query);
    const own = { range, atMs: clock(), answer };
    started.delete(key);
    started.set(key, own);
    answer.catch(() => { if (started.get(key) === own) started.delete(key); });
    for (const oldest of started.keys()) if (started.size > readsMax) started.delete(oldest);
    return await answer;
  };
}
