import type { RowKey } from '../rollup/rollup.js';
import type { TopRow } from '../top-list/top-row.js';

/** Rows that a batch has changed. */
export interface ChangedRows {
  readonly rollups: readonly RowKey[];
  readonly topLists: readonly Pick<TopRow, 'level' | 'windowMs' | 'source' | 'kind'>[];
}

/** Announces writes to a store, for caches of what was read from it. */
export interface StoreChanges {
  /** Calls `onChange` when a batch has been written, or may have been: a failed write may have been committed. */
  listen(onChange: (changed: ChangedRows) => void): void;
  /** Calls `onExchange` when the contents of the store were replaced: all caches are invalid. */
  listenForExchange(onExchange: () => void): void;
}

/** Creates the changes of a store, and the functions with which the store emits them. */
export function createChanges(): StoreChanges & { tell: (changed: ChangedRows) => void; emitReplaced: () => void } {
  const listeners: ((changed: ChangedRows) => void)[] = [];
  const exchangeListeners: (() => void)[] = [];
  return {
    listen(onChange) {
      listeners.push(onChange);
    },
    listenForExchange(onExchange) {
      exchangeListeners.push(onExchange);
    },
    tell(changed) {
      for (const onChange of listeners) onChange(changed);
    },
    emitReplaced() {
      for (const onExchange of exchangeListeners) onExchange();
    },
  };
}
