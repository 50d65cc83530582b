import type { RowKey } from '../rollup/rollup.js';
import type { TopRow } from '../top-list/top-row.js';

/** Rows that a batch has changed. */
export interface ChangedRows {
  readonly rollups: readonly RowKey[];
  readonly topLists: readonly Pick<TopRow, 'level' | 'windowMs' | 'source' | 'kind'>[];
}

/** Tells of what is written to a store, for those who keep what they have read. */
export interface StoreChanges {
  /** Calls `onChange` when a batch has been written, or may have been: a write that failed can have gone through. */
  listen(onChange: (changed: ChangedRows) => void): void;
  /** Calls `onExchange` when the store has other contents than before: nothing that was read holds any more. */
  listenForExchange(onExchange: () => void): void;
}

/** Makes the changes of a store, and what the store tells them by. */
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
