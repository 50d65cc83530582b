import type { Batch } from './store.js';

/** Tells of what is written to a store, for those who keep what they have read. */
export interface StoreChanges {
  /** Calls `onChange` when a batch has been written, or may have been: a write that failed can have gone through. */
  listen(onChange: (batch: Batch) => void): void;
  /** Calls `onExchange` when the store has other contents than before: nothing that was read holds any more. */
  listenForExchange(onExchange: () => void): void;
}

/** Makes the changes of a store, and what the store tells them by. */
export function createChanges(): StoreChanges & { tell: (batch: Batch) => void; tellExchanged: () => void } {
  const listeners: ((batch: Batch) => void)[] = [];
  const exchangeListeners: (() => void)[] = [];
  return {
    listen(onChange) { listeners.push(onChange); },
    listenForExchange(onExchange) { exchangeListeners.push(onExchange); },
    tell(batch) { for (const onChange of listeners) onChange(batch); },
    tellExchanged() { for (const onExchange of exchangeListeners) onExchange(); },
  };
}
