import type { Batch } from './store.js';

/** Tells of what is written to a store, for those who keep what they have read. */
export interface StoreChanges {
  /** Calls `onChange` when a batch has been written, or may have been: a write that failed can have gone through. */
  listen(onChange: (batch: Batch) => void): void;
}

/** Makes the changes of a store, and what the store tells them by. */
export function createChanges(): StoreChanges & { tell: (batch: Batch) => void } {
  const listeners: ((batch: Batch) => void)[] = [];
  return {
    listen(onChange) { listeners.push(onChange); },
    tell(batch) { for (const onChange of listeners) onChange(batch); },
  };
}
